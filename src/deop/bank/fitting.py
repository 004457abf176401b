"""How much words and examples count: two small logistic regressions on a bank, each photo judged by the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deop.bank.kernels import evidence_of, log_sum

STRANGERS = 0.95
"""Share of the regions without a name with examples that are less similar to examples than ``Weights.similar``."""

_START = np.array([1.0, 1.0])  # factors of words and examples without any evidence
_STRENGTH = np.array([9.0, 0.5])  # marked names of photos that it takes to move them
_START_ODDS = np.array([1.0, 0.3, 0.0])  # of words, similarity, 1
_STRENGTH_ODDS = np.array([8.0, 4.0, 4.0])  # names that it takes to move them
_LARGEST_ODDS = 6.0  # words alone never rule out a name with examples
_LEAST_SIMILAR = -12.0
_STEPS = 30


@dataclass(frozen=True)
class Weights:
    """How much words and examples count (docs/method.md §14).

    Attributes:
        words: factor of the words, among names with examples.
        examples: factor of the evidence of examples, among these.
        odds_words: factor of the log odds that words give the names with examples against the others.
        odds_similar: what similarity adds to these log odds.
        odds_constant: constant of these log odds.
        similar: log kernel of the nearest name that adds nothing.
    """

    words: float = float(_START[0])
    examples: float = float(_START[1])
    odds_words: float = float(_START_ODDS[0])
    odds_similar: float = float(_START_ODDS[1])
    odds_constant: float = float(_START_ODDS[2])
    similar: float = -6.0

    def odds(self, words: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """The log odds that regions have one of the names with examples.

        They exceed those by words at most by what the region is more similar to the examples than others are: else
        names without examples would lose regions that only look a little like an example.

        Args:
            words: (N,) float, the log odds by words.
            nearest: (N,) float, the log kernel of the nearest name.
        """
        factors = np.array([self.odds_words, self.odds_similar, self.odds_constant])
        features = _odds_features(words, nearest, self.similar)
        return np.minimum(features @ factors, features[:, 0] + np.maximum(features[:, 1], 0))


def fit_weights(
    words: np.ndarray, kernels: np.ndarray, true: np.ndarray, photo: np.ndarray, alone: np.ndarray
) -> Weights:
    """Fit the weights on regions of a bank.

    Among names with examples, the likelihood of the true name counts. Whether a region has one of these names at all is
    judged twice: with the examples of its name, and as if its name had none. That shows what becomes of names without
    examples. If no name can be judged by other photos, names are judged by other regions of the same photo, and by the
    regions that have none of the names.

    Args:
        words: (n, K + 1) float, logits by words.
        kernels: (n, K + 2) float, log kernels of the examples of other photos; -inf without any. The last column is
            everything else that the bank has.
        true: (n,) int, the true column of each region; K + 1: none of the names.
        photo: (n,) int, its photo.
        alone: (n,) bool, regions of which the kernel of the true name is of examples in the same photo.
    """
    columns = words.shape[1]
    evidence = evidence_of(kernels)[:, :columns]
    kernels, named = kernels[:, :columns], true < columns
    strangers = _Odds.of(words[~named], kernels[~named], np.isfinite(kernels[~named]))
    words, kernels, evidence, true, photo, alone = (
        values[named] for values in (words, kernels, evidence, true, photo, alone)
    )
    rows, present = np.arange(len(true)), np.isfinite(kernels)
    weight = 1 / _group_size(photo.astype(np.int64) * columns + true)  # each name counts once a photo
    within = present[rows, true] & ~alone & (present.sum(1) > 1)
    factors = _fit_within(np.where(present, words, -np.inf)[within], evidence[within], true[within], weight[within])
    hidden = present.copy()
    hidden[rows, true] = False
    shown = _Odds.of(words, kernels, present & present[rows, true][:, None])
    hidden_odds = _Odds.of(words, kernels, hidden)
    # Where some names are judged by other photos, only they are: regions of the same photo are too similar.
    lone = not (shown.usable & ~alone).any()
    if not lone:
        shown = shown._replace(usable=shown.usable & ~alone)
        strangers = strangers._replace(usable=np.zeros(len(strangers.words), bool))
    # For what becomes of other names, each name is one sample, however many photos show it.
    weight = weight / np.maximum(np.bincount(true, weight, minlength=columns), 1e-9)[true]
    stranger = np.full(len(strangers.words), 1 / max(1, strangers.usable.sum()))
    weights = (weight, weight, stranger)
    samples = (shown, hidden_odds, strangers)
    nearest = np.concatenate([sample.nearest[sample.usable] for sample in samples[1:]])
    similar = float(np.quantile(nearest, STRANGERS)) if len(nearest) else Weights.similar
    odds = _fit_odds(
        np.concatenate([sample.features(similar) for sample in samples]),
        np.repeat([1.0, 0.0, 0.0], [sample.usable.sum() for sample in samples]),
        np.concatenate([part[sample.usable] for part, sample in zip(weights, samples, strict=True)]),
    )
    a, b = factors.tolist()
    alpha, delta, gamma = odds.tolist()
    return Weights(a, b, alpha, delta, gamma, similar)


class _Odds(NamedTuple):
    """What the odds of the names with examples depend on, for n regions.

    Attributes:
        words: (n,) float, the log odds by words.
        nearest: (n,) float, the log kernel of the nearest name.
        usable: (n,) bool, whether names with and names without examples compete.
    """

    words: np.ndarray
    nearest: np.ndarray
    usable: np.ndarray

    @classmethod
    def of(cls, words: np.ndarray, kernels: np.ndarray, names: np.ndarray) -> "_Odds":
        """The odds of some names, (n, K + 1) bool, against the others."""
        together, rest = log_sum(np.where(names, words, -np.inf)), log_sum(np.where(names, -np.inf, words))
        usable = np.isfinite(rest) & np.isfinite(together)
        odds = np.where(usable, together, 0) - np.where(usable, rest, 0)
        return cls(odds, np.where(names, kernels, -np.inf).max(1, initial=-np.inf), usable)

    def features(self, similar: float) -> np.ndarray:
        """The features of the regression, (usable, 3)."""
        return _odds_features(self.words[self.usable], self.nearest[self.usable], similar)


def _group_size(keys: np.ndarray) -> np.ndarray:
    """How many times the value at each place occurs."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[inverse]


def _odds_features(words: np.ndarray, nearest: np.ndarray, similar: float) -> np.ndarray:
    words = np.clip(words, -_LARGEST_ODDS, _LARGEST_ODDS)
    return np.stack([words, np.clip(nearest, _LEAST_SIMILAR, 0) - similar, np.ones(len(words))], -1).astype(np.float64)


def _fit_within(words: np.ndarray, evidence: np.ndarray, true: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The factors of words and evidence under which the true names are most likely: a multinomial regression."""
    if not len(true):
        return _START
    words = words - words.max(1, keepdims=True)
    competes = np.isfinite(words)
    features = np.stack([np.where(competes, words, 0), np.where(competes, evidence, 0)], -1).astype(np.float64)
    rows = np.arange(len(true))

    def logs(factors: np.ndarray) -> np.ndarray:
        values = np.where(competes, features @ factors, -np.inf)
        return values - log_sum(values)[:, None]

    def loss(factors: np.ndarray) -> float:
        return float(-(weight * logs(factors)[rows, true]).sum())

    def slopes(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = np.exp(logs(factors))
        mean = np.einsum("nk,nkp->np", shares, features)
        second = np.einsum("n,nk,nkp,nkq->pq", weight, shares, features, features, optimize=True)
        second -= np.einsum("n,np,nq->pq", weight, mean, mean)
        return ((mean - features[rows, true]) * weight[:, None]).sum(0), second

    return _newton(loss, slopes, _START, _STRENGTH, np.array([0.05, 0.0]))


def _fit_odds(features: np.ndarray, is_named: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The factors of the log odds that regions have one of the names with examples: a logistic regression."""

    def loss(factors: np.ndarray) -> float:
        values = features @ factors
        return float((weight * (np.logaddexp(0, values) - is_named * values)).sum())

    def slopes(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chance = 1 / (1 + np.exp(-np.clip(features @ factors, -500, 500)))
        second = (features * (weight * chance * (1 - chance))[:, None]).T @ features
        return features.T @ (weight * (chance - is_named)), second

    return _newton(loss, slopes, _START_ODDS, _STRENGTH_ODDS, np.array([0.05, 0.0, -np.inf]))


def _newton(
    loss: Callable[[np.ndarray], float],
    slopes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
    strength: np.ndarray,
    lowest: np.ndarray,
) -> np.ndarray:
    """Minimise a convex loss of a few factors plus a prior around ``start``, with a lower limit for each factor."""

    def total(factors: np.ndarray) -> float:
        return loss(factors) + float(0.5 * (strength * (factors - start) ** 2).sum())

    factors, current = start, total(start)
    for _ in range(_STEPS):
        first, second = slopes(factors)
        first, second = first + strength * (factors - start), second + np.diag(strength)
        free = ~((factors <= lowest) & (first > 0))
        step = np.zeros(len(start))
        step[free] = np.linalg.solve(second[np.ix_(free, free)], -first[free])
        scale = 1.0
        while scale > 1e-3 and total(np.maximum(factors + scale * step, lowest)) > current:
            scale /= 2
        following = np.maximum(factors + scale * step, lowest)
        change = float(np.abs(following - factors).max())
        if total(following) <= current:
            factors, current = following, total(following)
        if change < 1e-6:
            break
    return factors

"""Names scored by words and examples together (docs/method.md §14)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deop.bank.bank import NOT, Bank
from deop.bank.fitting import Weights, fit_weights
from deop.bank.kernels import centre_of, centred, evidence_of, log_sum, mean_kernels
from deop.errors import SettingError
from deop.text.vocabulary import Vocabulary

FITTED_WEIGHT = 0.5
"""The weight of examples at which words and examples count as they were fitted on the bank: the default."""
ALIKE = 0.999
"""Cosine from which a region equals an example, up to the rounding of float16 and of engines."""

FITTED_ON = 1000
"""Regions of the bank that the weights are fitted on; more would change them little."""

_CERTAIN = 10.0  # logit by which a region that equals an example prefers its name
_NOTHING_SIMILAR = -2.0  # log kernel that counts as similar where there is nothing to compare with: a cosine of 0.9
_NO_WORD = 3.0  # logit of a name without a word, below all names together


@dataclass(frozen=True)
class Examples:
    """The examples of a bank for the K names of a vocabulary, ready to score regions.

    Groups of examples belong to a column: 0..K-1 the names, K the background, K + 1 everything else in the bank.

    Attributes:
        regions: (R, C) float32, centred and L2-normalised, one group after the other.
        centre: (C,) float32, what the embeddings of the bank have in common.
        starts: (G,) int, first region of each group.
        columns: (G,) int, the column of each group.
        negative: (G,) bool, whether a group has regions that do not have the name of its column.
        wordless: (K + 1,) bool, columns that have no word.
        weights: how much words and examples count.
        weight: of the examples, in [0, 1].
    """

    regions: np.ndarray
    centre: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    negative: np.ndarray
    wordless: np.ndarray
    weights: Weights
    weight: float

    @property
    def named(self) -> np.ndarray:
        """The columns, up to K, that have positive examples."""
        return self.columns[~self.negative & (self.columns < len(self.wordless))]

    def adjust(self, logits: np.ndarray, regions: np.ndarray) -> np.ndarray:
        """The logits of regions by words and examples.

        Args:
            logits: (N, K + 1) float32, by words alone; the last column is "none of these". A name without a word has
                -inf.
            regions: (N, C) float, their L2-normalised embeddings.

        Returns:
            (N, K + 1) float32.
        """
        if not len(logits):
            return logits
        kernels, nearest = mean_kernels(centred(regions, self.centre), self.regions, self.starts)
        base = with_wordless(logits, self.wordless)
        words, only = base, max(0.0, self.weight / FITTED_WEIGHT - 1)
        if only and len(self.named):  # words count less than fitted: in part, all names with examples are equal
            words = base.copy()
            equal = log_sum(base[:, self.named]) - np.log(len(self.named))
            words[:, self.named] = (1 - only) * base[:, self.named] + only * equal[:, None]
        fitted = self._fitted(words, kernels)
        share = min(1.0, self.weight / FITTED_WEIGHT)
        if share < 1:
            finite = np.isfinite(base)
            fitted = np.where(finite, (1 - share) * np.where(finite, base, 0) + share * fitted, fitted)
        return self._certain(fitted, nearest, share).astype(np.float32)

    def _fitted(self, words: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        """Words and examples with their fitted weights."""
        count, named = words.shape[1], self.named
        values = np.full((len(words), count + 1), -np.inf, np.float32)
        values[:, self.columns[~self.negative]] = kernels[:, ~self.negative]
        result = words.copy()
        if len(named):
            result = combine(words, values, named, self.weights)
        for group in np.flatnonzero(self.negative):
            column = self.columns[group]
            own = np.maximum(values[:, column], _NOTHING_SIMILAR) if column not in named else values[:, column]
            result[:, column] -= self.weights.examples * np.logaddexp(0, kernels[:, group] - own)
        return result

    def _certain(self, logits: np.ndarray, nearest: np.ndarray, share: float) -> np.ndarray:
        """A region that equals an example has its name; one that equals a negative example does not have it."""
        rows = np.flatnonzero((nearest >= ALIKE).any(1))
        for row in rows:
            equal = nearest[row] >= max(ALIKE, float(nearest[row].max()) - 1e-5)
            for group in np.flatnonzero(equal & self.negative):
                logits[row, self.columns[group]] -= share * _CERTAIN
            owners = np.unique(self.columns[equal & ~self.negative])
            if len(owners) == 1 and owners[0] < logits.shape[1]:  # else the examples contradict each other
                others = np.delete(logits[row], owners[0])
                best = others[np.isfinite(others)].max(initial=-np.inf)
                if np.isfinite(best):
                    logits[row, owners[0]] = max(logits[row, owners[0]], best + share * _CERTAIN)
        return logits


def with_wordless(logits: np.ndarray, wordless: np.ndarray) -> np.ndarray:
    """Logits with a value for names without a word: a fixed share of what all other names have together."""
    if not wordless.any():
        return logits
    result = logits.copy()
    known = log_sum(np.where(wordless, -np.inf, logits))
    result[:, wordless] = np.where(np.isfinite(known), known - _NO_WORD, 0)[:, None]
    return result


def combine(words: np.ndarray, kernels: np.ndarray, named: np.ndarray, weights: Weights) -> np.ndarray:
    """The logits of words and examples (docs/method.md §14).

    The names with examples together get a probability that depends on what words give them, and on how similar the
    region is to the nearest of them; they divide it by words and examples. The other names keep their logits.

    Args:
        words: (N, K + 1) float, by words.
        kernels: (N, K + 2) float, log kernels of the columns; -inf without examples. The last column is everything
            else that the bank has.
        named: columns with examples.
        weights: the fitted weights.

    Returns:
        (N, K + 1) float.
    """
    within = weights.words * words[:, named] + weights.examples * evidence_of(kernels)[:, named]
    others = np.delete(words, named, axis=1)
    rest = log_sum(others) if others.shape[1] else np.full(len(words), -np.inf)
    together = log_sum(words[:, named])
    known = np.isfinite(rest)
    odds = weights.odds(together - np.where(known, rest, together), kernels[:, named].max(1))
    total = np.where(known, np.where(known, rest, 0) + odds, together)
    result = words.copy()
    result[:, named] = within + (total - log_sum(within))[:, None]
    return result


def prepare(
    bank: Bank, vocabulary: Vocabulary, score: Callable[[np.ndarray], np.ndarray], weight: float | None
) -> Examples | None:
    """The examples of a bank for a vocabulary.

    Args:
        bank: the bank.
        vocabulary: the K names.
        score: gives the logits (N, K + 1) of regions (N, C) by words alone.
        weight: in [0, 1]; None: ``FITTED_WEIGHT``.

    Returns:
        The examples; None if the bank has none of the names, or the weight is 0, so that words alone count.

    Raises:
        VocabularyError: two names of the vocabulary are one name of the bank.
    """
    weight = check_weight(weight)
    columns = bank.columns(vocabulary)
    if not weight or (columns < 0).all():
        return None
    count = len(vocabulary.names)
    is_negative = np.array([name.startswith(NOT) for name in bank.names])
    # Everything that is not asked for shows what else there is; negative examples of such names show nothing.
    column = np.where(columns >= 0, columns, count + 1)
    group_of = 2 * column + is_negative
    group_of[is_negative & (columns < 0)] = -1
    of_region = group_of[bank.name_of]
    order = np.flatnonzero(of_region >= 0)
    order = order[np.argsort(of_region[order], kind="stable")]
    groups, starts = np.unique(of_region[order], return_index=True)
    regions = np.ascontiguousarray(bank.regions[order], dtype=np.float32)
    wordless = ~np.isfinite(score(regions[:1])[0])
    wordless &= np.isin(np.arange(count + 1), groups // 2)  # else a column without rows, such as no background
    centre = centre_of(regions, bank.photo_of[order].astype(np.int64) * len(bank.names) + bank.name_of[order])
    examples = centred(regions, centre)
    weights = _fit(bank, regions, examples, order, starts, groups, wordless, score)
    return Examples(examples, centre, starts, groups // 2, groups % 2 == 1, wordless, weights, weight)


def check_weight(weight: float | None) -> float:
    """The weight of examples.

    Raises:
        SettingError: it is not a number in [0, 1].
    """
    if weight is None:
        return FITTED_WEIGHT
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
        raise SettingError(f"bank_weight must be a number in [0, 1], not {weight!r}: 0 counts words alone, 1 examples")
    return float(weight)


def _fit(
    bank: Bank,
    regions: np.ndarray,
    examples: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    groups: np.ndarray,
    wordless: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
) -> Weights:
    """The weights that suit the examples, each judged by those of the other photos."""
    count, photo = len(wordless), bank.photo_of[order]
    sizes = np.diff(np.append(starts, len(regions)))
    group_of = np.repeat(np.arange(len(groups)), sizes)
    judged = np.flatnonzero(groups[group_of] % 2 == 0)
    judged = judged[:: max(1, -(-len(judged) // FITTED_ON))]
    group = group_of[judged]
    true = groups[group] // 2
    all_photos, _ = mean_kernels(examples[judged], examples, starts)
    other_photos, _ = mean_kernels(examples[judged], examples, starts, (photo[judged], photo))
    # Unmarked regions can be judged by their own photo, too: the marked regions there are other regions.
    logs = np.where((true == count)[:, None], all_photos, other_photos)
    # A name that only one photo shows is judged by its other regions there, which says less.
    rows = np.arange(len(judged))
    alone = (true < count) & ~np.isfinite(logs[rows, group]) & (sizes[group] > 1)
    others = np.exp(all_photos[rows, group]) * sizes[group] - 1  # without the region itself, whose kernel is 1
    logs[rows[alone], group[alone]] = np.log(np.maximum(others, 1e-37) / np.maximum(sizes[group] - 1, 1))[alone]
    kernels = np.full((len(judged), count + 1), -np.inf, np.float32)
    positive = groups % 2 == 0
    kernels[:, groups[positive] // 2] = logs[:, positive]
    words = with_wordless(score(regions[judged]), wordless)
    return fit_weights(words, kernels, true, photo[judged], alone)

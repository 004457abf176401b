"""Confidence intervals of scores: a percentile bootstrap over the photos of a data set (Efron 1979).

The photos are drawn with replacement, as many as there are, and the score is computed from the sum of their counts.
The interval contains the middle part of these scores. It describes other photos of the same kind, not other training
runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deop.errors import SettingError

_RESAMPLES_AT_ONCE = 100


class Tally(ABC):
    """What is kept of every photo of a data set, to score the data set or any resample of its photos."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of photos."""

    @abstractmethod
    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The values (R, ...) if each photo counts as often as ``weights`` (R, photos) says."""

    def total(self) -> np.ndarray:
        """The value for all photos, of shape (...)."""
        return self.resampled(np.ones((1, len(self))))[0]


class PhotoSums(Tally):
    """Counts of every photo, of which only those above 0 are kept. Their sum scores a data set.

    Args:
        shape: shape of the counts of one photo.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._indices: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, counts: np.ndarray) -> None:
        """Add a photo with counts of shape ``shape``."""
        flat = np.broadcast_to(counts, self.shape).ravel()
        indices = np.flatnonzero(flat)
        self._indices.append(indices.astype(np.int32))
        self._values.append(flat[indices].astype(np.float64))

    def __len__(self) -> int:
        return len(self._indices)

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """Weighted sums over the photos.

        Args:
            weights: (R, photos), how often each photo counts.

        Returns:
            (R, ...) float64.
        """
        width = int(np.prod(self.shape))
        if not len(self):
            return np.zeros((len(weights), *self.shape))
        indices, values = np.concatenate(self._indices), np.concatenate(self._values)
        photos = np.repeat(np.arange(len(self)), [len(part) for part in self._indices])
        sums = [np.bincount(indices, weight[photos] * values, width) for weight in weights]
        return np.stack(sums).reshape(len(weights), *self.shape)


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the intervals.

    Attributes:
        resamples: number of resamples, at least 1.
        confidence: fraction of the resamples that lie in an interval, in (0, 1).
        seed: random seed, 0 or more. The same seed and number of photos give the same resamples, so that differences
            between two models on one data set are paired.

    Raises:
        SettingError: a value out of range.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise SettingError(f"{self.resamples} resamples give no interval: use 1 or more")
        if not 0 < self.confidence < 1:
            raise SettingError(f"confidence is {self.confidence}: expected a number between 0 and 1, such as 0.95")
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}: expected 0 or more")

    def draw(self, sums: Tally, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The score of every resample.

        Args:
            sums: what is kept of the photos.
            score: function from sums (R, ...) to scores (R, ...).

        Returns:
            (resamples, ...) float.
        """
        rng = np.random.default_rng(self.seed)
        photos = len(sums)
        scores = []
        for first in range(0, self.resamples, _RESAMPLES_AT_ONCE):
            count = min(_RESAMPLES_AT_ONCE, self.resamples - first)
            weights = rng.multinomial(photos, np.full(photos, 1 / photos), count) if photos else np.zeros((count, 0))
            scores.append(score(sums.resampled(weights)))
        return np.concatenate(scores)

    def interval(self, draws: np.ndarray) -> np.ndarray:
        """The lower and upper percentile of the scores of ``draw``.

        Args:
            draws: (R, ...) float. NaN marks a score that a resample does not have; it is left out.

        Returns:
            (2, ...) float, NaN if no resample has the score.
        """
        tail = 50 * (1 - self.confidence)
        bounds = np.full((2, *draws.shape[1:]), np.nan)
        scored = ~np.isnan(draws).all(0)
        bounds[:, scored] = np.nanpercentile(draws[:, scored], [tail, 100 - tail], axis=0)
        return bounds

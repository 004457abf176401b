"""How far a score would move with other photos: percentile bootstrap over the photos of a set.

A score of few photos says little, and says it with many digits. The photos are drawn again with replacement, as many as
there are, and the score is computed from what these add up to; the interval holds the middle part of such scores
(Efron 1979). It speaks of other photos of the same kind, not of other training runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from deop.errors import SettingError

_DRAWS = 100
"""Resamples that are added up at once."""


@dataclass
class PhotoSums:
    """Counts of each photo, kept sparse: what they add up to scores the set, or any resample of it.

    Attributes:
        shape: of the counts of one photo.
    """

    shape: tuple[int, ...]
    _places: list[np.ndarray] = field(default_factory=list)
    _values: list[np.ndarray] = field(default_factory=list)

    def add(self, counts: np.ndarray) -> None:
        """Keep the counts of one photo, of ``shape``."""
        flat = np.broadcast_to(counts, self.shape).ravel()
        places = np.flatnonzero(flat)
        self._places.append(places.astype(np.int32))
        self._values.append(flat[places].astype(np.float64))

    def __len__(self) -> int:
        return len(self._places)

    def total(self) -> np.ndarray:
        """The sum over the photos, of ``shape``, float64."""
        return self.resampled(np.ones((1, len(self))))[0]

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The sums (R, *shape) with each photo counted as often as ``weights`` (R, photos) says."""
        width = int(np.prod(self.shape))
        if not len(self):
            return np.zeros((len(weights), *self.shape))
        ends = np.cumsum([0, *(len(places) for places in self._places)])
        table = sparse.csr_array(
            (np.concatenate(self._values), np.concatenate(self._places), ends), shape=(len(self), width)
        )
        return (weights @ table).reshape(len(weights), *self.shape)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are found.

    Attributes:
        resamples: how often the photos are drawn.
        confidence: the share of the draws that an interval holds, in (0, 1).
        seed: of the draws. The same seed and the same number of photos draw the same photos, which makes differences
            between two models on one set paired.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise SettingError(f"{self.resamples} resamples give no interval: ask for 1 or more")
        if not 0 < self.confidence < 1:
            raise SettingError(f"a confidence of {self.confidence} is not between 0 and 1: 0.95 is usual")

    def draw(self, sums: PhotoSums, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The score of each resample.

        Args:
            sums: of the photos.
            score: from sums (R, *shape) to scores (R, ...).

        Returns:
            (resamples, ...) float.
        """
        rng = np.random.default_rng(self.seed)
        photos = len(sums)
        scores = []
        for first in range(0, self.resamples, _DRAWS):
            count = min(_DRAWS, self.resamples - first)
            weights = rng.multinomial(photos, np.full(photos, 1 / photos), count) if photos else np.zeros((count, 0))
            scores.append(score(sums.resampled(weights)))
        return np.concatenate(scores)

    def interval(self, draws: np.ndarray) -> np.ndarray:
        """The lower and upper percentile of draws (R, ...): (2, ...), NaN where no draw has the score."""
        tail = 50 * (1 - self.confidence)
        bounds = np.full((2, *draws.shape[1:]), np.nan)
        scored = ~np.isnan(draws).all(0)  # a resample may lack what a score needs: it is left out of that score's
        bounds[:, scored] = np.nanpercentile(draws[:, scored], [tail, 100 - tail], axis=0)
        return bounds

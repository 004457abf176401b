"""Segmentation metrics, from one confusion matrix over a whole data set (METHOD section 11)."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Confusion:
    """How often each class was given each name.

    Attributes:
        matrix: (K, K + 1) int64, pixels of true class (row) by predicted class (column), the last: no name.
    """

    classes: int
    matrix: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.classes, self.classes + 1), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels of one photo.

        Args:
            truth: (H, W) integers, -1 where a pixel is to be ignored.
            predicted: (H, W) integers, -1 where no name was given: a miss wherever there is a truth.
        """
        known = truth >= 0
        columns = self.classes + 1
        predicted = np.where(predicted[known] < 0, self.classes, predicted[known])
        counts = np.bincount(truth[known].astype(np.int64) * columns + predicted, minlength=self.classes * columns)
        self.matrix += counts.reshape(self.classes, columns)

    @property
    def iou(self) -> np.ndarray:
        """(K,) TP / (truth + predicted - TP); NaN for classes that the truth does not have."""
        hit = self.matrix.diagonal().astype(np.float64)
        truth, predicted = self.matrix.sum(1), self.matrix[:, :-1].sum(0)
        return np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)

    @property
    def accuracy(self) -> np.ndarray:
        """(K,) share of a class's pixels that got its name; NaN for classes that the truth does not have."""
        truth = self.matrix.sum(1)
        return np.where(truth > 0, self.matrix.diagonal() / np.maximum(truth, 1), np.nan)

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of all pixels that got their name; None without any."""
        total = self.matrix.sum()
        return float(self.matrix.diagonal().sum() / total) if total else None


def mean(values: np.ndarray) -> float | None:
    """The mean of what is not NaN; None where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def harmonic_mean(seen: float | None, unseen: float | None) -> float | None:
    """hIoU, 2 S U / (S + U); None where either is unknown."""
    if seen is None or unseen is None:
        return None
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0

"""Segmentation metrics, from one confusion matrix over a whole data set (METHOD section 11).

What the scores need of a matrix is three numbers a class. The functions take them with any leading dimensions, so that
a thousand resamples of the photos (``evaluation.bootstrap``) are scored by the same lines as the set itself.
"""

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
    def counts(self) -> np.ndarray:
        """(3, K) int64: pixels named rightly, pixels in truth, pixels with the name."""
        return np.stack([self.matrix.diagonal(), self.matrix.sum(1), self.matrix[:, :-1].sum(0)])

    @property
    def iou(self) -> np.ndarray:
        """(K,) IoU of the classes; see ``iou``."""
        return iou(self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """(K,) share of a class's pixels that got its name; NaN for classes that the truth does not have."""
        return accuracy(self.counts)

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of all pixels that got their name; None without any."""
        return known(pixel_accuracy(self.counts))


def iou(counts: np.ndarray) -> np.ndarray:
    """TP / (truth + predicted - TP) of (..., 3, K) counts: (..., K), NaN for classes that the truth does not have."""
    hit, truth, predicted = np.moveaxis(counts, -2, 0)
    return np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """TP / truth of (..., 3, K) counts: (..., K), NaN for classes that the truth does not have."""
    hit, truth, _ = np.moveaxis(counts, -2, 0)
    return np.where(truth > 0, hit / np.maximum(truth, 1), np.nan)


def pixel_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of all pixels that got their name, of (..., 3, K) counts: (...), NaN without any pixels."""
    return ratio(counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1))


def semantic_scores(counts: np.ndarray, unseen: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The scores of a data set, or of many resamples of it.

    Args:
        counts: (..., 3, K), as ``Confusion.counts``.
        unseen: (K,) bool, classes that training did not see; None: not known.

    Returns:
        Each (...), NaN where it is not defined: ``miou``, ``pixel_accuracy``, ``mean_accuracy`` and, where ``unseen``
        is given, ``seen_miou``, ``unseen_miou``, ``hiou``. The means are over the classes that the truth has. With
        ``_absent_as_zero`` at the end of the key, they are the original's: a class that is predicted somewhere, and
        that the truth does not have, counts as 0.
    """
    per_class = iou(counts)
    strict = np.where(np.isnan(per_class) & (counts[..., 2, :] > 0), 0.0, per_class)
    found = {
        "miou": mean(per_class),
        "miou_absent_as_zero": mean(strict),
        "pixel_accuracy": pixel_accuracy(counts),
        "mean_accuracy": mean(accuracy(counts)),
    }
    if unseen is not None:
        for values, ending in ((per_class, ""), (strict, "_absent_as_zero")):
            seen, rest = mean(values[..., ~unseen]), mean(values[..., unseen])
            found |= {f"seen_miou{ending}": seen, f"unseen_miou{ending}": rest}
            found[f"hiou{ending}"] = harmonic_mean(seen, rest)
    return found


def mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last dimension of what is not NaN; NaN where all is."""
    there = ~np.isnan(values)
    return ratio(np.where(there, values, 0).sum(-1), there.sum(-1))


def harmonic_mean(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """hIoU, 2 S U / (S + U); NaN where either is, 0 where both are 0."""
    return np.where(seen + unseen == 0, 0.0, ratio(2 * seen * unseen, seen + unseen))


def ratio(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """Part / whole, NaN where the whole is 0 or NaN."""
    whole = np.asarray(whole, np.float64)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def known(value: np.ndarray | float) -> float | None:
    """A score as JSON has it: None for NaN."""
    return None if np.isnan(value) else float(value)

"""Segmentation metrics, from one confusion matrix over a whole data set (docs/method.md §11).

The scores need three counts per class. The functions take them with any leading dimensions, so that a data set and its
resamples (``evaluation.bootstrap``) are scored by the same code.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Confusion:
    """Pixel counts of true class by predicted class.

    Args:
        classes: K, the number of classes.

    Attributes:
        matrix: (K, K + 1) int64, rows are true classes, columns predicted classes; the last column is "no name".
    """

    classes: int
    matrix: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.classes, self.classes + 1), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels of one photo.

        Args:
            truth: (H, W) integers, -1 for pixels to ignore.
            predicted: (H, W) integers, -1 for no name, which is an error wherever the truth has a class.
        """
        known = truth >= 0
        columns = self.classes + 1
        predicted = np.where(predicted[known] < 0, self.classes, predicted[known])
        counts = np.bincount(truth[known].astype(np.int64) * columns + predicted, minlength=self.classes * columns)
        self.matrix += counts.reshape(self.classes, columns)

    @property
    def counts(self) -> np.ndarray:
        """(3, K) int64: correct pixels, true pixels and predicted pixels of each class."""
        return np.stack([self.matrix.diagonal(), self.matrix.sum(1), self.matrix[:, :-1].sum(0)])

    @property
    def iou(self) -> np.ndarray:
        """(K,) float, the IoU of each class; see ``iou``."""
        return iou(self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """(K,) float, the fraction of correct pixels of each class; see ``accuracy``."""
        return accuracy(self.counts)

    @property
    def pixel_accuracy(self) -> float | None:
        """The fraction of correct pixels; None if no pixel is known."""
        return or_none(pixel_accuracy(self.counts))


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union, TP / (true + predicted - TP).

    Args:
        counts: (..., 3, K), as ``Confusion.counts``.

    Returns:
        (..., K) float in [0, 1], NaN for classes without true pixels.

    >>> iou(np.array([[2], [3], [3]]))
    array([0.5])
    """
    hit, truth, predicted = np.moveaxis(counts, -2, 0)
    return np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """The fraction of correct pixels of each class, TP / true.

    Args:
        counts: (..., 3, K), as ``Confusion.counts``.

    Returns:
        (..., K) float in [0, 1], NaN for classes without true pixels.
    """
    hit, truth, _ = np.moveaxis(counts, -2, 0)
    return np.where(truth > 0, hit / np.maximum(truth, 1), np.nan)


def pixel_accuracy(counts: np.ndarray) -> np.ndarray:
    """The fraction of correct pixels over all classes.

    Args:
        counts: (..., 3, K), as ``Confusion.counts``.

    Returns:
        (...) float in [0, 1], NaN without any pixels.
    """
    return ratio(counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1))


def semantic_scores(counts: np.ndarray, unseen: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The scores of a data set, or of resamples of it.

    Args:
        counts: (..., 3, K), as ``Confusion.counts``.
        unseen: (K,) bool, classes that training did not see; None: unknown.

    Returns:
        Scores (...) by name, NaN where they are not defined: ``miou``, ``pixel_accuracy``, ``mean_accuracy`` and, if
        ``unseen`` is given, ``seen_miou``, ``unseen_miou``, ``hiou``. Means are over the classes with true pixels.
        Keys that end in ``_absent_as_zero`` are averaged as in the original: a class that is predicted somewhere but
        has no true pixels counts as 0.
    """
    per_class = iou(counts)
    strict = np.where(np.isnan(per_class) & (counts[..., 2, :] > 0), 0.0, per_class)
    scores = {
        "miou": mean(per_class),
        "miou_absent_as_zero": mean(strict),
        "pixel_accuracy": pixel_accuracy(counts),
        "mean_accuracy": mean(accuracy(counts)),
    }
    if unseen is not None:
        for values, ending in ((per_class, ""), (strict, "_absent_as_zero")):
            seen, rest = mean(values[..., ~unseen]), mean(values[..., unseen])
            scores |= {f"seen_miou{ending}": seen, f"unseen_miou{ending}": rest}
            scores[f"hiou{ending}"] = harmonic_mean(seen, rest)
    return scores


def mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last dimension without NaN; NaN if all values are."""
    valid = ~np.isnan(values)
    return ratio(np.where(valid, values, 0).sum(-1), valid.sum(-1))


def harmonic_mean(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """hIoU, 2 S U / (S + U); NaN if either is NaN, 0 if both are 0.

    >>> float(harmonic_mean(np.array(0.5), np.array(0.25)))
    0.3333333333333333
    """
    return np.where(seen + unseen == 0, 0.0, ratio(2 * seen * unseen, seen + unseen))


def ratio(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """Part / whole, NaN if the whole is 0 or NaN."""
    whole = np.asarray(whole, np.float64)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def or_none(value: np.ndarray | float) -> float | None:
    """A score as a JSON value: None for NaN."""
    return None if np.isnan(value) else float(value)

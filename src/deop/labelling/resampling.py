"""Bilinear resizing of parts of maps, equal to ``torch.nn.functional.interpolate`` with ``align_corners=False``."""

import numpy as np


def resize_weights(source: int, target: int, first: int, last: int) -> tuple[slice, np.ndarray]:
    """Express a part of one side of a bilinear resize as a matrix product with the few cells it depends on.

    Args:
        source: length of the side before.
        target: length of the side after.
        first: first cell to compute.
        last: one past the last cell to compute.

    Returns:
        The slice of source cells, and their weights (last - first, cells) float32.

    >>> resize_weights(2, 4, 1, 3)
    (slice(0, 2, None), array([[0.75, 0.25],
           [0.25, 0.75]], dtype=float32))
    """
    upper, lower, weight = source_cells(source, target, first, last)
    low, high = int(upper[0]), int(lower[-1]) + 1
    weights = np.zeros((last - first, high - low), np.float32)
    places = np.arange(last - first)
    weights[places, upper - low] = 1 - weight
    weights[places, lower - low] += weight
    return slice(low, high), weights


def source_cells(source: int, target: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each cell [first, last) of the result its two source cells (int64) and the weight of the second (float32)."""
    position = (np.arange(first, last, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target)
    position = np.maximum(position - np.float32(0.5), 0)
    upper = np.minimum(position.astype(np.int64), source - 1)
    return upper, np.minimum(upper + 1, source - 1), position - upper.astype(np.float32)

"""Removal of small connected regions from a label map; NumPy only."""

import numpy as np

from deop.images.connected_regions import connected_regions


def absorb_small_regions(labels: np.ndarray, min_area: float | np.ndarray) -> np.ndarray:
    """Give each connected region smaller than ``min_area`` the label that it shares the longest border with.

    A region consists of pixels of one label that touch at their sides; -1 is a label like any other. Small regions that
    only touch other small regions are processed after these. If all regions are small, nothing changes.

    Args:
        labels: (H, W) integers, at least -1.
        min_area: in pixels; one number, or (K + 1,), one for each label and, last, for -1. Up to 1: no region of the
            label is small.

    Returns:
        (H, W) of the same dtype; ``labels`` itself if nothing changes.

    >>> absorb_small_regions(np.array([[1, 1, 1], [1, 2, 1]]), 2)
    array([[1, 1, 1],
           [1, 1, 1]])
    >>> absorb_small_regions(np.array([[1, 1, 1], [0, 2, 1]]), np.array([2, 0, 0, 0]))
    array([[1, 1, 1],
           [1, 2, 1]])
    """
    min_area = np.asarray(min_area)
    if not labels.size or not (min_area > 1).any():
        return labels
    regions = connected_regions(labels)
    pending = regions.areas < (min_area[regions.labels] if min_area.ndim else min_area)
    if not pending.any() or pending.all():
        return labels
    first, second, sides = regions.borders()
    small, neighbour = np.concatenate([first, second]), np.concatenate([second, first])
    border = np.concatenate([sides, sides])
    touching = pending[small]
    small, neighbour, border = small[touching], neighbour[touching], border[touching]
    label = regions.labels.copy()
    while (ready := pending[small] & ~pending[neighbour]).any():
        values, value = np.unique(label[neighbour[ready]], return_inverse=True)
        pairs, pair = np.unique(small[ready] * np.int64(len(values)) + value, return_inverse=True)
        owner = pairs // len(values)
        order = np.lexsort((-np.bincount(pair, border[ready]), owner))  # of each small region, the longest border first
        absorbed, best = np.unique(owner[order], return_index=True)
        label[absorbed] = values[pairs[order][best] % len(values)]
        pending[absorbed] = False
    return regions.paint(label)

"""Removal of small connected regions from a label map."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def absorb_small_regions(labels: np.ndarray, min_area: float) -> np.ndarray:
    """Give each connected region smaller than ``min_area`` the label that it shares the longest border with.

    A region consists of pixels of one label that touch at their sides; -1 is a label like any other. Small regions that
    only touch other small regions are processed after these. If all regions are small, nothing changes.

    Args:
        labels: (H, W) integers.
        min_area: in pixels; up to 1: nothing changes.

    Returns:
        (H, W) of the same dtype; ``labels`` itself if nothing changes.

    >>> absorb_small_regions(np.array([[1, 1, 1], [1, 2, 1]]), 2)
    array([[1, 1, 1],
           [1, 1, 1]])
    """
    if min_area <= 1 or not labels.size:
        return labels
    # Regions are joined from horizontal runs of one label, of which there are far fewer than pixels.
    starts = np.ones(labels.shape, bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(starts, dtype=np.int32).reshape(labels.shape) - 1
    same = labels[1:] == labels[:-1]
    contact = same & (starts[1:] | starts[:-1])  # one pixel for each pair of runs that touch
    above, below = run[:-1][contact], run[1:][contact]
    first = np.flatnonzero(starts)
    adjacency = coo_array((np.ones(len(above), bool), (above, below)), shape=(len(first), len(first)))
    count, region = connected_components(adjacency, directed=False)
    area = np.bincount(region, np.diff(first, append=labels.size), count)
    label = np.empty(count, labels.dtype)
    label[region] = labels.ravel()[first]

    pending = area < min_area
    if not pending.any():
        return labels
    vertical, horizontal = starts[:, 1:], ~same  # borders between neighbours in a row and in a column
    before = region[np.concatenate([run[:, :-1][vertical], run[:-1][horizontal]])]
    after = region[np.concatenate([run[:, 1:][vertical], run[1:][horizontal]])]
    small, neighbour = np.concatenate([before, after]), np.concatenate([after, before])
    touching = pending[small]
    small, neighbour = small[touching], neighbour[touching]
    while (ready := pending[small] & ~pending[neighbour]).any():
        values, value = np.unique(label[neighbour[ready]], return_inverse=True)
        pairs, border = np.unique(small[ready].astype(np.int64) * len(values) + value, return_counts=True)
        owner = pairs // len(values)
        order = np.lexsort((-border, owner))  # for each small region, the longest border first
        absorbed, best = np.unique(owner[order], return_index=True)
        label[absorbed] = values[pairs[order][best] % len(values)]
        pending[absorbed] = False
    return label[region][run]

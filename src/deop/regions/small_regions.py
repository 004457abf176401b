"""Tiny islands of a map, given to what surrounds them."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def absorb_small_regions(labels: np.ndarray, least: float) -> np.ndarray:
    """Give every island smaller than ``least`` pixels the label that it shares the longest border with.

    An island is a stretch of one label whose pixels touch at their sides; -1 is a label as any other. Islands that
    touch only other islands wait until these have got theirs. Where every stretch is smaller, nothing changes.

    Args:
        labels: (H, W) integers.
        least: in pixels; up to 1: nothing changes.

    Returns:
        (H, W) of the same type; ``labels`` itself where nothing changes.
    """
    if least <= 1 or not labels.size:
        return labels
    # Runs of one label along the rows are far fewer than pixels, and the stretches are joined from them.
    starts = np.ones(labels.shape, bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(starts, dtype=np.int32).reshape(labels.shape) - 1
    same = labels[1:] == labels[:-1]
    meet = same & (starts[1:] | starts[:-1])  # once for each two runs that touch
    above, below = run[:-1][meet], run[1:][meet]
    first = np.flatnonzero(starts)
    joined = coo_array((np.ones(len(above), bool), (above, below)), shape=(len(first), len(first)))
    count, stretch = connected_components(joined, directed=False)
    area = np.bincount(stretch, np.diff(first, append=labels.size), count)
    label = np.empty(count, labels.dtype)
    label[stretch] = labels.ravel()[first]

    pending = area < least
    if not pending.any():
        return labels
    beside, over = starts[:, 1:], ~same
    one = stretch[np.concatenate([run[:, :-1][beside], run[:-1][over]])]
    other = stretch[np.concatenate([run[:, 1:][beside], run[1:][over]])]
    island, neighbour = np.concatenate([one, other]), np.concatenate([other, one])
    touching = pending[island]
    island, neighbour = island[touching], neighbour[touching]
    while (open_ := pending[island] & ~pending[neighbour]).any():
        names, name = np.unique(label[neighbour[open_]], return_inverse=True)
        pairs, border = np.unique(island[open_].astype(np.int64) * len(names) + name, return_counts=True)
        owner = pairs // len(names)
        order = np.lexsort((-border, owner))  # of each island, the longest border first
        taken, best = np.unique(owner[order], return_index=True)
        label[taken] = names[pairs[order][best] % len(names)]
        pending[taken] = False
    return label[stretch][run]

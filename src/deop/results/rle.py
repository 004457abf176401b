"""Run-length encoding of masks in COCO's order: column by column, starting with a run of zeros."""

import numpy as np


def encode_crop(crop: np.ndarray, left: int, top: int, shape: tuple[int, int]) -> list[int]:
    """Uncompressed COCO run lengths of a mask that lies inside a box. The cost depends on the box, not on the photo.

    Args:
        crop: (bh, bw) bool, the mask inside its box.
        left: first column of the box, pixels.
        top: first row of the box, pixels.
        shape: (H, W) of the photo, pixels.

    Returns:
        Lengths of alternating runs of 0 and 1 in column-major order; the first, of zeros, may be 0. Their sum is H x W.
        This is ``counts`` of COCO's uncompressed masks.

    >>> encode_crop(np.ones((2, 1), bool), left=1, top=0, shape=(2, 3))
    [2, 2, 2]
    """
    height, width = shape
    columns = np.zeros((crop.shape[1], crop.shape[0] + 2), np.int8)
    columns[:, 1:-1] = crop.T
    change = np.diff(columns, axis=1)
    column, row = np.nonzero(change)  # in column-major order: alternating starts and ends of runs
    edges = (column + left) * height + row + top
    # A run that ends at the bottom and one that starts at the top of the next column are one run.
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts

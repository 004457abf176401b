"""Segment ids as colours, the code of COCO's panoptic PNG files: id = red + 256 green + 65536 blue."""

from collections.abc import Sequence

import numpy as np


def ids_to_colours(ids: np.ndarray) -> np.ndarray:
    """Encode segment ids as colours.

    Args:
        ids: (...) integers in [0, 2^24).

    Returns:
        Array (..., 3) uint8, RGB.

    >>> ids_to_colours(np.array([1, 256, 65536])).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    return np.ascontiguousarray(ids.astype("<u4")[..., None].view(np.uint8)[..., :3])


def colours_to_ids(colours: np.ndarray) -> np.ndarray:
    """Decode segment ids from colours, the inverse of ``ids_to_colours``.

    Args:
        colours: (..., 3) uint8, RGB.

    Returns:
        Array (...) int64.
    """
    return colours.astype(np.int64) @ np.array([1, 256, 65536])


def find_ids(ids: np.ndarray, known: Sequence[int] | np.ndarray) -> np.ndarray:
    """The position of every id in a list of known ids.

    Args:
        ids: (...) integers.
        known: n different ids in ascending order.

    Returns:
        Array (...) int32 in [0, n), -1 for an id that is not in the list.

    >>> find_ids(np.array([7, 3, 4]), [3, 7]).tolist()
    [1, 0, -1]
    """
    listed = np.asarray(known, np.int64)
    if not len(listed):
        return np.full(ids.shape, -1, np.int32)
    positions = np.searchsorted(listed, ids).clip(max=len(listed) - 1)
    return np.where(listed[positions] == ids, positions, -1).astype(np.int32)

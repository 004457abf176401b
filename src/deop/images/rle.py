"""Run-length encoding of masks in COCO's order: column by column, starting with a run of zeros."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deop.errors import SettingError

LARGEST = 1_000_000_000
"""Pixels of the largest mask that is decoded."""

_LONGEST_SHIFT = 60  # bits of a number


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


def compress_counts(counts: Sequence[int]) -> str:
    """Write run lengths as COCO's string, the ``counts`` of a compressed mask.

    From the fourth on, a length is stored as its difference from the length two before. Each number is written in
    groups of 5 bits, the lowest first, with a bit that says whether another group follows; 48 is added to get
    printable characters.

    Args:
        counts: run lengths as ``encode_crop`` returns them.

    >>> compress_counts([2, 2, 2])
    '222'
    """
    lengths = np.asarray(counts, np.int64)
    rest = lengths.copy()
    rest[3:] -= lengths[1:-2]
    characters = np.zeros((len(rest), 8), np.uint8)
    unfinished = np.ones(len(rest), bool)
    for column in range(characters.shape[1]):  # 8 x 5 bits hold any number of pixels
        group = rest & 0x1F
        rest >>= 5  # keeps the sign
        more = np.where(group & 0x10, rest != -1, rest != 0)
        characters[:, column] = np.where(unfinished, (group | more << 5) + 48, 0)
        unfinished &= more
    return characters[characters > 0].tobytes().decode("ascii")


def decompress_counts(text: str) -> list[int]:
    """Read run lengths from COCO's string, the inverse of ``compress_counts``.

    Raises:
        SettingError: another string.

    >>> decompress_counts("222")
    [2, 2, 2]
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > _LONGEST_SHIFT:
            raise SettingError("the run lengths are not written as COCO writes them: the RLE is damaged")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Read a mask in COCO's RLE, as ``Segmentation.summary(rle=True)`` and ``to_coco`` write it.

    Args:
        rle: ``{"size": [H, W], "counts": list or string}``.

    Returns:
        The mask, (H, W) bool.

    Raises:
        SettingError: the run lengths do not add up to the size, or the mask has more than ``LARGEST`` pixels.

    >>> decode_rle({"size": [2, 3], "counts": "222"}).tolist()
    [[False, True, False], [False, True, False]]
    """
    height, width = rle["size"]
    if height < 0 or width < 0 or height * width > LARGEST:
        raise SettingError(f"a mask of {width} x {height} px is not possible here: it may have {LARGEST:,} pixels")
    counts = decompress_counts(rle["counts"]) if isinstance(rle["counts"], str) else rle["counts"]
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise SettingError(f"the run lengths do not fit a mask of {width} x {height} px: the RLE is damaged")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(values.reshape(width, height).T)

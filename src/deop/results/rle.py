"""Run lengths in COCO's order: down the columns, zeros first."""

from collections.abc import Sequence

import numpy as np

from deop.errors import ProposalError


def encode_crop(crop: np.ndarray, left: int, top: int, shape: tuple[int, int]) -> list[int]:
    """Uncompressed COCO run lengths of a mask that lies inside a box; costs the box, not the photo.

    Args:
        crop: (bh, bw) bool, the mask inside its box.
        left: first column of the box, pixels.
        top: first row of the box, pixels.
        shape: (H, W) of the photo.

    Returns:
        Lengths of runs of 0 and 1 in turn, in column-major order, the first of zeros (perhaps 0 long); their sum
        is H x W. Equal to ``counts`` of COCO's uncompressed masks.
    """
    height, width = shape
    columns = np.zeros((crop.shape[1], crop.shape[0] + 2), np.int8)
    columns[:, 1:-1] = crop.T
    change = np.diff(columns, axis=1)
    column, row = np.nonzero(change)  # in column-major order: starts and ends of runs in turn
    edges = (column + left) * height + row + top
    # A run that reaches the bottom and one that begins at the top of the next column are one run.
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def encode_mask(mask: np.ndarray) -> list[int]:
    """Uncompressed COCO run lengths of a mask (H, W) bool; as ``encode_crop`` with the whole photo as box."""
    return encode_crop(mask, 0, 0, (mask.shape[0], mask.shape[1]))


def decode_mask(counts: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """The mask that uncompressed COCO run lengths stand for.

    Args:
        counts: lengths of runs of 0 and 1 in turn, zeros first.
        shape: (H, W), what COCO calls ``size``.

    Returns:
        Array (H, W) bool.

    Raises:
        ProposalError: lengths that are negative or do not add up to H x W.
    """
    lengths = np.asarray(counts, np.int64)
    if (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise ProposalError(
            f"run lengths add up to {lengths.sum()}, not to {shape[0]} x {shape[1]}: they are of another photo"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(shape[1], shape[0]).T

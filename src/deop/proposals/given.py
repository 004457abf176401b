"""Masks given by the caller as proposals."""

import numpy as np
import torch

from deop.images.masks import LOGIT_LIMIT, Masks, as_masks, cell_logits, partition_masks, read_masks
from deop.proposals.types import Proposals

__all__ = ["LOGIT_LIMIT", "Masks", "as_masks", "given_proposals", "read_masks"]


def given_proposals(
    masks: Masks,
    photo_shape: tuple[int, int],
    input_shape: tuple[int, int],
    padded_shape: tuple[int, int],
    stride: int = 4,
    *,
    disjoint: bool = False,
) -> Proposals:
    """Convert given masks to proposals.

    Args:
        masks: masks in any form that ``deop.images.masks.as_masks`` accepts.
        photo_shape: (H, W) of the photo.
        input_shape: (H', W') of the photo after resizing.
        padded_shape: (H'', W'') of the network input, H'' >= H', W'' >= W'.
        stride: side of a cell in pixels of the network input.
        disjoint: give each pixel to the smallest of the masks that contain it (``partition_masks``).

    Returns:
        Proposals without slots: ``logits`` as ``deop.images.masks.cell_logits`` computes them, on the CPU, ``exact``
        the masks themselves, or their parts.

    Raises:
        ProposalError: masks of another size than the photo, or of an unsupported form.
    """
    array = as_masks(masks, photo_shape)
    if disjoint:
        array = partition_masks(array)
    exact = np.require(array, requirements=["C", "W"])  # memory that torch can share
    logits = cell_logits(exact, input_shape, padded_shape, stride)
    return Proposals(torch.from_numpy(logits), exact=torch.from_numpy(exact))

"""Masks at the size of the photo as tensors, some rows at a time; see ``labelling.windows`` for arrays."""

from collections.abc import Iterator

import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.networks.resampling import interpolate_rows, source_rows
from deop.proposals.types import Proposals

BLOCK = 1 << 24
"""Numbers in memory at once (64 MiB in float32)."""


def mask_blocks(
    proposals: Proposals, canvas: Canvas, extra: int = 0, *, limit: int | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """The masks at the size of the photo, some rows at a time, so that about ``limit`` numbers are in memory.

    Logits are resized bilinearly to the network input and cropped to the image; their sigmoid is resized to the photo
    (docs/method.md §6). Given masks are used as they are.

    Args:
        proposals: N masks.
        canvas: position of the photo in the masks.
        extra: further numbers per pixel that the caller has in memory, which reduce the size of the blocks.
        limit: numbers in memory at once; None: ``BLOCK``.

    Yields:
        First row, one past the last row, and (N, rows, W) float32 probabilities.
    """
    height, width = canvas.photo
    step = max(1, (limit or BLOCK) // ((3 * len(proposals) + extra + 1) * max(width, canvas.resized[1])))
    for first in range(0, height, step):
        last = min(first + step, height)
        if proposals.exact is not None:
            yield first, last, proposals.exact[:, first:last].to(proposals.logits.device, torch.float32)
            continue
        low, high = source_rows(canvas.resized[0], height, first, last)
        logits = interpolate_rows(proposals.logits.float(), canvas.padded, low, high)
        masks = logits[:, :, : canvas.resized[1]].sigmoid()
        yield first, last, interpolate_rows(masks, canvas.photo, first, last, source=(low, canvas.resized[0]))

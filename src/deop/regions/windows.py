"""Masks at the size of the photo, one part of the photo at a time, so that masks x pixels are never in memory."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.networks.resampling import interpolate_rows, resize_weights, source_rows
from deop.proposals.types import Proposals

BLOCK = 1 << 24
"""Numbers in memory at once (64 MiB in float32)."""
WINDOW = 64
"""Maximum side of a window on the CPU in pixels."""


class Window(NamedTuple):
    """The masks in a part of the photo.

    Attributes:
        rows: the h rows of the photo.
        columns: the w columns of the photo.
        varying: (n,) int64, indices of the masks that are not constant over the window.
        masks: (n, h, w) float32, probabilities of these masks.
        constant: (N,) float32, value of each mask that is constant over the window; 0 for the others.
    """

    rows: slice
    columns: slice
    varying: Tensor
    masks: Tensor
    constant: Tensor


def mask_windows(proposals: Proposals, canvas: Canvas) -> Iterator[Window]:
    """The masks of ``mask_blocks`` in windows; masks that are constant over a window are not expanded.

    Args:
        proposals: N masks.
        canvas: position of the photo in the masks.

    Yields:
        Windows that together cover the photo.
    """
    logits, exact = proposals.logits, proposals.exact
    device = logits.device
    side = max(1, int((BLOCK / (3 * len(proposals) + 1)) ** 0.5))
    side = min(side, WINDOW) if device.type == "cpu" else side
    sizes = zip(logits.shape[1:], canvas.padded, canvas.resized, canvas.photo, strict=True)
    rows, columns = ([_strip(*size, first, side, device) for first in range(0, size[-1], side)] for size in sizes)
    for row in rows:
        for column in columns:
            if exact is not None:
                masks = exact[:, row.pixels, column.pixels].to(device, torch.float32)
                low, high = value_range(masks.flatten(1))
                varying = (low < high).nonzero()[:, 0]
                masks = masks[varying]
            else:
                cells = logits[:, row.cells, column.cells].float()
                low, high = (end.sigmoid() for end in value_range(cells.flatten(1)))
                varying = (low < high).nonzero()[:, 0]
                masks = (row.inner @ cells[varying] @ column.inner.T).sigmoid()
                masks = masks if row.outer is None else row.outer @ masks
                masks = masks if column.outer is None else masks @ column.outer.T
            yield Window(row.pixels, column.pixels, varying, masks, low.index_fill(0, varying, 0))


def value_range(values: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of each row (N, L); five times as fast as ``aminmax``, which is not vectorised."""
    return values.amin(1), values.amax(1)


class _Strip(NamedTuple):
    """Some rows, or columns, of the photo, and the two matrix products that resize masks to them.

    Attributes:
        pixels: the p rows of the photo.
        cells: the c rows of the masks that they depend on.
        inner: (m, c), resizes from the masks to the network input.
        outer: (p, m), resizes from there to the photo; None if the sizes are equal.
    """

    pixels: slice
    cells: slice
    inner: Tensor
    outer: Tensor | None


def _strip(cells: int, padded: int, resized: int, photo: int, first: int, side: int, device: torch.device) -> _Strip:
    pixels = middle = slice(first, min(first + side, photo))
    outer = None
    if resized != photo:
        middle, outer = resize_weights(resized, photo, pixels.start, pixels.stop)
        outer = outer.to(device)
    sources, inner = resize_weights(cells, padded, middle.start, middle.stop)
    return _Strip(pixels, sources, inner.to(device), outer)


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

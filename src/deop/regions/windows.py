"""Masks at the photo's own size, a part of the photo at a time, so that memory does not grow with masks x pixels."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.networks.resampling import interpolate_rows, resize_weights, source_rows
from deop.proposals.types import Proposals

BLOCK = 1 << 24
"""Numbers held at once (64 MiB in float32)."""
WINDOW = 64
"""Largest side of a window on the CPU, pixels."""


class Window(NamedTuple):
    """The masks in a part of the photo."""

    rows: slice  # of the photo, h of them
    columns: slice  # of the photo, w of them
    chosen: Tensor  # (n,) int64, those of the N masks that are not the same all over the window
    masks: Tensor  # (n, h, w) float32, their probabilities
    rest: Tensor  # (N,) float32, what each other mask is all over the window; 0 for those chosen


def mask_windows(proposals: Proposals, canvas: Canvas) -> Iterator[Window]:
    """The masks at the photo's size as ``mask_blocks`` has them, in windows, and only where something changes.

    Args:
        proposals: N masks.
        canvas: where the photo lies in the masks.

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
                chosen = (low < high).nonzero()[:, 0]
                masks = masks[chosen]
            else:
                cells = logits[:, row.cells, column.cells].float()
                low, high = (end.sigmoid() for end in value_range(cells.flatten(1)))
                chosen = (low < high).nonzero()[:, 0]
                masks = (row.inner @ cells[chosen] @ column.inner.T).sigmoid()
                masks = masks if row.outer is None else row.outer @ masks
                masks = masks if column.outer is None else masks @ column.outer.T
            yield Window(row.pixels, column.pixels, chosen, masks, low.index_fill(0, chosen, 0))


def value_range(values: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most of each row (N, L); five times as fast as ``aminmax``, which is not vectorised."""
    return values.amin(1), values.amax(1)


class _Strip(NamedTuple):
    """Some rows, or columns, of the photo, and the two products that resize masks to them."""

    pixels: slice  # of the photo, p of them
    cells: slice  # of the masks, c of them
    inner: Tensor  # (m, c): to the networks' input
    outer: Tensor | None  # (p, m): from there to the photo; None where the sizes agree


def _strip(cells: int, padded: int, resized: int, photo: int, first: int, side: int, device: torch.device) -> _Strip:
    pixels = middle = slice(first, min(first + side, photo))
    outer = None
    if resized != photo:
        middle, outer = resize_weights(resized, photo, pixels.start, pixels.stop)
        outer = outer.to(device)
    places, inner = resize_weights(cells, padded, middle.start, middle.stop)
    return _Strip(pixels, places, inner.to(device), outer)


def mask_blocks(proposals: Proposals, canvas: Canvas, extra: int = 0) -> Iterator[tuple[int, int, Tensor]]:
    """The masks at the photo's size, some rows at a time, so that about ``BLOCK`` numbers are held.

    Logits are resized bilinearly to the networks' input, cut to the image, put through the sigmoid, and the
    probabilities resized to the photo (METHOD section 6); masks that the caller gave are taken as they are.

    Args:
        proposals: N masks.
        canvas: where the photo lies in the masks.
        extra: further numbers that the caller holds for every pixel, for the size of the blocks.

    Yields:
        first row, one past the last row, and (N, rows, W) float32 probabilities.
    """
    height, width = canvas.photo
    step = max(1, BLOCK // ((3 * len(proposals) + extra + 1) * max(width, canvas.resized[1])))
    for first in range(0, height, step):
        last = min(first + step, height)
        if proposals.exact is not None:
            yield first, last, proposals.exact[:, first:last].to(proposals.logits.device, torch.float32)
            continue
        low, high = source_rows(canvas.resized[0], height, first, last)
        logits = interpolate_rows(proposals.logits.float(), canvas.padded, low, high)
        masks = logits[:, :, : canvas.resized[1]].sigmoid()
        yield first, last, interpolate_rows(masks, canvas.photo, first, last, source=(low, canvas.resized[0]))

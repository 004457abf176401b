"""What marks an example in a photo: a mask, a box or a click."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from deop.errors import ProposalError
from deop.images.canvas import Canvas
from deop.images.masks import as_masks
from deop.labelling.masks import PhotoMasks
from deop.labelling.windows import mask_strips, window_at

INSIDE = 0.75
"""Share of a proposal that must lie in a box, so that it is part of what the box marks."""


@dataclass(frozen=True)
class Box:
    """A box in pixels of the photo: the proposals inside it are the example, or the whole box if there is none.

    Attributes:
        left: first column.
        top: first row.
        right: the column after the last one.
        bottom: the row after the last one.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Click:
    """A pixel of the photo: the proposal with the highest probability there is the example.

    Attributes:
        x: column, from 0.
        y: row, from 0.
    """

    x: float
    y: float


def needs_proposals(marks: Any) -> bool:
    """Whether marks are boxes or clicks, at least in part."""
    return isinstance(marks, (Box, Click)) or (
        isinstance(marks, Sequence) and any(isinstance(mark, (Box, Click)) for mark in marks)
    )


def masks_of(marks: Any, shape: tuple[int, int], proposals: PhotoMasks | None, canvas: Canvas | None) -> np.ndarray:
    """The masks that marks stand for.

    Args:
        marks: masks in any form that ``as_masks`` takes; or a list of masks (H, W), boxes and clicks.
        shape: (H, W) of the photo.
        proposals: the N proposals of the photo; needed for boxes and clicks.
        canvas: position of the photo in them.

    Returns:
        (n, H, W) bool, one mask for each mark.

    Raises:
        ProposalError: a mask of another size or form, or a box or click outside the photo.
    """
    if not needs_proposals(marks):
        return as_masks(marks, shape)
    listed = [marks] if isinstance(marks, (Box, Click)) else list(marks)
    assert proposals is not None
    assert canvas is not None
    return np.concatenate([_mask_of(mark, shape, proposals, canvas) for mark in listed])


def _mask_of(mark: Any, shape: tuple[int, int], proposals: PhotoMasks, canvas: Canvas) -> np.ndarray:
    if isinstance(mark, Click):
        return _mask_at(mark, shape, proposals, canvas)
    if isinstance(mark, Box):
        return _mask_in(mark, shape, proposals, canvas)
    return as_masks([mark], shape)


def _mask_at(click: Click, shape: tuple[int, int], proposals: PhotoMasks, canvas: Canvas) -> np.ndarray:
    """The proposal that a click stands for, (1, H, W) bool."""
    height, width = shape
    x, y = int(np.floor(click.x)), int(np.floor(click.y))
    if not (0 <= x < width and 0 <= y < height):
        raise ProposalError(f"the click ({click.x:g}, {click.y:g}) is outside the photo of {width} x {height} px")
    values = np.zeros(0, np.float32)
    if len(proposals):
        window = window_at(proposals, canvas, slice(y, y + 1), slice(x, x + 1))
        values = window.low.copy()
        if len(window.varying):
            values[window.varying] = window.enlarge(window.at_input(window.varying))[:, 0, 0]
    if values.max(initial=0) <= 0:
        raise ProposalError(f"the model proposes no mask at ({click.x:g}, {click.y:g}): give a box or a mask")
    chosen = proposals.keep(np.array([values.argmax()]))
    return _above_half(chosen, canvas, _sums(chosen, canvas).top)[None]


def _mask_in(mark: Box, shape: tuple[int, int], proposals: PhotoMasks, canvas: Canvas) -> np.ndarray:
    """What a box stands for, (1, H, W) bool."""
    height, width = shape
    if mark.right <= mark.left or mark.bottom <= mark.top:
        raise ProposalError(f"the box {_shown(mark)} is empty: give left, top, right and bottom in pixels")
    rows = slice(max(0, round(mark.top)), min(height, max(0, round(mark.bottom))))
    columns = slice(max(0, round(mark.left)), min(width, max(0, round(mark.right))))
    box = np.zeros((1, *shape), bool)
    box[:, rows, columns] = True
    if not box.any():
        raise ProposalError(f"the box {_shown(mark)} is outside the photo of {width} x {height} px")
    if not len(proposals):
        return box
    sums = _sums(proposals, canvas, (rows, columns))
    inside = np.flatnonzero(sums.inside >= INSIDE * np.maximum(sums.mass, 1e-6))
    if not len(inside):
        return box
    union = _above_half(proposals.keep(inside), canvas, sums.top[inside])[None] & box
    # A union that fills little of the box means that the model does not see the object: the box is a better mask.
    return union if 4 * union.sum() >= box.sum() else box


def _shown(mark: Box) -> str:
    return f"({mark.left:g}, {mark.top:g}, {mark.right:g}, {mark.bottom:g})"


class _Sums(NamedTuple):
    """The sum of N masks over the photo and over a box, and their greatest value; each (N,) float64."""

    mass: np.ndarray
    inside: np.ndarray
    top: np.ndarray


def _sums(proposals: PhotoMasks, canvas: Canvas, box: tuple[slice, slice] | None = None) -> _Sums:
    """One window after the other: N masks of a large photo would not fit into memory."""
    sums = _Sums(*np.zeros((3, len(proposals))))
    for strip in mask_strips(proposals, canvas):
        for window in strip.windows:
            rows, columns = ((0, 0), (0, 0)) if box is None else map(_shared, box, (window.rows, window.columns))
            shared = (slice(*rows), slice(*columns))
            constant, varying = np.ones(len(proposals), bool), window.varying
            constant[varying] = False
            low = np.where(constant, window.low, 0).astype(np.float64)
            sums.mass[:] += low * window.shape[0] * window.shape[1]
            sums.inside[:] += low * (rows[1] - rows[0]) * (columns[1] - columns[0])
            np.maximum(sums.top, low, out=sums.top)
            if len(varying):
                planes = window.enlarge(window.at_input(varying))
                sums.mass[varying] += planes.sum((1, 2), dtype=np.float64)
                sums.inside[varying] += planes[:, shared[0], shared[1]].sum((1, 2), dtype=np.float64)
                sums.top[varying] = np.maximum(sums.top[varying], planes.max((1, 2)))
    return sums


def _shared(side: slice, window: slice) -> tuple[int, int]:
    """Where a side of a box lies in a window, counted from the start of the window."""
    first = min(max(side.start, window.start), window.stop)
    return first - window.start, max(first, min(side.stop, window.stop)) - window.start


def _above_half(proposals: PhotoMasks, canvas: Canvas, top: np.ndarray) -> np.ndarray:
    """The pixels (H, W) bool where at least one mask has more than half of its greatest value, (N,)."""
    result = np.zeros(canvas.photo, bool)
    for strip in mask_strips(proposals, canvas):
        for window in strip.windows:
            part, varying = result[window.rows, window.columns], window.varying
            constant = np.delete(window.low > top / 2, varying)
            part |= constant.any()
            if len(varying):
                part |= (window.enlarge(window.at_input(varying)) > top[varying, None, None] / 2).any(0)
    return result

"""What marks an example in a photo: a mask, a box or a click."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deop.errors import ProposalError
from deop.images.canvas import Canvas
from deop.images.masks import as_masks
from deop.labelling.masks import PhotoMasks
from deop.labelling.windows import mask_strips

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
    planes = full_masks(proposals, canvas) if len(proposals) else np.zeros((0, *shape), np.float32)
    return np.concatenate([_mask_of(mark, shape, planes) for mark in listed])


def _mask_of(mark: Any, shape: tuple[int, int], planes: np.ndarray) -> np.ndarray:
    height, width = shape
    if isinstance(mark, Click):
        x, y = int(np.floor(mark.x)), int(np.floor(mark.y))
        if not (0 <= x < width and 0 <= y < height):
            raise ProposalError(f"the click ({mark.x:g}, {mark.y:g}) is outside the photo of {width} x {height} px")
        if not len(planes) or planes[:, y, x].max() <= 0:
            raise ProposalError(f"the model proposes no mask at ({mark.x:g}, {mark.y:g}): give a box or a mask")
        plane = planes[planes[:, y, x].argmax()]
        return (plane > plane.max() / 2)[None]
    if isinstance(mark, Box):
        if mark.right <= mark.left or mark.bottom <= mark.top:
            raise ProposalError(f"the box {_shown(mark)} is empty: give left, top, right and bottom in pixels")
        box = np.zeros(shape, bool)
        box[
            max(0, round(mark.top)) : max(0, round(mark.bottom)), max(0, round(mark.left)) : max(0, round(mark.right))
        ] = True
        if not box.any():
            raise ProposalError(f"the box {_shown(mark)} is outside the photo of {width} x {height} px")
        mass = planes.sum((1, 2))
        inside = planes[:, box].sum(1) >= INSIDE * np.maximum(mass, 1e-6)
        hard = planes[inside] > planes[inside].max((1, 2), keepdims=True) / 2 if inside.any() else planes[:0] > 0
        union = hard.any(0) & box if len(hard) else np.zeros(shape, bool)
        # A union that fills little of the box means that the model does not see the object: the box is a better mask.
        return (union if 4 * union.sum() >= box.sum() else box)[None]
    return as_masks([mark], shape)


def _shown(box: Box) -> str:
    return f"({box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g})"


def full_masks(proposals: PhotoMasks, canvas: Canvas) -> np.ndarray:
    """The probabilities of N masks at the size of the photo, (N, H, W) float32."""
    planes = np.zeros((len(proposals), *canvas.photo), np.float32)
    for strip in mask_strips(proposals, canvas):
        for window in strip.windows:
            varying, part = window.varying, planes[:, window.rows, window.columns]
            part[:] = window.low[:, None, None]
            if len(varying):
                part[varying] = window.enlarge(window.at_input(varying))
    return planes

"""Where a photo lies in the input that the networks see, and which photos can share a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deop.images.preprocessing import Resize, resized_shape


@dataclass(frozen=True)
class Canvas:
    """The three sizes of a photo on its way through the networks.

    Attributes:
        photo: (H, W) of the photo itself, pixels.
        resized: (H', W') of the photo as resized for the networks, pixels.
        padded: (H'', W'') of the networks' input, which is padded at the bottom and the right, pixels.
    """

    photo: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]


def canvas_of(photo: np.ndarray, resize: Resize) -> Canvas:
    """The canvas of a photo (H, W, 3) that ``resize_photo`` resizes by the rule ``resize`` and ``to_pixels`` pads."""
    shape = (photo.shape[0], photo.shape[1])
    height, width = resized_shape(*shape, resize)
    padded = (height + -height % resize.divisor, width + -width % resize.divisor)
    return Canvas(shape, (height, width), padded)


def group_by_size(canvases: Sequence[Canvas], masks: Sequence[Any]) -> list[list[int]]:
    """Group photos that can share a batch.

    Args:
        canvases: one for each photo.
        masks: for each photo the masks that were given with it, or None.

    Returns:
        Lists of indices. The photos of a list have the same padded size, and either all or none have masks.
    """
    groups: dict[tuple[tuple[int, int], bool], list[int]] = {}
    for index, (canvas, given) in enumerate(zip(canvases, masks, strict=True)):
        groups.setdefault((canvas.padded, given is None), []).append(index)
    return list(groups.values())

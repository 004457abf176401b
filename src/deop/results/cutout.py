"""A part of a photo on a transparent background."""

import numpy as np
from PIL import Image


def cut_out(photo: np.ndarray, mask: np.ndarray, *, soft_edge: bool = True, crop: bool = False) -> Image.Image:
    """Make everything outside a mask transparent.

    Args:
        photo: (H, W, 3) uint8.
        mask: (H, W) bool, with at least one pixel.
        soft_edge: make the outermost pixels of the mask partly transparent, so that the edge is smooth. Pixels outside
            the mask stay fully transparent, so that no background shows. False: opacity is 255 inside, 0 outside.
        crop: crop the picture to the mask's box.

    Returns:
        RGBA picture; transparent pixels are black, so that the file does not contain the background.

    >>> picture = cut_out(np.full((1, 5, 3), 200, np.uint8), np.array([[0, 1, 1, 1, 0]], bool))
    >>> np.asarray(picture)[0, :, 3].tolist()
    [0, 170, 255, 170, 0]
    """
    if crop:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        # The edge is computed before cropping, since a mask that ends there has a soft edge there too.
        opacity = _opacity(mask, soft_edge)[box]
        photo, mask = photo[box], mask[box]
    else:
        opacity = _opacity(mask, soft_edge)
    return Image.fromarray(np.dstack([np.where(mask[..., None], photo, 0), opacity]))


def _opacity(mask: np.ndarray, soft_edge: bool) -> np.ndarray:
    """Opacity (H, W) uint8: with a soft edge, the share of the 3 x 3 pixels around a pixel that the mask has."""
    if not soft_edge:
        return mask.astype(np.uint8) * np.uint8(255)
    padded = np.pad(mask.astype(np.uint8), 1, mode="edge")  # the border of the photo is not an edge of the object
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    count = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return np.rint(255 / 9 * np.arange(10)).astype(np.uint8)[count] * mask

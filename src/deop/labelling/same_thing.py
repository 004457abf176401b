"""Which pieces of a map are one thing: those of one name that lie in one mask, such as a cat behind a pole."""

from typing import NamedTuple

import numpy as np

from deop.images.canvas import Canvas
from deop.images.connected_regions import Regions
from deop.labelling.masks import PhotoMasks

SHARE = 4, 5
"""Share of a piece that must lie in a mask, as a fraction, so that all engines compute the same; above one half."""


class MaskCells(NamedTuple):
    """The cells of the masks over a photo.

    Attributes:
        pixels: (n,) int64, flat index of the photo's pixel at the centre of each cell.
        masks: (n,) int64, the mask with the highest logit there, or -1 if none covers the cell.
        number: of masks.
    """

    pixels: np.ndarray
    masks: np.ndarray
    number: int


def mask_cells(masks: PhotoMasks, canvas: Canvas) -> MaskCells:
    """The mask that covers each cell with a probability above 0.5.

    Args:
        masks: N masks.
        canvas: position of the photo in the masks.
    """
    logits = masks.logits
    rows, down = _centres(logits.shape[1], canvas.padded[0], canvas.resized[0], canvas.photo[0])
    columns, across = _centres(logits.shape[2], canvas.padded[1], canvas.resized[1], canvas.photo[1])
    inside = logits[:, :rows, :columns]
    visible = np.flatnonzero((inside > 0).any((1, 2)))
    owner = np.full(inside.shape[1:], -1, np.int64)
    if len(visible):
        best = inside[visible].argmax(0)
        covered = np.take_along_axis(inside[visible], best[None], 0)[0] > 0
        owner[covered] = visible[best[covered]]
    pixels = down[:, None] * canvas.photo[1] + across
    return MaskCells(pixels.ravel(), owner.ravel(), len(masks))


def _centres(cells: int, padded: int, resized: int, photo: int) -> tuple[int, np.ndarray]:
    """The number of cells over one side of the photo, and the pixel at the centre of each."""
    places = (2 * np.arange(cells, dtype=np.int64) + 1) * padded * photo // (2 * cells * resized)
    places = places[places < photo]
    return len(places), places


def join_pieces(regions: Regions, cells: MaskCells) -> np.ndarray:
    """The first region, of those that are one thing with each region.

    Regions of one label are one thing if at least ``SHARE`` of each lies in the same mask.

    Args:
        regions: n connected regions.
        cells: the cells of the masks.

    Returns:
        (n,) int64, at most the index of the region itself.
    """
    region = regions.region[np.searchsorted(regions.starts, cells.pixels, "right") - 1].astype(np.int64)
    total = np.bincount(region, minlength=len(regions.labels))
    covered = cells.masks >= 0
    pairs, shared = np.unique(region[covered] * cells.number + cells.masks[covered], return_counts=True)
    member, mask = np.divmod(pairs, max(1, cells.number))
    most = shared * SHARE[1] >= total[member] * SHARE[0]
    member, mask = member[most], mask[most]
    same = regions.labels[member].astype(np.int64) * cells.number + mask
    _, first, thing = np.unique(same, return_index=True, return_inverse=True)
    root = np.arange(len(regions.labels))
    root[member] = member[first][thing]
    return root

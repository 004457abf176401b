"""Removal of small regions from a label map that is read band by band."""

from collections.abc import Callable, Iterator

import numpy as np

from deop.labelling.small_regions import absorb_small_regions
from deop.tiles.blending import BLOCK

_AHEAD = 8  # blocks that are cleaned at once

Block = Callable[[int, int], np.ndarray]
"""Gives the block in a row and a column, (h, w)."""


def cleaned_blocks(block: Block, band: int, bands: int, columns: int, min_area: float) -> Iterator[np.ndarray]:
    """Give small regions the label of their surroundings, as in ``labelling.small_regions``.

    Each part is cleaned together with one block around it. So a region that is smaller than ``min_area`` is seen whole
    if it extends over less than ``BLOCK`` pixels beyond the part.

    Args:
        block: gives the blocks of the map.
        band: the row of blocks to clean.
        bands: number of rows of blocks.
        columns: number of blocks in each.
        min_area: regions of fewer pixels are removed; up to 1: none.

    Yields:
        The blocks of the band, from left to right.
    """
    around = range(max(0, band - 1), min(band + 2, bands))
    for first in range(0, columns, _AHEAD):
        last = min(first + _AHEAD, columns)
        low, high = max(0, first - 1), min(last + 1, columns)
        labels = np.concatenate(
            [np.concatenate([block(row, column) for column in range(low, high)], axis=1) for row in around]
        )
        labels = absorb_small_regions(labels, min_area)
        top = (band - around.start) * BLOCK
        part = labels[top : top + BLOCK]
        for column in range(first, last):
            left = (column - low) * BLOCK
            yield part[:, left : left + BLOCK]

"""The label map of an image from its tiles and the coarse view, one block at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from deop.labelling.masks import SemanticRule
from deop.tiles.plan import Share, TilePlan
from deop.tiles.views import Placed, View, label_part, window_side

BLOCK = 512
"""Side of the blocks that are labelled and written, pixels."""


@dataclass(frozen=True)
class Blend:
    """How views become labels.

    Attributes:
        plan: the tiles.
        tile: gives the view of the tile in a row and a column; it is called for neighbouring tiles again and again.
        coarse: the view of the whole image; None: none.
        context: weight of the coarse view in [0, 1); the tiles have the rest.
        rule: which pixels get no name.
    """

    plan: TilePlan
    tile: Callable[[int, int], View]
    coarse: View | None
    context: float
    rule: SemanticRule

    def blocks(self, rows: slice) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Label some rows of the image, from left to right.

        Args:
            rows: the rows; at most ``BLOCK``.

        Yields:
            The columns of a block, its labels (h, w) int32 and their scores (h, w) float32.
        """
        width = self.plan.shape[1]
        for first in range(0, width, BLOCK):
            columns = slice(first, min(first + BLOCK, width))
            yield columns, *self._block(rows, columns)

    def _block(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        first = self.tile(
            self.plan.rows.tiles_at(rows.start, rows.stop)[0],
            self.plan.columns.tiles_at(columns.start, columns.stop)[0],
        )
        side = window_side(len(self.rule.limits), first.canvas)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        labels, scores = np.empty(shape, np.int32), np.empty(shape, np.float32)
        for top in range(rows.start, rows.stop, side):
            bottom = min(top + side, rows.stop)
            row_shares = self.plan.rows.shares(top, bottom)
            for left in range(columns.start, columns.stop, side):
                right = min(left + side, columns.stop)
                placed = self._placed(row_shares, self.plan.columns.shares(left, right))
                part = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
                labels[part], scores[part] = label_part(placed, top, left, (bottom - top, right - left), self.rule)
        return labels, scores

    def _placed(self, rows: list[Share], columns: list[Share]) -> list[Placed]:
        coarse = 0.0 if self.coarse is None else self.context
        placed = [
            Placed(
                self.tile(row.number, column.number),
                row.start,
                column.start,
                (1 - np.float32(coarse)) * row.weights,
                column.weights,
            )
            for row in rows
            for column in columns
        ]
        if self.coarse is not None and coarse:
            ones = np.ones(len(rows[0].weights), np.float32), np.ones(len(columns[0].weights), np.float32)
            placed.append(Placed(self.coarse, 0, 0, np.float32(coarse) * ones[0], ones[1]))
        return placed

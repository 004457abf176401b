"""Masks one part of the photo at a time, so that masks x pixels are never in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import NamedTuple

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks
from deop.labelling.resampling import resize_weights

WINDOW = 64
"""Side of a window in pixels of the network input."""
MAX_SIDE = 256
"""Maximum side of a window in pixels of the photo."""
MIN_SIDE = 16
"""Minimum side of a window in pixels of the photo."""
BLOCK = 1 << 24
"""Maximum number of values of all masks in a window (64 MiB in float32)."""


@dataclass(frozen=True)
class Window:
    """The masks in a part of the photo.

    Attributes:
        rows: the h rows of the photo.
        columns: the w columns of the photo.
        low: (N,) float32, lower bound of the probabilities of each mask in the window.
        high: (N,) float32, upper bound.
        masks: (N, h, w) bool, given masks, or (N, h'', w'') float32, the cells of the logits that the window needs.
        row: how rows are resized; None for given masks.
        column: how columns are resized; None for given masks.
    """

    rows: slice
    columns: slice
    low: np.ndarray
    high: np.ndarray
    masks: np.ndarray
    row: "Side | None"
    column: "Side | None"

    @property
    def shape(self) -> tuple[int, int]:
        """The size (h, w) in pixels of the photo."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @cached_property
    def varying(self) -> np.ndarray:
        """Indices of the masks that are not constant over the window, ascending."""
        return np.flatnonzero(self.low < self.high)

    def at_input(self, index: np.ndarray) -> np.ndarray:
        """Probabilities of some masks at the size of the network input, (n, h', w') float32; ``enlarge`` goes on."""
        masks = self.masks[index]
        if self.row is None or self.column is None:
            return masks.astype(np.float32)
        # Columns first, and a copy of their weights, since this takes less time than their transposed view.
        wide = masks @ np.ascontiguousarray(self.column.inner.T)
        return _sigmoid_of_negative(-self.row.inner @ wide)

    def enlarge(self, maps: np.ndarray) -> np.ndarray:
        """Resize maps (n, h', w') at the size of the network input to the photo: (n, h, w)."""
        if self.row is not None and self.row.outer is not None:
            maps = self.row.outer @ maps
        if self.column is not None and self.column.outer is not None:
            maps = maps @ self.column.outer.T
        return maps


class Side(NamedTuple):
    """Some rows, or columns, of the photo, and the two matrix products that resize masks to them.

    Attributes:
        pixels: the p rows of the photo.
        cells: the c rows of the masks that they depend on.
        inner: (m, c), resizes from the masks to the network input.
        outer: (p, m), resizes from there to the photo; None if the sizes are equal.
    """

    pixels: slice
    cells: slice
    inner: np.ndarray
    outer: np.ndarray | None


class Strip(NamedTuple):
    """The windows of some rows of the photo.

    Attributes:
        rows: the rows of the photo.
        low: (N, windows) float32, the bounds of all windows.
        high: (N, windows) float32.
        windows: the windows, from left to right.
    """

    rows: slice
    low: np.ndarray
    high: np.ndarray
    windows: list[Window]


def mask_strips(masks: PhotoMasks, canvas: Canvas) -> Iterator[Strip]:
    """The masks of a photo in windows.

    Logits are resized bilinearly to the network input and cropped to the image; their sigmoid is resized to the photo
    (docs/method.md §6). Given masks are used as they are. Masks that are constant over a window are not expanded.

    Args:
        masks: N masks, at least one.
        canvas: position of the photo in the masks.

    Yields:
        Strips of windows that together cover the photo, from top to bottom.
    """
    (height, width), sides = canvas.photo, _window_size(masks, canvas)
    if masks.exact is not None:
        columns = [slice(first, min(first + sides[1], width)) for first in range(0, width, sides[1])]
        for first in range(0, height, sides[0]):
            rows = slice(first, min(first + sides[0], height))
            part = masks.exact[:, rows]
            lows, highs = _bounds(part.view(np.uint8), columns)
            low, high = lows.astype(np.float32), highs.astype(np.float32)
            windows = [
                Window(rows, column, low[:, i], high[:, i], part[:, :, column], None, None)
                for i, column in enumerate(columns)
            ]
            yield Strip(rows, low, high, windows)
        return
    sizes = zip(masks.logits.shape[1:], canvas.padded, canvas.resized, canvas.photo, sides, strict=True)
    all_rows, all_columns = ([_side(*size, first) for first in range(0, size[3], size[4])] for size in sizes)
    for row in all_rows:
        part = masks.logits[:, row.cells]
        low, high = (sigmoid(ends) for ends in _bounds(part, [column.cells for column in all_columns]))
        windows = [
            Window(row.pixels, column.pixels, low[:, i], high[:, i], part[:, :, column.cells], row, column)
            for i, column in enumerate(all_columns)
        ]
        yield Strip(row.pixels, low, high, windows)


def window_at(masks: PhotoMasks, canvas: Canvas, rows: slice, columns: slice) -> Window:
    """The masks in any part of the photo, for example in the part where two tiles overlap.

    Args:
        masks: N masks, at least one.
        canvas: position of the photo in the masks.
        rows: the rows of the part, inside the photo; should be few, since all masks are resized to all of them.
        columns: its columns.
    """
    if masks.exact is not None:
        part = masks.exact[:, rows, columns]
        low, high = (np.asarray(some((1, 2)), dtype=np.float32) for some in (part.all, part.any))
        return Window(rows, columns, low, high, part, None, None)
    sizes = zip(masks.logits.shape[1:], canvas.padded, canvas.resized, canvas.photo, (rows, columns), strict=True)
    row, column = (
        _side(cells, padded, resized, photo, part.stop - part.start, part.start)
        for cells, padded, resized, photo, part in sizes
    )
    logits = masks.logits[:, row.cells, column.cells]
    low, high = sigmoid(logits.min((1, 2))), sigmoid(logits.max((1, 2)))
    return Window(rows, columns, low, high, logits, row, column)


def _window_size(masks: PhotoMasks, canvas: Canvas) -> tuple[int, int]:
    """Height and width of a window in pixels of the photo."""
    most = max(1, int((BLOCK / (3 * len(masks) + 1)) ** 0.5))
    scales = (photo / resized for photo, resized in zip(canvas.photo, canvas.resized, strict=True))
    height, width = (min(most, MAX_SIDE, max(MIN_SIDE, ceil(WINDOW * scale))) for scale in scales)
    return height, width


def _bounds(maps: np.ndarray, columns: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of maps (N, h, w) in some columns: two arrays (N, columns)."""
    low, high = maps.min(1), maps.max(1)
    return (
        np.stack([low[:, column].min(1) for column in columns], 1),
        np.stack([high[:, column].max(1) for column in columns], 1),
    )


def _side(cells: int, padded: int, resized: int, photo: int, side: int, first: int) -> Side:
    pixels = middle = slice(first, min(first + side, photo))
    outer = None
    if resized != photo:
        middle, outer = resize_weights(resized, photo, pixels.start, pixels.stop)
    sources, inner = resize_weights(cells, padded, middle.start, middle.stop)
    return Side(pixels, sources, inner, outer)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float32."""
    return _sigmoid_of_negative(np.negative(values))


def _sigmoid_of_negative(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(x)) in float32, in place of ``values``, which saves memory and its time."""
    with np.errstate(over="ignore"):  # exp is inf for very negative logits, and the result 0
        np.exp(values, out=values)
    values += 1
    return np.reciprocal(values, out=values)

"""Which tiles cover an image, and how much each of them counts at a pixel."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from deop.errors import SettingError

AUTO = "auto"
"""The tile size that fits the model and the image."""
OVERLAP = 0.25
"""Default overlap of neighbouring tiles, as a share of their size."""
SMALLEST = 64
"""Minimum tile size in pixels."""
WINDOWS = ("hann", "gaussian")
"""Weights of the pixels of a tile."""
_SIGMA = 0.125  # of a Gaussian window, as a share of the tile size; MONAI's default

TileSize = str | int | tuple[int, int]
"""Tile size in every accepted form: "auto", "1024", "1024,256", 1024 or (1024, 256)."""


class Share(NamedTuple):
    """How much one tile counts in some rows, or columns, of the image.

    Attributes:
        number: of the tile along this side.
        start: first row of the tile.
        weights: (n,) float32 in [0, 1]; the weights of all tiles add up to 1 in each row.
    """

    number: int
    start: int
    weights: np.ndarray


@dataclass(frozen=True)
class Side:
    """The tiles along one side of an image.

    Attributes:
        length: pixels of the image.
        tile: pixels of a tile; greater than ``length`` if the image is padded.
        starts: first pixel of each tile, ascending.
        window: a value of ``WINDOWS``.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    window: str

    @cached_property
    def profile(self) -> np.ndarray:
        """The weight of each pixel of a tile before they are normalised, (tile,) float64, positive."""
        centre = np.arange(self.tile) + 0.5
        if self.window == "hann":
            return np.asarray(np.sin(np.pi * centre / self.tile) ** 2)
        return np.asarray(np.exp(-0.5 * ((centre / self.tile - 0.5) / _SIGMA) ** 2))

    def tiles_at(self, first: int, last: int) -> range:
        """The numbers of the tiles that cover a pixel of [first, last)."""
        covering = [i for i, start in enumerate(self.starts) if start < last and start + self.tile > first]
        return range(covering[0], covering[-1] + 1)

    def shares(self, first: int, last: int) -> list[Share]:
        """The tiles of the pixels [first, last), and their weights.

        Where only one tile lies, as at the edges of the image, its weight is 1, whatever the window.
        """
        numbers = self.tiles_at(first, last)
        weights = np.zeros((len(numbers), last - first))
        for row, number in zip(weights, numbers, strict=True):
            start = self.starts[number]
            low, high = max(first, start), min(last, start + self.tile)
            row[low - first : high - first] = self.profile[low - start : high - start]
        weights /= weights.sum(0)
        return [
            Share(number, self.starts[number], row.astype(np.float32))
            for number, row in zip(numbers, weights, strict=True)
        ]


@dataclass(frozen=True)
class TilePlan:
    """The tiles of an image, in rows and columns.

    Attributes:
        rows: the tiles from top to bottom.
        columns: the tiles from left to right.
        size: requested size of a tile, pixels.
        overlap: requested overlap, pixels; neighbouring tiles overlap by at least as much.
    """

    rows: Side
    columns: Side
    size: int
    overlap: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.rows.length, self.columns.length

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """A tile as (top, left, height, width) in pixels of the image, beyond which it may extend."""
        return self.rows.starts[row], self.columns.starts[column], self.rows.tile, self.columns.tile


def plan_tiles(shape: tuple[int, int], size: int, overlap: int, window: str = "hann") -> TilePlan:
    """Cover an image with tiles of one size.

    Neighbouring tiles overlap by at least ``overlap``; the tiles are spread evenly, so that the last ones end with the
    image. An image that is smaller than a tile is one tile of its own size; if only one side is smaller, that side is
    padded.

    Args:
        shape: (H, W) of the image.
        size: of a tile, pixels.
        overlap: pixels, at most half of ``size``.
        window: "hann" or "gaussian".

    Raises:
        SettingError: a size, overlap or window that cannot be used.

    >>> plan_tiles((100, 250), 100, 20).columns.starts
    (0, 75, 150)
    """
    check_tiles(size, overlap, window)
    height, width = shape
    whole = height <= size and width <= size
    rows, columns = (
        Side(length, length if whole else size, _starts(length, size, overlap), window) for length in (height, width)
    )
    return TilePlan(rows, columns, size, overlap)


def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    if length <= size:
        return (0,)
    count = math.ceil((length - overlap) / (size - overlap))
    return tuple((2 * i * (length - size) + count - 1) // (2 * (count - 1)) for i in range(count))  # rounded


def check_tiles(size: int, overlap: int, window: str = "hann") -> None:
    """Check the settings of tiles.

    Raises:
        SettingError: a size, overlap or window that cannot be used.
    """
    for name, value, least in (("size", size, SMALLEST), ("overlap", overlap, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise SettingError(f"the {name} of tiles must be an integer of at least {least} pixels, not {value!r}")
    if overlap > size // 2:
        raise SettingError(
            f"an overlap of {overlap} pixels is more than half of the tile size ({size}): give at most {size // 2}"
        )
    if window not in WINDOWS:
        raise SettingError(f"unknown window {window!r}: choose one of {', '.join(WINDOWS)}")


def parse_tiles(tiles: TileSize) -> tuple[int, int] | None:
    """Read size and overlap as people write them.

    Args:
        tiles: "auto", "SIZE", "SIZE,OVERLAP", a number, or a pair of numbers, in pixels. Without an overlap, a quarter
            of the size.

    Returns:
        Size and overlap in pixels; None for "auto".

    Raises:
        SettingError: another form, or numbers that cannot be used.

    >>> parse_tiles("1024"), parse_tiles("1024,0"), parse_tiles("auto")
    ((1024, 256), (1024, 0), None)
    """
    if isinstance(tiles, str):
        if tiles.strip().lower() == AUTO:
            return None
        parts = tiles.split(",")
        if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
            raise SettingError(f'unknown tiles {tiles!r}: write "auto", SIZE or SIZE,OVERLAP in pixels, as in 1024,256')
        numbers = tuple(int(part) for part in parts)
    else:
        numbers = tuple(tiles) if isinstance(tiles, tuple | list) else (tiles,)
        if len(numbers) not in (1, 2):
            raise SettingError(f"tiles are a size, or a size and an overlap, not {tiles!r}")
    check_tiles(numbers[0], 0)
    size, overlap = numbers if len(numbers) == 2 else (numbers[0], round(numbers[0] * OVERLAP))
    check_tiles(size, overlap)
    return int(size), int(overlap)

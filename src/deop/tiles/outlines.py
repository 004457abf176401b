"""Polygons of a label map that is read from top to bottom, one band at a time.

A polygon is handed over once no further band can change it. In memory are one band, and the corners of the polygons
that reach its lower edge.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from deop.images.connected_regions import connected_regions
from deop.results.polygons import Corners, Polygon, trace_rings
from deop.results.rings import simplify_rings
from deop.tiles.areas import Measure

_OUTSIDE = -1  # stands for no name, and for what lies outside the image


@dataclass(frozen=True, eq=False)
class Outline:
    """A connected piece of one name.

    Attributes:
        class_id: index of the name.
        pixels: its area in pixels, before it is simplified.
        area: the same in the unit of the measure.
        polygon: its outline in pixels: (0, 0) is the top left corner of the image.
    """

    class_id: int
    pixels: int
    area: float
    polygon: Polygon


@dataclass(eq=False)
class _Piece:
    """A piece of which only the upper part is known.

    Attributes:
        label: its id in the label map.
        pixels: its pixels so far.
        corners: arrays (n, 5) int32: y, x, crossing, top left, low right.
    """

    label: int
    pixels: int = 0
    corners: list[np.ndarray] = field(default_factory=list)


def trace_bands(
    bands: Iterable[np.ndarray], *, tolerance: float = 0.0, min_area: int = 0, measure: Measure | None = None
) -> Iterator[Outline]:
    """Trace the pieces of a label map whose pixels are connected by their sides.

    Args:
        bands: (h, W) ids, from top to bottom; 0 is no name, and k + 1 name k.
        tolerance: how far a simplified outline may be from the exact one, in pixels; 0: exact.
        min_area: pieces of fewer pixels are left out.
        measure: gives their area; None: in pixels.

    Yields:
        The pieces, in the order in which they end.
    """
    tracer = _Tracer()
    for band in bands:
        yield from _outlines(tracer.add(band), tolerance, min_area, measure)
    yield from _outlines(tracer.end(), tolerance, min_area, measure)


def _outlines(pieces: Iterable[_Piece], tolerance: float, min_area: int, measure: Measure | None) -> Iterator[Outline]:
    for piece in pieces:
        if piece.pixels < min_area:
            continue
        corners = _joined(np.concatenate(piece.corners))
        outer, holes = trace_rings(corners)
        largest = outer[0]  # a connected piece has one outer ring
        area = measure(Polygon(largest, tuple(holes)), piece.pixels) if measure else float(piece.pixels)
        rings = simplify_rings([largest, *holes], tolerance) or [largest]
        yield Outline(piece.label - 1, piece.pixels, area, Polygon(rings[0], tuple(rings[1:])))


def _joined(rows: np.ndarray) -> Corners:
    """The corners of a piece in order.

    Two pixels of it can touch at a point before it is known that they belong to one piece. Then each has a corner
    there, and both together are a crossing.

    Args:
        rows: (n, 5), as in ``_Piece``.
    """
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    repeated = np.flatnonzero((rows[1:, :2] == rows[:-1, :2]).all(1))
    rows[repeated, 2] = 1
    rows[repeated, 3:] |= rows[repeated + 1, 3:]
    rows = np.delete(rows, repeated + 1, axis=0)
    y, x = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    return Corners(x, y, *(rows[:, column].astype(bool) for column in (2, 3, 4)))


class _Tracer:
    """The pieces that reach the lower edge of what was read."""

    def __init__(self) -> None:
        self._open: dict[int, _Piece] = {}
        self._next = 0
        self._top = 0
        self._above: np.ndarray | None = None  # of the last row, the piece and the label of each pixel
        self._above_labels: np.ndarray | None = None

    def add(self, labels: np.ndarray) -> list[_Piece]:
        """Read a band, and return the pieces that end in it."""
        regions = connected_regions(labels)
        keys = self._next + np.arange(len(regions.labels))
        self._next += len(keys)
        keys[regions.labels == 0] = _OUTSIDE
        for key, label, area in zip(keys.tolist(), regions.labels.tolist(), regions.areas.tolist(), strict=True):
            if key != _OUTSIDE:
                self._open[key] = _Piece(label, area)
        pieces = regions.paint(keys)
        if self._above is not None and self._above_labels is not None:
            same = (self._above_labels == labels[0]) & (labels[0] != 0)
            pairs = np.unique(np.stack([self._above[same], pieces[0][same]]), axis=1)
            joined = self._join(pairs.T.tolist())
            if joined:
                pieces = _replace(pieces, joined)
                self._above = _replace(self._above, joined)
        self._add_corners(pieces)
        self._top += len(labels)
        self._above, self._above_labels = pieces[-1].copy(), labels[-1].copy()
        unfinished = set(np.unique(self._above).tolist())
        ended = [key for key in self._open if key not in unfinished]
        return [self._open.pop(key) for key in ended]

    def end(self) -> list[_Piece]:
        """The pieces that reach the lower edge of the image."""
        if self._above is not None:
            self._add_corners(np.full((1, len(self._above)), _OUTSIDE))
        pieces = list(self._open.values())
        self._open.clear()
        return pieces

    def _join(self, pairs: list[list[int]]) -> dict[int, int]:
        """Join pieces that continue below; gives the new key of each piece whose key changed."""
        root: dict[int, int] = {}

        def find(key: int) -> int:
            while root.get(key, key) != key:
                root[key] = root.get(root[key], root[key])
                key = root[key]
            return key

        for upper, lower in pairs:
            first, second = sorted((find(upper), find(lower)))
            if first != second:
                piece, other = self._open[first], self._open.pop(second)
                piece.pixels += other.pixels
                piece.corners += other.corners
                root[second] = first
        return {key: find(key) for key in root}

    def _add_corners(self, pieces: np.ndarray) -> None:
        """Add the corners of the outlines above the rows of a band to their pieces."""
        height, width = pieces.shape
        extended = np.full((height + 1, width + 2), _OUTSIDE, pieces.dtype)
        extended[1:, 1:-1] = pieces
        if self._above is not None:
            extended[0, 1:-1] = self._above
        top_left, top_right = extended[:-1, :-1], extended[:-1, 1:]
        low_left, low_right = extended[1:, :-1], extended[1:, 1:]
        uneven = (top_left != top_right) | (low_left != low_right) | (top_left != low_left)
        y, x = np.nonzero(uneven)
        around = [part[y, x] for part in (top_left, top_right, low_left, low_right)]
        found = []
        for number, piece in enumerate(around):
            new = piece != _OUTSIDE
            for before in around[:number]:  # each piece at a point counts once
                new &= piece != before
            tl, tr, ll, lr = (other[new] == piece[new] for other in around)
            crossing = (tl == lr) & (tr == ll) & (tl != tr)
            corner = (tl ^ tr ^ ll ^ lr) | crossing
            columns = (y[new] + self._top, x[new], crossing, tl, lr)
            found.append((piece[new][corner], np.stack([column[corner].astype(np.int32) for column in columns], 1)))
        keys = np.concatenate([key for key, _ in found])
        rows = np.concatenate([row for _, row in found])
        order = np.lexsort((rows[:, 1], rows[:, 0], keys))
        keys, rows = keys[order], rows[order]
        starts = np.flatnonzero(np.diff(keys, prepend=_OUTSIDE))
        for key, part in zip(keys[starts].tolist(), np.split(rows, starts[1:]) if len(starts) else (), strict=True):
            self._open[key].corners.append(part)


def _replace(keys: np.ndarray, changes: dict[int, int]) -> np.ndarray:
    """An array in which some keys are replaced."""
    old = np.array(sorted(changes))
    new = np.array([changes[key] for key in old.tolist()])
    place = np.minimum(np.searchsorted(old, keys), len(old) - 1)
    return np.where(old[place] == keys, new[place], keys)

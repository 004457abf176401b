"""Polygons of masks, traced along the edges of pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np

from deop.errors import SettingError
from deop.results.rings import ring_area, simplify_rings
from deop.results.segments import Segment


@dataclass(frozen=True, eq=False)
class Polygon:
    """One connected piece of a mask: its outer ring and its holes.

    A ring is an array (n, 2) of corners (x, y) in pixels: (0, 0) is the top left corner of the photo, and pixel
    (row, column) covers the square from (column, row) to (column + 1, row + 1). The last corner is not repeated. Of
    the outer ring the area by the shoelace formula is positive, of a hole negative, as in GeoJSON.

    Args:
        outer: (n, 2) the ring around the piece.
        holes: the rings of its holes.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    @property
    def rings(self) -> tuple[np.ndarray, ...]:
        """The outer ring and then the holes."""
        return (self.outer, *self.holes)

    @property
    def area(self) -> float:
        """The area in pixels, without the holes."""
        return float(sum(ring_area(ring) for ring in self.rings))


def segment_polygons(segment: Segment, tolerance: float = 0.0) -> list[Polygon]:
    """The polygons of a segment, one for each piece whose pixels are connected by their sides.

    Args:
        segment: the segment.
        tolerance: how far a simplified outline may be from the exact one, in pixels. 0: exact; about 1 removes the
            steps of slanted edges. Rings that become too small for a triangle are dropped, except that the largest
            piece of the segment stays.

    Raises:
        SettingError: the tolerance is negative or not a number.
    """
    check_tolerance(tolerance)
    exact = trace(segment.crop)
    offset = np.array(segment.box[:2])
    polygons = []
    for polygon in exact:
        rings = simplify_rings(polygon.rings, tolerance)
        if rings:
            polygons.append(Polygon(rings[0] + offset, tuple(ring + offset for ring in rings[1:])))
    if not polygons:
        largest = max(exact, key=lambda polygon: polygon.area)
        polygons = [Polygon(largest.outer + offset)]
    return polygons


def check_tolerance(tolerance: float) -> None:
    """Check the tolerance of simplified polygons, before anything slow starts.

    Raises:
        SettingError: it is negative or not a finite number.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < float("inf"):
        raise SettingError(f"the tolerance of polygons must be at least 0 pixels, not {tolerance!r}")


def trace(mask: np.ndarray) -> list[Polygon]:
    """Trace the outlines of a mask along the edges of its pixels.

    Filling the polygons gives the mask back exactly. Pixels that only touch at a corner belong to different pieces.
    Every ring is simple: it visits no corner twice.

    Corners of outlines are found with array operations. Along a row of corners, the first and second are joined by an
    edge, then the third and fourth, and so on; the same along a column. So the cost besides is linear in the number
    of corners.

    Args:
        mask: (h, w) bool.

    Returns:
        The pieces, in the order of their topmost row.

    >>> trace(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))[0].rings[1].tolist()
    [[1, 1], [1, 2], [2, 2], [2, 1]]
    """
    padded = np.pad(mask.astype(bool, copy=False), 1)
    top_left, top_right, low_left, low_right = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    # At a corner an odd number of the four pixels is set; where two pixels touch diagonally, there are two corners.
    crossing = (top_left == low_right) & (top_right == low_left) & (top_left != top_right)
    y, x = np.nonzero((top_left ^ top_right ^ low_left ^ low_right) | crossing)
    corners = Corners(x, y, crossing[y, x], top_left[y, x], low_right[y, x])
    outer, holes = trace_rings(corners)
    return _assemble(outer, holes, mask.shape[0])


class Corners(NamedTuple):
    """The corners of the outlines of a mask, by rows from top to bottom and in each row from left to right.

    Attributes:
        x: (n,) integers.
        y: (n,) integers.
        crossing: (n,) bool, whether two pixels of the mask touch here with their corners only.
        top_left: (n,) bool, whether the pixel to the top left of the corner is in the mask.
        low_right: (n,) bool, the same for the pixel to the lower right.
    """

    x: np.ndarray
    y: np.ndarray
    crossing: np.ndarray
    top_left: np.ndarray
    low_right: np.ndarray


def trace_rings(corners: Corners) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Join corners to rings.

    Returns:
        The outer rings, one for each piece, and the holes.
    """
    outer: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    if not len(corners.x):
        return outer, holes
    double = corners.crossing
    copies = double + 1
    points = np.repeat(np.stack([corners.x, corners.y], axis=1), copies, axis=0)
    second = np.zeros(len(points), bool)
    second[np.cumsum(copies)[double] - 1] = True
    # Of two corners at one point, the first ends the edge from the left and the second begins the edge to the right.
    # Which of them belongs to the edge from above decides that a ring turns around one pixel, not between both.
    rising = np.repeat(double & ~corners.top_left, copies)
    low_right = np.repeat(corners.low_right, copies)
    along_column = np.lexsort((second ^ rising, points[:, 1], points[:, 0]))
    vertical = np.empty(len(points), np.intp)
    vertical[along_column] = along_column.reshape(-1, 2)[:, ::-1].ravel()
    for cycle in _cycles(vertical.tolist()):
        ring = points[cycle]
        if not low_right[cycle[0]]:  # the first corner is the top left one: this is a hole
            ring = np.concatenate([ring[:1], ring[:0:-1]])
        parts = _split_at_repeats(ring) if np.take(second, cycle).any() else [ring]
        for part in parts:
            (outer if ring_area(part) > 0 else holes).append(part)
    return outer, holes


def _cycles(vertical: list[int]) -> Iterator[list[int]]:
    """The rings: from corner to corner along a row, where 2k and 2k + 1 are neighbours, then along a column."""
    visited = bytearray(len(vertical))
    for start in range(0, len(vertical), 2):
        if visited[start]:
            continue
        ring: list[int] = []
        corner = start
        while not visited[corner]:
            across = corner ^ 1
            visited[corner] = visited[across] = 1
            ring += (corner, across)
            corner = vertical[across]
        yield ring


def _split_at_repeats(ring: np.ndarray) -> list[np.ndarray]:
    """Divide a ring that passes a point twice into rings that pass each point once."""
    rings: list[np.ndarray] = []
    path: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
    for x, y in ring.tolist():
        point = (x, y)
        if point in position:
            start = position[point]
            rings.append(np.array(path[start:]))
            for passed in path[start + 1 :]:
                del position[passed]
            del path[start + 1 :]
        else:
            position[point] = len(path)
            path.append(point)
    return [*rings, np.array(path)]


def _assemble(outer: list[np.ndarray], holes: list[np.ndarray], height: int) -> list[Polygon]:
    """Find the piece of each hole: the pixels above its top edge lead up to another ring of the same piece."""
    rings = [*outer, *holes]
    top = [int(ring[:, 1].min()) for ring in rings]
    members: list[list[np.ndarray]] = [[] for _ in outer]
    if holes:
        parent = list(range(len(rings)))
        above = _rings_above(rings, holes, height)
        # From top to bottom, so that the ring above is assigned before.
        for number in sorted(range(len(holes)), key=lambda number: top[len(outer) + number]):
            parent[len(outer) + number] = parent[above[number]]
            members[parent[above[number]]].append(holes[number])
    return [Polygon(outer[index], tuple(members[index])) for index in sorted(range(len(outer)), key=top.__getitem__)]


def _rings_above(rings: list[np.ndarray], holes: list[np.ndarray], height: int) -> list[int]:
    """For each hole, the index of the ring whose edge is the next one above the hole's top left corner."""
    corners = np.concatenate(rings)
    following = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    horizontal = corners[:, 1] == following[:, 1]
    left = np.minimum(corners[:, 0], following[:, 0])[horizontal]
    length = np.abs(corners[:, 0] - following[:, 0])[horizontal]
    # Edges one pixel long, in the order of their columns and then from top to bottom.
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    keys = (np.repeat(left, length) + step) * (height + 1) + np.repeat(corners[horizontal, 1], length)
    order = np.argsort(keys)
    starts = np.array([ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]] for ring in holes])
    places = np.searchsorted(keys[order], starts[:, 0] * (height + 1) + starts[:, 1]) - 1
    indices: list[int] = np.repeat(owner[horizontal], length)[order][places].tolist()
    return indices


def join_rings(polygons: Sequence[Polygon]) -> np.ndarray:
    """One ring for formats without holes or several pieces.

    Each ring is joined to the ring before by a line that is passed once in each direction, so that it has no area:
    filling the ring by the even-odd rule gives the polygons exactly.

    Args:
        polygons: the pieces of one mask, at least one.

    Returns:
        (n, 2) corners.
    """
    rings = [ring for polygon in polygons for ring in polygon.rings]
    joined = rings[0]
    for ring in rings[1:]:
        start = ring[0]
        nearest = int(((joined - start) ** 2).sum(axis=1).argmin())
        joined = np.concatenate([joined[: nearest + 1], ring, ring[:1], joined[nearest:]])
    return joined

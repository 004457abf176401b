"""Rings of polygons: area, and simplification that keeps them valid."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

_EXACT = 0.5
"""Tolerance in pixels below which outlines along the edges of pixels stay as they are."""
_PAIRS = 1 << 20  # pairs of edges that are compared at once


def ring_area(ring: np.ndarray) -> float:
    """The signed area of a ring (n, 2) by the shoelace formula.

    >>> ring_area(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]))
    2.0
    """
    x, y = ring.T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]) / 2


def simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Remove corners of a ring that are at most ``tolerance`` from the simplified line (Douglas-Peucker).

    Args:
        ring: (n, 2) corners.
        tolerance: in pixels.

    Returns:
        (m, 2) corners of the ring; fewer than 3 if nothing of it is larger than the tolerance.
    """
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]]).astype(np.float64)
    keep = np.zeros(len(closed), bool)
    keep[[0, far]] = True
    parts = [(0, far), (far, len(ring))]
    while parts:
        start, end = parts.pop()
        if end - start < 2:
            continue
        line = closed[end] - closed[start]
        offsets = closed[start + 1 : end] - closed[start]
        # Distance from the segment, not from the line that extends it.
        along = np.clip(offsets @ line / max(float(line @ line), 1e-12), 0, 1)
        distance = ((offsets - along[:, None] * line) ** 2).sum(axis=1)
        farthest = int(distance.argmax())
        if distance[farthest] > tolerance**2:
            middle = start + 1 + farthest
            keep[middle] = True
            parts += [(start, middle), (middle, end)]
    simple = ring[keep[:-1]]
    return simple if len(simple) >= 3 and ring_area(simple) * ring_area(ring) > 0 else simple[:0]


def simplify_rings(rings: Sequence[np.ndarray], tolerance: float) -> list[np.ndarray]:
    """Simplify the rings of a polygon so that they neither cross nor pass a point twice.

    Where they would with this tolerance, half of it is tried, and so on down to the exact outline.

    Args:
        rings: the outer ring and then the holes, (n, 2) integers each, along the edges of pixels.
        tolerance: in pixels; 0: the rings stay as they are.

    Returns:
        The rings, without holes that are too small for a triangle; none if the outer ring is.
    """
    while tolerance >= _EXACT:
        outer, *holes = (simplify(ring, tolerance) for ring in rings)
        if not len(outer):
            return []
        simple = [outer, *(hole for hole in holes if len(hole))]
        if not rings_cross(simple):
            return simple
        tolerance /= 2
    return list(rings)


def rings_cross(rings: Sequence[np.ndarray]) -> bool:
    """Whether edges of rings cross, touch or overlap; two rings may meet at a corner of both.

    Args:
        rings: (n, 2) integers each, not closed.

    >>> rings_cross([np.array([[0, 0], [2, 2], [2, 0], [0, 2]])])
    True
    """
    starts = np.concatenate(rings).astype(np.int64)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(np.int64)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    points = np.unique(np.column_stack([owner, starts]), axis=0)
    if len(points) < len(starts):
        return True  # a ring passes a point twice
    for i, j in _near(starts, ends):
        a, b, c, d = starts[i], ends[i], starts[j], ends[j]
        sides = np.stack([_side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)])
        met = [(one == other).all(1) for one, other in ((a, c), (a, d), (b, c), (b, d))]
        shared = np.logical_or.reduce(met)
        apart = (sides[0] * sides[1] > 0) | (sides[2] * sides[3] > 0)
        if (~apart & ~shared).any():  # boxes overlap, and neither edge lies on one side of the other
            return True
        along = np.where(met[0] | met[3], 1, -1) * ((b - a) * (d - c)).sum(1)
        if (shared & (sides == 0).all(0) & (along > 0)).any():  # one runs back along the other
            return True
    corners, inverse, counts = np.unique(starts, axis=0, return_inverse=True, return_counts=True)
    before = np.concatenate([np.roll(ring, 1, axis=0) for ring in rings])
    inverse = inverse.ravel()
    for corner in np.flatnonzero(counts > 1):
        meeting = np.flatnonzero(inverse == corner)
        ways = [(_angle(before[k] - corners[corner]), _angle(ends[k] - corners[corner])) for k in meeting]
        if any(_between(one, other[0]) != _between(one, other[1]) for one in ways for other in ways if one != other):
            return True
    return False


def _near(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of edges whose boxes overlap, some at a time."""
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    axis = int(np.argmax(np.ptp(starts, axis=0)))
    order = np.argsort(low[:, axis], kind="stable")
    low, high = low[order], high[order]
    count = np.searchsorted(low[:, axis], high[:, axis], side="right") - np.arange(len(low)) - 1
    total = np.concatenate([[0], np.cumsum(count)])
    first = 0
    while first < len(low):
        last = max(first + 1, int(np.searchsorted(total, total[first] + _PAIRS, side="right")) - 1)
        i = np.repeat(np.arange(first, last), count[first:last])
        j = i + 1 + np.arange(len(i)) - np.repeat(total[first:last] - total[first], count[first:last])
        other = 1 - axis
        overlap = (low[i, other] <= high[j, other]) & (low[j, other] <= high[i, other])
        yield order[i[overlap]], order[j[overlap]]
        first = last


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """On which side of lines points lie: -1, 0 or 1."""
    line, offset = end - start, point - start
    return np.sign(line[:, 0] * offset[:, 1] - line[:, 1] * offset[:, 0])


def _angle(direction: np.ndarray) -> float:
    return math.atan2(direction[1], direction[0])


def _between(way: tuple[float, float], angle: float) -> bool:
    """Whether an angle lies in the sector from one angle to another."""
    return (angle - way[0]) % math.tau < (way[1] - way[0]) % math.tau

"""Rings that cross are found, and simplification makes none."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.results.polygons import trace
from deop.results.rings import rings_cross, simplify_rings

SQUARE = [[0, 0], [8, 0], [8, 8], [0, 8]]


@pytest.mark.parametrize(
    ("rings", "crossing"),
    [
        ([SQUARE], False),
        ([[[0, 0], [8, 8], [8, 0], [0, 8]]], True),  # a bow tie
        ([[[0, 0], [8, 0], [8, 8], [4, 0], [0, 8]]], True),  # touches an edge
        ([[[0, 0], [8, 0], [4, 0], [8, 8]]], True),  # runs back
        ([[[0, 0], [4, 4], [8, 0], [8, 8], [4, 4], [0, 8]]], True),  # passes a point twice
        ([SQUARE, [[2, 2], [2, 4], [4, 4]]], False),
        ([SQUARE, [[2, 2], [2, 4], [9, 4]]], True),
        ([SQUARE, [[0, 0], [2, 4], [4, 2]]], False),  # meets a corner from the inside
        ([SQUARE, [[0, 0], [2, 4], [-4, 2]]], True),  # passes through a corner
        ([SQUARE, [[4, 0], [2, 4], [6, 4]]], True),  # touches an edge
        ([SQUARE, [[0, 0], [0, 8], [4, 4]]], True),  # shares an edge
    ],
)
def test_examples(rings, crossing):
    assert rings_cross([np.array(ring) for ring in rings]) == crossing


def meet(a, b, c, d):
    """Whether two edges have a point in common, with exact fractions."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = a, b, c, d
    u, v, w = (bx - ax, by - ay), (dx - cx, dy - cy), (cx - ax, cy - ay)
    size = u[0] * v[1] - u[1] * v[0]
    if size:
        return all(0 <= Fraction(x, size) <= 1 for x in (w[0] * v[1] - w[1] * v[0], w[0] * u[1] - w[1] * u[0]))
    if w[0] * u[1] - w[1] * u[0]:
        return False
    return max(min(a, b), min(c, d)) <= min(max(a, b), max(c, d))


def lies_on(point, start, end):
    (x, y), (ax, ay), (bx, by) = point, start, end
    inside = min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by)
    return inside and (bx - ax) * (y - ay) == (by - ay) * (x - ax)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=7, unique=True))
@settings(max_examples=300, deadline=None)
def test_single_rings_as_by_comparing_all_edges(ring):
    count = len(ring)
    edges = [(ring[k], ring[(k + 1) % count]) for k in range(count)]
    crossing = False
    for first in range(count):
        for second in range(first + 1, count):
            if second == first + 1 or (first, second) == (0, count - 1):  # neighbours: neither end on the other edge
                others = [point for point in edges[second] if point not in edges[first]]
                others = [(point, edges[first]) for point in others]
                others += [(point, edges[second]) for point in edges[first] if point not in edges[second]]
                crossing |= any(lies_on(point, *edge) for point, edge in others)
            else:
                crossing |= meet(*edges[first], *edges[second])
    assert rings_cross([np.array(ring)]) == crossing


@given(st.integers(0, 10_000), st.sampled_from([0.5, 1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_simplified_outlines_do_not_cross(seed, tolerance):
    mask = np.random.default_rng(seed).random((40, 40))
    mask = sum(np.roll(mask, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1)) > 3
    for polygon in trace(mask):
        assert not rings_cross(polygon.rings)
        rings = simplify_rings(polygon.rings, tolerance)
        assert not rings or not rings_cross(rings)
        assert sum(map(len, rings)) <= sum(map(len, polygon.rings))


def test_many_edges():
    """A comb of 40,000 edges, some of which are as long as the ring."""
    teeth = [[x, 10 + x % 7] for x in range(40_000, 0, -1)]
    ring = np.array([[0, 0], [40_000, 0], *teeth])
    assert not rings_cross([ring])
    ring[20_000] = [-5, 12]
    assert rings_cross([ring])

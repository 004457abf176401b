"""Polygons of masks: filling them by the even-odd rule gives the mask back, and every ring is valid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from deop.errors import SettingError
from deop.results.polygons import join_rings, segment_polygons, trace
from deop.results.rings import ring_area, simplify
from deop.results.segments import Segment

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))

# Pixels that touch at corners, a hole that touches the outside at a corner, a piece inside a hole, holes that touch.
DIFFICULT = """
    10 01 010 1110 1110 11111 111111 1111
    01 10 101 1010 1011 10001 101011 1001
    .. .. 010 1101 1101 10101 110101 1011
    .. .. ... 1111 0111 10001 111111 1111
    .. .. ... .... .... 11111 ...... ....
"""


def difficult_masks():
    columns = list(zip(*(line.split() for line in DIFFICULT.strip().splitlines()), strict=True))
    return [np.array([[int(v) for v in row] for row in rows if "." not in row], bool) for rows in columns]


def fill(rings, shape) -> np.ndarray:
    """The even-odd rule at the centres of pixels: how many edges are to the right of each."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                inside ^= ((y0 < y) != (y1 < y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def check(mask):
    polygons = trace(mask)
    np.testing.assert_array_equal(fill([ring for polygon in polygons for ring in polygon.rings], mask.shape), mask)
    labels, count = ndimage.label(mask)
    assert len(polygons) == count
    for polygon in polygons:
        piece = fill(polygon.rings, mask.shape)
        assert len(np.unique(labels[piece])) == 1
        assert polygon.area == piece.sum() == (labels == labels[piece][0]).sum()
        assert ring_area(polygon.outer) > 0
        assert all(ring_area(hole) < 0 for hole in polygon.holes)
        assert fill([polygon.outer], mask.shape)[piece].all()
        for ring in polygon.rings:
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring) >= 4
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()  # along the edges of pixels
            assert ((steps[:, 0] == 0) != (np.roll(steps[:, 0], 1) == 0)).all()  # every corner is a turn


@settings(max_examples=300, deadline=None)
@given(masks)
def test_filling_polygons_gives_the_mask_back(mask):
    check(mask)


@pytest.mark.parametrize("mask", difficult_masks(), ids=lambda mask: "/".join("".join(map(str, r)) for r in mask * 1))
def test_difficult_masks(mask):
    for turned in (mask, mask[::-1], mask.T):
        check(np.ascontiguousarray(turned))


def test_a_frame_by_hand():
    mask = np.ones((3, 4), bool)
    mask[1, 1:3] = False
    (polygon,) = trace(mask)
    assert polygon.outer.tolist() == [[0, 0], [4, 0], [4, 3], [0, 3]]
    assert [hole.tolist() for hole in polygon.holes] == [[[1, 1], [1, 2], [3, 2], [3, 1]]]
    assert polygon.area == 10


def test_holes_belong_to_their_own_piece():
    """A ring inside a ring inside a ring: each has one hole, whose size is known."""
    mask = np.zeros((15, 15), bool)
    for inset in (0, 4, 6):
        mask[inset : 15 - inset, inset : 15 - inset] = True
        mask[inset + 1 : 14 - inset, inset + 1 : 14 - inset] = False
    polygons = trace(mask)
    assert [len(polygon.holes) for polygon in polygons] == [1, 1, 1]
    assert [-ring_area(polygon.holes[0]) for polygon in polygons] == [169, 25, 1]


@given(masks, st.integers(0, 3), st.integers(0, 3))
def test_joined_rings_fill_the_same_pixels(mask, top, left):
    whole = np.pad(mask, ((top, 1), (left, 2)))
    segment = Segment.from_mask("cat", 0, 0.5, whole)
    if segment is None:
        return
    polygons = segment_polygons(segment)
    np.testing.assert_array_equal(fill([join_rings(polygons)], whole.shape), whole)


@settings(max_examples=50, deadline=None)
@given(masks, st.sampled_from([0.5, 1.0, 2.5]))
def test_simplified_rings_are_near_the_exact_ones(mask, tolerance):
    for polygon in trace(mask):
        for ring in polygon.rings:
            simple = simplify(ring, tolerance)
            if not len(simple):
                continue
            assert {tuple(corner) for corner in simple.tolist()} <= {tuple(corner) for corner in ring.tolist()}
            ends = np.roll(simple, -1, axis=0)
            for corner in ring:
                line, offset = ends - simple, corner - simple
                along = np.clip((offset * line).sum(1) / (line**2).sum(1), 0, 1)[:, None]
                assert np.sqrt(((offset - along * line) ** 2).sum(1)).min() <= tolerance + 1e-9


def test_simplification_of_a_staircase_and_of_a_single_pixel():
    stairs = np.tri(40, dtype=bool)
    (exact,) = trace(stairs)
    assert len(exact.outer) == 82  # two for each step, and two
    assert len(simplify(exact.outer, 1)) <= 5
    pixel = Segment.from_mask("cat", 0, 0.5, np.eye(3, dtype=bool))
    (polygon,) = segment_polygons(pixel, tolerance=5)  # nothing is larger than the tolerance: one piece is kept
    assert polygon.area == 1


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "1", None, True])
def test_wrong_tolerances(tolerance):
    segment = Segment.from_mask("cat", 0, 0.5, np.ones((2, 2), bool))
    with pytest.raises(SettingError, match="tolerance"):
        segment_polygons(segment, tolerance)


def test_an_empty_mask_has_no_polygons():
    assert trace(np.zeros((3, 4), bool)) == []

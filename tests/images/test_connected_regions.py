"""Connected regions compared with scipy's labelling, and their sums and borders with loops over pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deop.images.connected_regions import connected_regions


def random_labels(height, width, names, repeat, seed):
    labels = np.random.default_rng(seed).integers(-1, names, (height, width)).astype(np.int32)
    return np.kron(labels, np.ones((1, repeat), np.int32))


def numbered(parts):
    """Renumber a map of parts in the order of their first pixels."""
    _, first, part = np.unique(parts, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[part].reshape(parts.shape)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 17), st.integers(0, 3), st.integers(1, 20), st.booleans(), st.integers(0, 9999)
)
def test_against_scipy(height, width, names, repeat, diagonal, seed):
    """With many runs per row and with few, for which runs are found in different ways."""
    labels = random_labels(height, width, names, repeat, seed)
    expected, count = np.zeros(labels.shape, int), 0
    for value in np.unique(labels):
        parts, number = ndimage.label(labels == value, np.ones((3, 3)) if diagonal else None)
        expected[parts > 0] = parts[parts > 0] + count
        count += number
    regions = connected_regions(labels, diagonal=diagonal)
    painted = regions.paint(np.arange(len(regions.labels)))
    np.testing.assert_array_equal(painted, numbered(expected))
    np.testing.assert_array_equal(regions.labels[painted], labels)
    assert regions.labels.dtype == labels.dtype
    np.testing.assert_array_equal(regions.areas, np.bincount(painted.ravel()))
    values = np.random.default_rng(seed).random(labels.shape).astype(np.float32)
    np.testing.assert_allclose(regions.sum(values), ndimage.sum(values, painted, range(count)), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(1, 4), st.integers(0, 9999))
def test_borders_against_loops(height, width, names, repeat, seed):
    regions = connected_regions(random_labels(height, width, names, repeat, seed))
    count = len(regions.labels)
    painted, expected, actual = regions.paint(np.arange(count)), np.zeros((count, count)), np.zeros((count, count))
    for first, second in ((painted[1:], painted[:-1]), (painted[:, 1:], painted[:, :-1])):
        for a, b in zip(first.ravel(), second.ravel(), strict=True):
            if a != b:
                expected[a, b] += 1
                expected[b, a] += 1
    for a, b, sides in zip(*regions.borders(), strict=True):
        assert sides > 0
        actual[a, b] += sides
        actual[b, a] += sides
    np.testing.assert_array_equal(actual, expected)


def test_a_spiral_is_one_region():
    """Parts that are joined only after many rows."""
    side = 41
    spiral = np.zeros((side, side), np.int32)
    y, x, (dy, dx) = 0, 0, (0, 1)
    spiral[0, 0] = 1
    for length in [side - 1, *(n for n in range(side - 1, 0, -2) for _ in (0, 1))]:
        for _ in range(length):
            y, x = y + dy, x + dx
            spiral[y, x] = 1
        dy, dx = dx, -dy
    regions = connected_regions(spiral)
    assert (regions.labels == 1).sum() == ndimage.label(spiral)[1] == 1


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_odd_shapes(shape, diagonal):
    regions = connected_regions(np.full(shape, 3), diagonal=diagonal)
    assert regions.paint(np.array([7])[: len(regions.labels)]).tolist() == np.full(shape, 7).tolist()
    assert len(regions.labels) == min(1, shape[0] * shape[1])
    assert [len(part) for part in regions.borders()] == [0, 0, 0]


def test_any_dtype():
    regions = connected_regions(np.array([[True, True, False]]))
    assert regions.labels.tolist() == [True, False]
    assert regions.areas.tolist() == [2, 1]

"""Islands against scipy's own labelling of every name, and cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deop.regions.small_regions import absorb_small_regions


def stretches(labels):
    """Each stretch of one label: its mask."""
    for value in np.unique(labels):
        parts, count = ndimage.label(labels == value)
        yield from (parts == part for part in range(1, count + 1))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.integers(1, 17), st.integers(1, 4), st.integers(1, 12), st.integers(0, 10_000))
def test_none_is_left_and_the_large_stay(height, width, names, least, seed):
    labels = np.random.default_rng(seed).integers(-1, names, (height, width)).astype(np.int32)
    labels = np.kron(labels, np.ones((1, 2), np.int32))
    before = labels.copy()
    found = absorb_small_regions(labels, least)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)
    large = [mask for mask in stretches(labels) if mask.sum() >= least]
    if not large:
        np.testing.assert_array_equal(found, labels)
        return
    assert all(mask.sum() >= least for mask in stretches(found))
    for mask in large:
        np.testing.assert_array_equal(found[mask], labels[mask])


def test_the_longest_border_takes_it():
    labels = np.zeros((6, 8), np.int32)
    labels[3:], labels[2, 3:5] = 1, 2  # two pixels of 2 in a bay of 0: four sides to 0, two to 1
    expected = np.where(labels == 2, 0, labels)
    np.testing.assert_array_equal(absorb_small_regions(labels, 3), expected)
    assert absorb_small_regions(labels, 2) is labels


def test_an_island_in_an_island_waits():
    labels = np.full((9, 9), 5, np.int32)
    labels[3:6, 3:6] = -1
    labels[4, 4] = 7
    assert (absorb_small_regions(labels, 10) == 5).all()
    np.testing.assert_array_equal(absorb_small_regions(labels, 8) == -1, (labels == -1) | (labels == 7))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (1, 5)])
def test_odd_shapes(shape):
    labels = np.zeros(shape, np.int32)
    np.testing.assert_array_equal(absorb_small_regions(labels, 100), labels)

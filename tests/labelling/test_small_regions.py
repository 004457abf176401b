"""Removal of small regions: against scipy's labelling of each label, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deop.labelling.small_regions import absorb_small_regions


def regions_of(labels):
    """The mask of each connected region."""
    for value in np.unique(labels):
        parts, count = ndimage.label(labels == value)
        yield from (parts == part for part in range(1, count + 1))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.integers(1, 17), st.integers(1, 4), st.integers(1, 12), st.integers(0, 10_000))
def test_no_small_region_remains_and_large_ones_stay(height, width, names, min_area, seed):
    labels = np.random.default_rng(seed).integers(-1, names, (height, width)).astype(np.int32)
    labels = np.kron(labels, np.ones((1, 2), np.int32))
    before = labels.copy()
    result = absorb_small_regions(labels, min_area)
    assert result.dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)
    large = [mask for mask in regions_of(labels) if mask.sum() >= min_area]
    if not large:
        np.testing.assert_array_equal(result, labels)
        return
    assert all(mask.sum() >= min_area for mask in regions_of(result))
    for mask in large:
        np.testing.assert_array_equal(result[mask], labels[mask])


def test_longest_border_decides():
    labels = np.zeros((6, 8), np.int32)
    labels[3:], labels[2, 3:5] = 1, 2  # two pixels of 2 inside 0 touch 0 at four sides, and 1 at two
    expected = np.where(labels == 2, 0, labels)
    np.testing.assert_array_equal(absorb_small_regions(labels, 3), expected)
    assert absorb_small_regions(labels, 2) is labels


def test_nested_small_regions():
    labels = np.full((9, 9), 5, np.int32)
    labels[3:6, 3:6] = -1
    labels[4, 4] = 7
    assert (absorb_small_regions(labels, 10) == 5).all()
    np.testing.assert_array_equal(absorb_small_regions(labels, 8) == -1, (labels == -1) | (labels == 7))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (1, 5)])
def test_odd_shapes(shape):
    labels = np.zeros(shape, np.int32)
    np.testing.assert_array_equal(absorb_small_regions(labels, 100), labels)

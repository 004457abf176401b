"""Segment ids as colours and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deop.images.panoptic_ids import colours_to_ids, find_ids, ids_to_colours

ids = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 2**24 - 1))


@given(ids)
def test_ids_survive_the_way_through_colours(values):
    colours = ids_to_colours(values)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours_to_ids(colours), values)
    red, green, blue = (colours[..., channel].astype(int) for channel in range(3))
    np.testing.assert_array_equal(red + 256 * green + 65536 * blue, values)


@given(ids, st.sets(st.integers(0, 2**24 - 1)))
def test_positions_of_ids(values, known):
    listed = sorted(known | set(values.ravel()[:3].tolist()))
    positions = {value: index for index, value in enumerate(listed)}
    expected = [[positions.get(value, -1) for value in row] for row in values.tolist()]
    assert find_ids(values, listed).tolist() == expected


def test_no_known_ids():
    assert find_ids(np.zeros((2, 3), int), []).tolist() == [[-1] * 3] * 2

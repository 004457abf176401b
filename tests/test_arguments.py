"""Types of arguments: what the module's own examples do not show."""

from types import GenericAlias
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deop.arguments import matches

VALUES = st.sampled_from([True, np.bool_(False), 1, np.int64(2), 0.5, np.float32(1), "cat", None, (1, "a"), [2, 3]])
HINTS = st.sampled_from([bool, int, float, str, bool | None, str | int, tuple[int, str], tuple[int, ...] | None, Any])


@given(st.lists(VALUES, max_size=6), HINTS, st.sampled_from([tuple, list]))
def test_a_tuple_matches_if_each_of_its_values_does(values, hint, kind):
    """Values of one type are not all looked at, which must not show, also where they are tuples themselves."""
    assert matches(kind(values), GenericAlias(tuple, (hint, ...))) == all(matches(value, hint) for value in values)


def test_the_last_of_many_values_is_checked():
    assert matches(("cat",) * 10_000, tuple[str, ...])
    assert not matches(("cat",) * 10_000 + (1,), tuple[str, ...])
    assert not matches([(1, 2)] * 10 + [(1, "2")], tuple[tuple[int, int], ...])

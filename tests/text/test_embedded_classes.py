"""The rows of a vocabulary by columns: every row is in one place, and nothing is copied where the order fits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deop.text.embedded_classes import Classes


def classes_of(owners, names, offset):
    """Rows that can be told apart: row i is (i + 1, -i)."""
    numbers = np.arange(len(owners), dtype=np.float32)
    rows = np.stack([numbers + 1, -numbers], 1)
    return Classes(rows, np.array(owners, np.int64), tuple(map(str, range(names))), 10 * numbers if offset else None)


@given(st.lists(st.integers(0, 5), max_size=12), st.booleans())
def test_every_row_is_in_its_column_once(owners, offset):
    """Looked up one by one, in the order of the vocabulary: the first row of a name, then its further rows."""
    classes = classes_of(owners, 5, offset)
    columns = classes.columns
    found = {name: [] for name in range(6)}
    for name, row in enumerate(columns.rows):
        added = 0.0 if columns.offset is None else columns.offset[name]
        if row.any():
            found[name].append((*row, added))
        else:
            assert added == -np.inf
    ends = [*columns.starts, len(columns.more)][1:]
    for name, first, last in zip(columns.columns, columns.starts, ends, strict=True):
        added = np.zeros(len(columns.more)) if columns.more_offset is None else columns.more_offset
        found[name] += [(*columns.more[place], added[place]) for place in range(first, last)]
    expected = {name: [] for name in range(6)}
    for place, name in enumerate(owners):
        expected[name].append((place + 1, -place, 10 * place if offset else 0))
    assert found == expected


def test_rows_in_the_order_of_the_names_are_not_copied():
    classes = classes_of([0, 1, 2, 3, 3, 3], 3, offset=True)
    assert np.shares_memory(classes.columns.rows, classes.rows)
    assert len(classes.columns.rows) == 4
    assert classes.columns.offset.tolist() == [0, 10, 20, 30]

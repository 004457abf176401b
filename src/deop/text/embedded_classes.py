"""A vocabulary in the joint space of images and text, as regions are compared with it."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Columns(NamedTuple):
    """The rows of a vocabulary in the order of the columns of logits, so that one matrix product gives most of them.

    Attributes:
        rows: (L, C) float32, the first row of each of the first L columns; zeros for a name without rows. The columns
            after these have no rows.
        offset: (L,) float32 added to their logits, -inf for a name without rows; None: nothing is added.
        more: (E, C) float32, the further rows, those of one column together.
        more_offset: (E,) float32 added to their logits, or None.
        starts: (G,) int64, where the further rows of each of G columns start in ``more``.
        columns: (G,) int64, these columns, ascending.
    """

    rows: np.ndarray
    offset: np.ndarray | None
    more: np.ndarray
    more_offset: np.ndarray | None
    starts: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Classes:
    """A vocabulary in the joint space.

    Attributes:
        rows: (M, C) float32 of unit length: every synonym of every name, then the background and the rivals.
        owner: (M,) int64 in [0, K]: the name that a row belongs to; K for background and rivals. A name may have none.
        names: the K display names.
        offset: (M,) float32 added to the logits of the rows, or None.
        everything_else: index of the name that the rivals belong to and that the learned "no object" vector stands
            for; None: these belong to none of the names, K.

    >>> classes = Classes(np.eye(3, dtype=np.float32), np.array([1, 1, 2]), ("without rows", "cat"))
    >>> classes.columns.rows
    array([[0., 0., 0.],
           [1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    >>> classes.columns.more, classes.columns.columns
    (array([[0., 1., 0.]], dtype=float32), array([1]))
    """

    rows: np.ndarray
    owner: np.ndarray
    names: tuple[str, ...]
    offset: np.ndarray | None = None
    everything_else: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def columns(self) -> Columns:
        """The rows by columns, prepared once. They are copied, unless the first belong to one name after another."""
        length = int(self.owner.max(initial=-1)) + 1
        found, first = np.unique(self.owner, return_index=True)
        rows, offset = self.rows[:length], None if self.offset is None else self.offset[:length]
        if not np.array_equal(first, np.arange(length)):
            rows = np.zeros((length, self.rows.shape[1]), self.rows.dtype)
            rows[found] = self.rows[first]
            offset = np.full(length, -np.inf, np.float32)
            offset[found] = 0 if self.offset is None else self.offset[first]
        further = np.setdiff1d(np.arange(len(self.owner)), first)
        further = further[np.argsort(self.owner[further], kind="stable")]
        columns, starts = np.unique(self.owner[further], return_index=True)
        return Columns(
            rows,
            offset,
            self.rows[further],
            None if self.offset is None else self.offset[further],
            starts,
            columns,
        )

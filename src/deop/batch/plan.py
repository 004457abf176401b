"""The plan of a batch: its work units as lines of a file, and an index that finds them."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from deop.batch.storage import Storage
from deop.errors import DataError

PLAN, INDEX = "_deop/plan.jsonl", "_deop/plan.index"
PREFIX, SUFFIX = "part-", ".parquet"


class Plan:
    """The units of a batch.

    Args:
        storage: the output.
        index: (units, 2) int64: where a unit's line ends in the file, and its number of inputs, -1 if unknown.
    """

    def __init__(self, storage: Storage, index: np.ndarray) -> None:
        self._storage = storage
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def inputs(self) -> int | None:
        """The number of inputs; None if it is not known before tar files are read."""
        counts = self._index[:, 1]
        return None if (counts < 0).any() else int(counts.sum())

    def count(self, number: int) -> int | None:
        """The number of inputs of a unit, or None."""
        count = int(self._index[number, 1])
        return None if count < 0 else count

    def unit(self, number: int) -> dict[str, Any]:
        """A unit, read from the plan."""
        start = int(self._index[number - 1, 0]) if number else 0
        unit: dict[str, Any] = json.loads(self._storage.read_range(PLAN, start, int(self._index[number, 0])))
        return unit

    def unfinished(self) -> np.ndarray:
        """The numbers of the units without a file in the output, (n,) int64."""
        finished = np.zeros(len(self), bool)
        for name in self._storage.names():
            number = number_of(name)
            if number is not None and number < len(self):
                finished[number] = True
        return np.flatnonzero(~finished)


def part_name(number: int) -> str:
    """The name of a unit's file in the output.

    >>> part_name(42)
    'part-000042.parquet'
    """
    return f"{PREFIX}{number:06d}{SUFFIX}"


def number_of(name: str) -> int | None:
    """The inverse of ``part_name``; None for other files."""
    digits = name.removeprefix(PREFIX).removesuffix(SUFFIX)
    return int(digits) if name == f"{PREFIX}{digits}{SUFFIX}" and digits.isdecimal() else None


def write_plan(storage: Storage, units: Iterable[dict[str, Any]]) -> Plan:
    """Write a plan; units are not kept in memory."""
    entries: list[tuple[int, int]] = []
    position = 0
    with tempfile.TemporaryDirectory(prefix="deop-plan-") as folder:
        place = Path(folder) / "plan.jsonl"
        with place.open("wb") as file:
            for unit in units:
                line = json.dumps(unit).encode() + b"\n"
                file.write(line)
                position += len(line)
                entries.append((position, -1 if unit["count"] is None else unit["count"]))
        storage.upload(PLAN, place)
    index = np.array(entries, np.int64).reshape(-1, 2)
    storage.write(INDEX, index.astype("<i8").tobytes())
    return Plan(storage, index)


def read_plan(storage: Storage) -> Plan:
    """Read the plan of a batch that was begun.

    Raises:
        DataError: it is missing or damaged.
    """
    content = storage.read(INDEX)
    if not content or len(content) % 16:
        raise DataError(f"{storage.address(INDEX)} is missing or damaged: add --overwrite to start again")
    return Plan(storage, np.frombuffer(content, "<i8").reshape(-1, 2))

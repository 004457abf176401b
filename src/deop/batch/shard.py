"""Work units through one supervisor: inputs in, files in the output. Both engines run this."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deop.batch.items import items_of
from deop.batch.plan import Plan, part_name
from deop.batch.storage import Storage
from deop.batch.supervisor import Pending, Supervisor
from deop.batch.table import Statistics, decode, encode

UNWRITTEN = 2
"""Finished shards of one supervisor that may wait to be written; then it waits for the store."""


@dataclass
class _Rows:
    """The rows of a unit, by their place in it.

    Attributes:
        rows: the rows so far.
        expected: their number; None: not all inputs have been read.
    """

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    expected: int | None = None


class ShardWriter:
    """Runs units and writes the file of each when its last input is answered.

    Args:
        storage: the output.
        plan: the units.
        facts: columns that all rows share: model and settings.
        on_row: called for each answered input.
        on_kept: called for each input whose answer is that of an earlier run.
        on_shard: called with the number and the statistics of each written file.
        retry_failed: keep the answers of a file that exists, and run the inputs without one.
    """

    def __init__(
        self,
        storage: Storage,
        plan: Plan,
        facts: dict[str, str],
        on_row: Callable[[], None] = lambda: None,
        on_shard: Callable[[int, Statistics], None] = lambda number, statistics: None,
        *,
        on_kept: Callable[[], None] = lambda: None,
        retry_failed: bool = False,
    ) -> None:
        self._storage, self._plan, self._facts = storage, plan, facts
        self._on_row, self._on_shard, self._on_kept = on_row, on_shard, on_kept
        self._retry_failed = retry_failed

    def run(self, supervisor: Supervisor, units: Iterable[int]) -> None:
        """Run units, the next of which is begun before the last file is written.

        Raises:
            OutputError: a file cannot be written. Files that were written are complete.
        """
        open_units: dict[int, _Rows] = {}
        writing: list[Future[None]] = []
        free = threading.Semaphore(UNWRITTEN)
        with ThreadPoolExecutor(1, thread_name_prefix="deop-write") as writer:

            def close(number: int) -> None:
                unit = open_units[number]
                if unit.expected is None or len(unit.rows) < unit.expected:
                    return
                del open_units[number]
                for done in [future for future in writing if future.done()]:
                    done.result()
                    writing.remove(done)
                free.acquire()
                rows = [unit.rows[place] for place in range(unit.expected)]
                writing.append(writer.submit(self._write, number, rows, free))

            def inputs() -> Iterator[Pending]:
                for number in units:
                    unit = open_units[number] = _Rows()
                    kept = self._answered(number)
                    place = -1
                    for place, item in enumerate(items_of(self._plan.unit(number))):
                        row = kept.pop(place, None)
                        if row is not None and row["id"] == item.id:
                            unit.rows[place] = row
                            self._on_kept()
                        else:
                            yield Pending(number, place, item)
                    unit.expected = place + 1
                    close(number)

            def finish(entry: Pending, columns: dict[str, Any]) -> None:
                row = {"id": entry.item.id, "path": entry.item.path, **self._facts, **columns}
                open_units[entry.unit].rows[entry.place] = row
                self._on_row()
                close(entry.unit)

            supervisor.run(inputs(), finish)
            for future in writing:
                future.result()

    def _answered(self, number: int) -> dict[int, dict[str, Any]]:
        """The rows of an earlier run that have an answer, by their place in the unit."""
        content = self._storage.read(part_name(number)) if self._retry_failed else None
        if content is None:
            return {}
        return {place: row for place, row in enumerate(decode(content)) if row["error"] is None}

    def _write(self, number: int, rows: list[dict[str, Any]], free: threading.Semaphore) -> None:
        try:
            content, statistics = encode(rows)
            self._storage.write(part_name(number), content)
            self._on_shard(number, statistics)
        finally:
            free.release()

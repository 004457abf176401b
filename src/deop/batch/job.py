"""One batch: its options, its record in the output, and how far it is. Engines get their work from here."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deop.arguments import check_fields
from deop.batch.plan import Plan, number_of, part_name, read_plan, write_plan
from deop.batch.settings import NAME, VERSION, check_same, settings_hash
from deop.batch.sources import list_units
from deop.batch.storage import Storage
from deop.batch.stores import is_address
from deop.batch.supervisor import COMMAND, RECYCLE, TIMEOUT
from deop.batch.table import MASKS, Statistics, read_statistics
from deop.batch.worker import WorkerOptions
from deop.errors import DataError, DeopError, SettingError
from deop.files import json_of

ENGINES = ("local", "ray")
"""What runs the workers."""

READERS = 8
"""Threads that read the ends of files in the output."""

GPUS = Path("/proc/driver/nvidia/gpus")
"""Where Linux lists NVIDIA's GPUs."""

MANIFEST = "manifest.json"
"""The list of the files of a batch, written at the end of each run."""


@dataclass(frozen=True)
class BatchOptions:
    """A batch.

    Attributes:
        input: a directory, a pattern, a list, Parquet files or tar files (``sources.list_units``).
        output: the directory of the results; a path or an address of fsspec.
        worker: how photos are segmented.
        column: the column of Parquet files.
        limit: use the first photos only.
        shards: number of files of the output; None: files of up to 1,000 photos.
        workers: number of worker processes; None: one per core of the CPU, or one per GPU.
        engine: one of ``ENGINES``.
        overwrite: delete the results of a batch with other settings instead of refusing to start.
        retry_failed: try inputs again that have an error from an earlier run.
        timeout: seconds without an answer after which a worker is replaced.
        command: starts a worker.
        recycle: photos after which a worker is replaced.
        stall: seconds without a finished shard after which Ray is started again.
        memory: bytes that Ray reserves for each worker.
        ray_address: of a Ray cluster; None: RAY_ADDRESS, else the one on this machine, else a new one.
    """

    input: str
    output: str
    worker: WorkerOptions
    column: str | None = None
    limit: int | None = None
    shards: int | None = None
    workers: int | None = None
    engine: str = "local"
    overwrite: bool = False
    retry_failed: bool = False
    timeout: float = TIMEOUT
    command: tuple[str, ...] = COMMAND
    recycle: int = RECYCLE
    stall: float = 3600.0
    memory: int = 1 << 30
    ray_address: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.engine not in ENGINES:
            raise SettingError(f"unknown engine {self.engine!r}: choose {' or '.join(ENGINES)}")
        if self.worker.masks not in MASKS:
            raise SettingError(f"unknown form of masks {self.worker.masks!r}: choose one of {', '.join(MASKS)}")
        for name in ("limit", "shards", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1, not {value}")

    def units(self) -> Iterator[dict[str, Any]]:
        """The work units of the input."""
        return list_units(self.input, column=self.column, limit=self.limit, shards=self.shards)

    def record(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Everything that the results depend on, as JSON values.

        Args:
            facts: what a worker says about its model.
        """
        place = self.input if is_address(self.input) else str(Path(self.input).expanduser().absolute())
        settings = {
            "version": VERSION,
            "input": place,
            "column": self.column,
            "limit": self.limit,
            "shards": self.shards,
            **facts,
            "mode": self.worker.mode,
            "things": self.worker.vocabulary.get("things"),
            "encoding": self.worker.encoding,
            **{name: self.worker.load[name] for name in ("proposer", "proxy") if self.worker.load.get(name)},
            "masks": self.worker.masks,
        }
        normal: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        return normal


@dataclass
class BatchResult:
    """What a run has done.

    Attributes:
        output: the directory.
        shards: number of files in the output.
        statistics: of all files, also those of earlier runs.
        finished_before: files of earlier runs.
        photos: inputs that this run has answered.
        seconds: time of this run, from the start of the first worker to the last file.
        restarts: workers that were replaced because they crashed or did not answer.
    """

    output: str
    shards: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    finished_before: int = 0
    photos: int = 0
    seconds: float = 0.0
    restarts: int = 0


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        inputs: inputs that are answered, also in earlier runs as far as known.
        total: their number; None: unknown until tar files are read.
        shards: finished shards.
        total_shards: their number.
    """

    inputs: int = 0
    total: int | None = None
    shards: int = 0
    total_shards: int = 0


def _resume(storage: Storage, content: bytes, settings: dict[str, Any], output: str) -> Plan:
    """The plan of a batch that was begun.

    Raises:
        ValueError: ``content``, its settings, is damaged.
        SettingError: it has other settings.
        DataError: the plan is missing or damaged.
    """
    before = json_of(content)
    if not isinstance(before, dict):
        raise ValueError("not a JSON object")
    check_same(before, settings, output)
    return read_plan(storage)


def begin(storage: Storage, options: BatchOptions, settings: dict[str, Any]) -> Plan:
    """The plan of a batch that was begun with the same settings, or of a new one.

    Raises:
        SettingError: the output has a batch with other settings.
    """
    content = storage.read(NAME)
    if content is not None:
        try:
            return _resume(storage, content, settings, options.output)
        except ValueError as error:  # also SettingError and DataError
            if not options.overwrite:
                if isinstance(error, DeopError):
                    raise
                raise DataError(f"{storage.address(NAME)} is damaged: add --overwrite to start again") from None
    leftovers = [name for name in storage.names() if number_of(name) is not None]
    if leftovers and content is None and not options.overwrite:
        raise SettingError(
            f"{options.output} has {len(leftovers)} files such as {leftovers[0]} of a batch whose settings are "
            "missing: choose another output, or add --overwrite to delete them"
        )
    units = options.units()
    storage.remove(NAME)  # first: until it is written again, the batch has not begun
    for name in [*leftovers, MANIFEST]:
        storage.remove(name)
    plan = write_plan(storage, units)
    storage.write(NAME, json.dumps(settings, indent=1).encode())
    return plan


class Tracker:
    """Counts rows and files, and reports them."""

    def __init__(
        self, plan: Plan, unfinished: np.ndarray, result: BatchResult, report: Callable[[Progress], None]
    ) -> None:
        self._lock = threading.Lock()
        self._report, self._result = report, result
        self.written: dict[int, Statistics] = {}
        self.restarts = 0
        done = len(plan) - len(unfinished)
        before = 0
        if plan.inputs is not None:
            before = plan.inputs - sum(plan.count(int(number)) or 0 for number in unfinished)
        self.progress = Progress(before, plan.inputs, done, len(plan))
        report(self.progress)

    def row(self, count: int = 1) -> None:
        """Count answered inputs."""
        with self._lock:
            self._result.photos += count
            self.progress.inputs += count
            self._report(self.progress)

    def kept(self, count: int = 1) -> None:
        """Count inputs of a shard that is written again whose answers are those of an earlier run."""
        with self._lock:
            self.progress.inputs += count
            self._report(self.progress)

    def shard(self, number: int, statistics: Statistics) -> None:
        """Count a finished file."""
        with self._lock:
            self.written[number] = statistics
            self.progress.shards += 1
            self._report(self.progress)


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as in CUDA_VISIBLE_DEVICES; found without a library, on Linux only."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip()]
    try:
        return [str(number) for number, _ in enumerate(GPUS.iterdir())]
    except OSError:
        return []


def worker_environment(options: "BatchOptions", number: int) -> dict[str, str] | None:
    """The environment variables of a worker: with ``device="cuda"``, workers take turns on the GPUs of the machine."""
    gpus = visible_gpus() if options.worker.load.get("device") == "cuda" else []
    if len(gpus) < 2:
        return None
    return {**os.environ, "CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}


def worker_count(options: BatchOptions) -> int:
    """The number of worker processes on this machine."""
    if options.workers is not None:
        return options.workers
    device = str(options.worker.load.get("device") or "cpu")
    if device.partition(":")[0] in ("cpu", "auto"):
        return _cores()
    return max(1, len(visible_gpus())) if device == "cuda" else 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_threads(options: BatchOptions, threads: int | None = None) -> WorkerOptions:
    """The options of a worker, with a number of threads: that of the options, else the given one, else its share."""
    worker = options.worker
    if worker.load.get("threads") is not None or worker.factory != WorkerOptions.factory:
        return worker
    chosen = threads or max(1, _cores() // worker_count(options))
    return replace(worker, load={**worker.load, "threads": chosen})


def to_run(storage: Storage, plan: Plan, options: BatchOptions) -> np.ndarray:
    """The numbers of the units that a run computes: those without a file, and those with failures to retry, (n,)."""
    unfinished = plan.unfinished()
    if not options.retry_failed:
        return unfinished
    finished = np.setdiff1d(np.arange(len(plan)), unfinished)
    with ThreadPoolExecutor(READERS, thread_name_prefix="deop-failures") as readers:
        failed = list(readers.map(lambda number: _numbers(storage, int(number)).failed > 0, finished))
    return np.union1d(unfinished, finished[np.array(failed, bool)])


def _numbers(storage: Storage, number: int) -> Statistics:
    return read_statistics(storage.address(part_name(number)))


def finish(
    storage: Storage, plan: Plan, settings: dict[str, Any], result: BatchResult, written: dict[int, Statistics]
) -> None:
    """Write the list of files, with the numbers of each, also of those that were written by earlier runs."""

    def numbers(number: int) -> Statistics:
        return written[number] if number in written else _numbers(storage, number)

    files = []
    with ThreadPoolExecutor(READERS, thread_name_prefix="deop-manifest") as readers:
        for number, statistics in enumerate(readers.map(numbers, range(len(plan)))):
            files.append({"file": part_name(number), **statistics.as_json()})
            result.statistics.add(statistics)
    content = {"settings": settings_hash(settings), **result.statistics.as_json(), "files": files}
    storage.write(MANIFEST, json.dumps(content, indent=1).encode())

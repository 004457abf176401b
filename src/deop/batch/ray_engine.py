"""Batches on Ray: actors of Ray Data run the same supervisors, and a process outside Ray watches over it.

What breaks in long runs of Ray Data decides the design:

- Its checkpoints read all inputs again and hold every id. Here it is given the numbers of unfinished shards only.
- ``max_errored_blocks=-1`` can hang for ever when an actor dies, and drops whole blocks. Here errors are rows, and
  Ray's setting stays 0: an error that reaches Ray ends the run, and the next one resumes.
- Tasks can vanish. Ray's driver is a child process; if no shard is finished for ``BatchOptions.stall`` seconds, it is
  ended and another one is started with the shards whose files are missing.
- Decoded photos fill the object store. Here paths are read in the workers, files are written by the actors, and Ray
  moves a few numbers per shard.
- Actors leak and exhaust small nodes. Here the model is in a child process of the actor, which is replaced from time to
  time, and each actor reserves ``BatchOptions.memory``.
"""

import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any

import numpy as np

from deop.batch.job import BatchOptions, Tracker, with_threads
from deop.batch.plan import Plan, read_plan
from deop.batch.shard import ShardWriter
from deop.batch.storage import Storage
from deop.batch.supervisor import Supervisor
from deop.batch.table import Statistics
from deop.dependencies import require
from deop.errors import DeopError

COMMAND = (sys.executable, "-m", "deop.batch", "ray")
ATTEMPTS = 3
"""Runs of Ray in a row that may end without a finished shard."""
STORE_BYTES = 256 << 20
"""Memory of Ray's object store, on a machine where this process starts Ray, and limit of what Ray Data keeps in it."""


class RayError(DeopError, RuntimeError):
    """Ray has failed, or does not go on."""


class UnitActor:
    """An actor: numbers of shards in, their statistics out.

    Args:
        options: the batch.
        columns: columns that all rows share.
    """

    def __init__(self, options: BatchOptions, columns: dict[str, str]) -> None:
        storage = Storage(options.output)
        self._statistics: dict[int, Statistics] = {}
        self._supervisor = Supervisor(
            with_threads(options, ray_threads(options)),
            timeout=options.timeout,
            command=options.command,
            recycle=options.recycle,
        )
        self._kept = 0
        self._writer = ShardWriter(
            storage,
            read_plan(storage),
            columns,
            on_shard=self._statistics.__setitem__,
            on_kept=self._count_kept,
            retry_failed=options.retry_failed,
        )

    def _count_kept(self) -> None:
        self._kept += 1

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Run the shards of a batch of numbers."""
        numbers = [int(number) for number in batch["unit"]]
        restarts, kept = self._supervisor.restarts, self._kept
        self._writer.run(self._supervisor, numbers)
        return {
            "unit": np.array(numbers),
            "statistics": np.array([pickle.dumps(self._statistics.pop(number)) for number in numbers], object),
            "restarts": np.array([self._supervisor.restarts - restarts] + [0] * (len(numbers) - 1)),
            "kept": np.array([self._kept - kept] + [0] * (len(numbers) - 1)),
        }


def ray_threads(options: BatchOptions) -> int:
    """Threads of a worker, and CPUs that its actor reserves."""
    return int(options.worker.load.get("threads") or 1)


def run_on_ray(
    options: BatchOptions,
    storage: Storage,
    plan: Plan,
    unfinished: np.ndarray,
    columns: dict[str, str],
    first: Supervisor,
    tracker: Tracker,
) -> None:
    """Run units in actors, and start Ray again where it fails or stands still.

    Raises:
        RayError: it has failed, or stood still, several times without a finished shard.
        DeopError: that of a worker.
    """
    require("deop batch --engine ray", "ray")
    failures = 0
    while len(unfinished):
        driver = _Driver(options, columns, unfinished)
        try:
            error, finished = driver.watch(storage, tracker)
        finally:
            driver.end()
        if isinstance(error, DeopError) and not isinstance(error, RayError):
            raise error
        missing = frozenset(plan.unfinished().tolist())
        left = np.array(
            [number for number in unfinished.tolist()
             if number not in tracker.written and (options.retry_failed or number in missing)], np.int64,
        )  # fmt: skip
        if error is None and not len(left):
            return
        failures = 0 if finished else failures + 1
        if failures >= ATTEMPTS:
            raise error or RayError("Ray ends without an error, and shards are missing: repeat the command")
        unfinished = left


class _Driver:
    """Ray's driver, in a process of its own."""

    def __init__(self, options: BatchOptions, columns: dict[str, str], unfinished: np.ndarray) -> None:
        self._stall = options.stall
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"RAY_BACKEND_LOG_LEVEL": "fatal", **os.environ},  # else Ray prints an advice for each pool of actors
            start_new_session=True,
        )
        self._messages: queue.Queue[tuple[Any, ...] | None] = queue.Queue()
        threading.Thread(target=self._collect, name="deop-ray", daemon=True).start()
        assert self._process.stdin is not None
        with suppress(OSError):
            pickle.dump((options, columns, unfinished), self._process.stdin)
            self._process.stdin.flush()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                self._messages.put(pickle.load(self._process.stdout))
            except Exception:  # the end, or a message that was cut by it
                self._messages.put(None)
                return

    def watch(self, storage: Storage, tracker: Tracker) -> tuple[Exception | None, int]:
        """Follow the run to its end: why it ended, None for success; and the number of finished shards."""
        finished = 0
        while True:
            try:
                message = self._messages.get(timeout=self._stall)
            except queue.Empty:
                return RayError(f"Ray has finished no shard for {self._stall:g} s: look at its dashboard"), finished
            if message is None:
                return RayError(f"Ray's driver ended with exit code {self._process.wait()}"), finished
            storage.check_lock()
            if message[0] == "shard":
                _, number, statistics, restarts, kept = message
                finished += 1
                tracker.restarts += restarts
                tracker.kept(kept)
                tracker.row(statistics.rows - kept)
                tracker.shard(number, statistics)
            elif message[0] == "failed":
                return message[1], finished
            else:
                return None, finished

    def end(self) -> None:
        """End the process; Ray then ends its actors, and these their workers."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def drive(options: BatchOptions, columns: dict[str, str], unfinished: np.ndarray, answers: IO[bytes]) -> None:
    """Run units on Ray, and write a message for each finished shard."""
    import ray

    _connect(options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray", "ray.data"):  # the command reports progress and errors itself
        logging.getLogger(name).setLevel(logging.ERROR)
    context.max_errored_blocks = 0
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=STORE_BYTES)
    threads = ray_threads(options)
    on_gpu = str(options.worker.load.get("device") or "").startswith("cuda")
    gpus = 1 if on_gpu else 0
    count = options.workers or _default_workers(threads, on_gpu)
    units = ray.data.from_items(
        [{"unit": int(number)} for number in unfinished], override_num_blocks=min(len(unfinished), 10_000)
    )
    results = units.map_batches(
        UnitActor,
        fn_constructor_args=(options, columns),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=max(1, min(count, len(unfinished)))),
        num_cpus=threads,
        num_gpus=gpus,
        memory=options.memory,
    )
    # Without prefetching, which holds each answer back until the next one.
    for batch in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        columns_of_answers = (batch[name].tolist() for name in ("unit", "statistics", "restarts", "kept"))
        for unit, statistics, restarts, kept in zip(*columns_of_answers, strict=True):
            pickle.dump(("shard", unit, pickle.loads(statistics), restarts, kept), answers)
        answers.flush()


def _connect(options: BatchOptions) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = options.ray_address or os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, **quiet)
        return
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:  # no cluster on this machine
        count = options.workers
        # One CPU more than workers, for Ray's own tasks.
        ray.init(
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            num_cpus=None if count is None else count * ray_threads(options) + 1,
            **quiet,
        )


def _default_workers(threads: int, on_gpu: bool) -> int:
    """As many workers as the cluster has GPUs; or CPUs, of which one is left for Ray's own tasks."""
    import ray

    resources = ray.cluster_resources()
    if on_gpu:
        return max(1, int(resources.get("GPU", 1)))
    return max(1, int(resources.get("CPU", 2) - 1) // threads)


def main() -> None:
    """Run Ray's driver: the job comes from stdin, messages go to stdout, and it ends when stdin is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    options, columns, unfinished = pickle.load(sys.stdin.buffer)

    def wait_for_parent() -> None:
        sys.stdin.buffer.read()
        time.sleep(0.1)
        _shut_down()
        os._exit(1)

    threading.Thread(target=wait_for_parent, name="deop-parent", daemon=True).start()
    try:
        drive(options, columns, unfinished, answers)
        message: tuple[Any, ...] = ("done",)
    except BaseException as error:
        message = ("failed", _cause(error))
    pickle.dump(message, answers)
    answers.flush()
    _shut_down()
    os._exit(0)


def _shut_down() -> None:
    with suppress(Exception):
        import ray

        ray.shutdown()


def _cause(error: BaseException) -> Exception:
    """The error of deop that Ray has wrapped, or a short text of another one."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, DeopError):
            with suppress(Exception):
                plain = type(current).__mro__
                kind = next(base for base in plain if base.__module__ == "deop.errors")
                return kind(str(current.args[0] if current.args else current))
        current = getattr(current, "cause", None) or current.__cause__
    lines = str(error).strip().splitlines()
    return RayError(f"Ray failed: {type(error).__name__}: {lines[-1] if lines else ''}")

"""Batches on one machine: worker processes, each with a thread that supervises it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deop.batch.job import BatchOptions, Tracker, with_threads, worker_count, worker_environment
from deop.batch.plan import Plan
from deop.batch.shard import ShardWriter
from deop.batch.storage import Storage
from deop.batch.supervisor import Stopped, Supervisor


def run_locally(
    options: BatchOptions,
    storage: Storage,
    plan: Plan,
    unfinished: np.ndarray,
    columns: dict[str, str],
    first: Supervisor,
    tracker: Tracker,
) -> None:
    """Run units in worker processes, each with a thread that supervises it."""
    numbers = iter(unfinished.tolist())
    lock = threading.Lock()

    def units() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    count = max(1, min(worker_count(options), len(unfinished)))
    others = [
        Supervisor(
            with_threads(options),
            timeout=options.timeout,
            command=options.command,
            recycle=options.recycle,
            environment=worker_environment(options, number),
        )
        for number in range(1, count)
    ]
    crew = [first, *others]
    writer = ShardWriter(
        storage,
        plan,
        columns,
        tracker.row,
        tracker.shard,
        on_kept=tracker.kept,
        retry_failed=options.retry_failed,
    )

    def work(supervisor: Supervisor) -> None:
        try:
            writer.run(supervisor, units())
        except BaseException:
            for one in crew:
                one.stopping.set()
            raise
        finally:
            supervisor.close()

    threads = ThreadPoolExecutor(count, thread_name_prefix="deop-worker")
    futures = [threads.submit(work, supervisor) for supervisor in crew]
    try:
        errors = [error for future in futures if (error := future.exception()) is not None]
    except BaseException:  # Ctrl-C
        for one in crew:
            one.stopping.set()
        raise
    finally:
        threads.shutdown(wait=True)
        tracker.restarts = sum(one.restarts for one in crew)
    for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
        raise error

"""``run_batch``: begins or resumes a batch, and runs it with one of the engines."""

import time
from collections.abc import Callable

from deop.batch.job import (
    BatchOptions,
    BatchResult,
    Progress,
    Tracker,
    begin,
    finish,
    to_run,
    with_threads,
    worker_environment,
)
from deop.batch.local_engine import run_locally
from deop.batch.settings import settings_hash
from deop.batch.storage import Storage
from deop.batch.supervisor import Supervisor
from deop.batch.table import arrow


def run_batch(options: BatchOptions, progress: Callable[[Progress], None] = lambda progress: None) -> BatchResult:
    """Run a batch, or resume it: shards whose files exist are not computed again.

    Args:
        options: the batch.
        progress: called from time to time; from several threads, one at a time.

    Raises:
        DeopError: naming the input, the output or the setting and the remedy. Finished shards are kept.
    """
    arrow()
    storage = Storage(options.output)
    storage.lock()
    first = Supervisor(
        with_threads(options),
        timeout=options.timeout,
        command=options.command,
        recycle=options.recycle,
        environment=worker_environment(options, 0),
    )
    try:
        facts = first.start()
        settings = options.record(facts)
        plan = begin(storage, options, settings)
        unfinished = to_run(storage, plan, options)
        result = BatchResult(options.output, len(plan), finished_before=len(plan) - len(unfinished))
        columns = {"model": str(facts["model"]), "settings": settings_hash(settings)}
        if options.engine == "ray":
            from deop.batch.ray_engine import run_on_ray

            first.close()
            run = run_on_ray
        else:
            run = run_locally
        tracker = Tracker(plan, unfinished, result, progress)
        started = time.monotonic()
        try:
            run(options, storage, plan, unfinished, columns, first, tracker)
        finally:
            result.seconds = time.monotonic() - started
            result.restarts = tracker.restarts
        finish(storage, plan, settings, result, tracker.written)
        return result
    finally:
        first.close()
        storage.unlock()

"""A worker in a process of its own, with a lower priority than the process that accepts requests.

The interpreter lock and the cores of the accepting process stay free, so that it answers at once however much the
workers compute; and a photo that crashes, blocks or exhausts a worker ends that worker alone.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deop.errors import DeopError
from deop.serving.work import Done, Work, Worker

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess


NICENESS = 5
"""Added to the niceness of a worker: a core that the accepting process needs is its own within a millisecond."""
_END_SECONDS = 2.0  # for a worker to end by itself
_OOM_SCORE = 500  # of 1000: where memory runs out, Linux ends a worker and not the process that accepts requests


class WorkerLost(Exception):
    """The process of a worker has ended, or takes too long.

    Args:
        has_begun: whether it may have begun the work, and ended because of it.
        exit_code: that of the process, negative for a signal; None: it was still running.
    """

    def __init__(self, *, has_begun: bool = True, exit_code: int | None = None) -> None:
        super().__init__()
        self.has_begun = has_begun
        self.exit_code = exit_code


class Lane(Protocol):
    """Runs the work of one worker, one batch at a time."""

    async def run(self, works: Sequence[Work]) -> Done:
        """The outcome of each work.

        Raises:
            WorkerLost: the worker has ended, or takes too long.
        """

    async def restart(self) -> None:
        """Start a worker in place of one that has ended."""

    def close(self) -> None:
        """End the worker."""


class ProcessLane:
    """A worker in a process, which is started at once.

    Args:
        build: creates the worker in the process; it must be picklable.
        seconds: a worker that computes for longer than this is ended, as its photo may block it for ever.
    """

    def __init__(self, build: Callable[[], Worker], seconds: float) -> None:
        self._build = build
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="deop-lane")
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads of ONNX Runtime and torch do not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(self._build, theirs), daemon=True, name="deop-worker")
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> dict[str, Any]:
        """Wait until the worker has loaded its model.

        Returns:
            ``Worker.describe()``.

        Raises:
            DeopError: the model cannot be loaded.
            WorkerLost: the process has ended.
        """
        assert self._connection is not None
        try:
            state = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerLost from None
        if isinstance(state, Exception):
            raise state
        return state

    def _exchange(self, works: Sequence[Work]) -> Any:
        assert self._connection is not None
        has_begun = False
        try:
            self._connection.send(list(works))
            has_begun = self._connection.recv()
            if not self._connection.poll(self._seconds):
                raise WorkerLost
            return self._connection.recv()
        except (EOFError, OSError):
            raise WorkerLost(has_begun=has_begun, exit_code=self._exit_code()) from None

    async def run(self, works: Sequence[Work]) -> Done:
        """As in ``Lane``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, works)

    async def restart(self) -> None:
        """As in ``Lane``. Repeated with a pause until a worker runs."""
        pause = 1.0
        while True:
            await asyncio.to_thread(self._end)
            self._start()
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self.wait_until_ready)
                return
            except (WorkerLost, DeopError):
                await asyncio.sleep(pause)
                pause = min(60.0, 2 * pause)

    def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        self._process.join(_END_SECONDS)  # its end of the connection is closed a little earlier
        return self._process.exitcode

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(_END_SECONDS)
            self._process.kill()
            self._process.join()

    def close(self) -> None:
        """As in ``Lane``."""
        self._end()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _yield_to_others() -> None:
    """Let the accepting process go first where cores or memory are scarce."""
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(NICENESS)
    with suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")


def _silence() -> None:
    """Discard what libraries print: it may contain what a client has sent, and a full pipe would stop the worker."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for handle in (1, 2):
        os.dup2(nowhere, handle)
    os.close(nowhere)


def _work(build: Callable[[], Worker], connection: Connection) -> None:
    """The life of a worker's process: it ends when the other end of the connection is closed."""
    _yield_to_others()
    # A terminal sends Ctrl-C, and systemd SIGTERM, to all processes; a worker ends when the server has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        worker = build()
    except DeopError as error:
        connection.send(error)
        return
    _silence()
    connection.send(worker.describe())
    while True:
        try:
            works = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(True)  # it has begun, so that its end may be the fault of a photo
        connection.send(worker.run(works))

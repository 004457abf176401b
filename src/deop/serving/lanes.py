"""A worker in a thread of this process, or in a process of its own."""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

from deop.errors import DeopError
from deop.serving.work import Done, Work, Worker

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess


class WorkerLost(Exception):
    """The process of a worker has ended."""


class Lane(Protocol):
    """Runs the work of one worker, one batch at a time."""

    async def run(self, works: Sequence[Work]) -> Done:
        """The outcome of each work.

        Raises:
            WorkerLost: the worker has ended.
        """

    async def restart(self) -> None:
        """Start a worker in place of one that has ended."""

    def close(self) -> None:
        """End the worker."""


class ThreadLane:
    """A worker in a thread.

    Args:
        worker: the worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="deop-worker")

    async def run(self, works: Sequence[Work]) -> Done:
        """As in ``Lane``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.run, works)

    async def restart(self) -> None:
        """A thread does not end by itself."""

    def close(self) -> None:
        """As in ``Lane``."""
        self._thread.shutdown(wait=True, cancel_futures=True)


class ProcessLane:
    """A worker in a process, which is started at once.

    Args:
        build: creates the worker in the process; it must be picklable.
    """

    def __init__(self, build: Callable[[], Worker]) -> None:
        self._build = build
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
        state = self._receive()
        if isinstance(state, Exception):
            raise state
        return state

    def _receive(self) -> Any:
        assert self._connection is not None
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise WorkerLost from None

    def _exchange(self, works: Sequence[Work]) -> Any:
        assert self._connection is not None
        try:
            self._connection.send(list(works))
        except (BrokenPipeError, OSError):
            raise WorkerLost from None
        return self._receive()

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

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(2)
            self._process.kill()
            self._process.join()

    def close(self) -> None:
        """As in ``Lane``."""
        self._end()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _work(build: Callable[[], Worker], connection: Connection) -> None:
    """The life of a worker's process: it ends when the other end of the connection is closed."""
    # A terminal sends Ctrl-C, and systemd SIGTERM, to all processes; a worker ends when the server has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        worker = build()
    except DeopError as error:
        connection.send(error)
        return
    connection.send(worker.describe())
    while True:
        try:
            works = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(worker.run(works))

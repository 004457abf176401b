"""One worker process and what it has been given: if it dies or hangs, only the photo that caused it has an error."""

import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deop.batch.items import Item
from deop.batch.table import error_row
from deop.batch.worker import READERS, WorkerOptions
from deop.errors import DeopError

COMMAND = (sys.executable, "-m", "deop.batch", "worker")
TIMEOUT = 300.0
"""Seconds without an answer after which a worker is ended."""
START_TIMEOUT = 1800.0
"""The same until a worker is ready: it may have to download a model."""
RECYCLE = 20_000
"""Photos after which a worker is replaced, which limits what leaks in libraries can cost."""
_POLL = 0.5  # seconds between checks of ``stop``


class WorkerError(DeopError, RuntimeError):
    """A worker process cannot be started, or does not keep to the protocol."""


@dataclass
class Pending:
    """An input that a worker has not answered.

    Attributes:
        unit: number of its work unit.
        place: its place in the unit.
        item: the input.
        begun: whether the worker has begun to read it.
    """

    unit: int
    place: int
    item: Item
    begun: bool = False


class Stopped(Exception):
    """The batch is being ended."""


class Supervisor:
    """Runs worker processes one after the other.

    Args:
        options: how photos are segmented.
        timeout: seconds without an answer after which the worker counts as hanging.
        command: starts the worker.
        recycle: photos after which the worker is replaced.
        environment: environment variables of the worker; None: those of this process.
    """

    def __init__(
        self,
        options: WorkerOptions,
        *,
        timeout: float = TIMEOUT,
        command: tuple[str, ...] = COMMAND,
        recycle: int = RECYCLE,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._options, self._timeout, self._command = options, timeout, command
        self._recycle, self._environment = recycle, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[tuple[Any, ...] | None] = queue.Queue()
        self._given, self._batch = 0, 1
        self.stopping = threading.Event()
        self.restarts = 0

    @property
    def window(self) -> int:
        """Photos that a worker has at a time: those that are computed, those that are next, and those being read."""
        return READERS + 2 * self._batch

    def start(self) -> dict[str, Any]:
        """Start a worker, unless there is one, and return what it says about its model.

        Raises:
            DeopError: that of the worker, if it cannot load the model.
            WorkerError: the process ends before it is ready, twice.
        """
        code: int | None = None
        for _ in range(2):
            self._answers = queue.Queue()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches the parent only, which ends the worker
            )
            threading.Thread(
                target=_collect, args=(self._process.stdout, self._answers), name="deop-answers", daemon=True
            ).start()
            self._commands: queue.Queue[Any] = queue.Queue()
            threading.Thread(
                target=_feed, args=(self._process.stdin, self._commands), name="deop-commands", daemon=True
            ).start()
            self._given = 0
            self._commands.put(self._options)
            answer = self._receive(START_TIMEOUT)
            if answer is not None and answer[0] == "ready":
                facts: dict[str, Any]
                _, facts, self._batch = answer
                return facts
            if answer is not None and answer[0] == "failed":
                self.close()
                raise answer[1]
            code = self._kill()
        raise WorkerError(
            f"a worker process ended (exit code {code}) while it loaded the model: check that the model fits in the "
            "memory of the machine, and try fewer --workers"
        )

    def run(self, inputs: Iterator[Pending], finish: Callable[[Pending, dict[str, Any]], None]) -> None:
        """Give inputs to workers until there are no more, and hand each answer over exactly once.

        Args:
            inputs: the inputs.
            finish: called with an input and its columns.
        """
        given: dict[int, Pending] = {}
        suspects: deque[Pending] = deque()  # begun when a worker died: tried again, each alone
        waiting: deque[Pending] = deque()  # given to that worker, but not begun
        number, ended, alone = 0, False, False
        while True:
            if self._process is None:
                self.start()
            if suspects:
                if not given:
                    alone = True
                    given[number] = suspects.popleft()
                    self._give(number, given[number])
                    number += 1
            elif not alone or not given:
                alone = False
                while (waiting or not ended) and len(given) < self.window and self._given < self._recycle:
                    entry = waiting.popleft() if waiting else next(inputs, None)
                    if entry is None:
                        ended = True
                    elif entry.item.error:
                        finish(entry, error_row(entry.item.error, entry.item.kind))
                    else:
                        given[number] = entry
                        self._give(number, entry)
                        number += 1
            if not given:
                if ended and not suspects and not waiting:
                    return
                if self._given >= self._recycle:
                    self.close()
                continue
            answer = self._receive(self._timeout)
            if answer is not None and answer[0] == "begun":
                given[answer[1]].begun = True
                continue
            if answer is not None and answer[0] == "row":
                finish(given.pop(answer[1]), answer[2])
                continue
            reason, kind = self._post_mortem(answer)
            self.restarts += 1
            if alone:
                (entry,) = given.values()
                text = f"{entry.item.path}: {reason}, in two attempts"
                finish(entry, error_row(text, kind))
            else:
                begun = [entry for entry in given.values() if entry.begun]
                suspects.extend(begun or given.values())
                waiting.extend(entry for entry in given.values() if begun and not entry.begun)
            given.clear()
            alone = False

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is None:
            return
        self._commands.put(None)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _give(self, number: int, entry: Pending) -> None:
        self._given += 1
        self._commands.put(("photo", number, entry.item.path, entry.item.data))

    def _receive(self, timeout: float) -> tuple[Any, ...] | None:
        """The next message; None if the worker has ended, ("timeout",) if there is none in time."""
        end = time.monotonic() + timeout
        while True:
            if self.stopping.is_set():
                raise Stopped
            try:
                return self._answers.get(timeout=min(_POLL, max(0.01, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    return ("timeout",)

    def _kill(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        with suppress(OSError):
            process.kill()
        self._commands.put(None)
        return process.wait()

    def _post_mortem(self, answer: tuple[Any, ...] | None) -> tuple[str, str]:
        """Why a worker is ended: for people, and the kind of error."""
        if answer is not None and answer[0] == "timeout":
            self._kill()
            return f"no answer within {self._timeout:g} s", "Timeout"
        process = self._process
        if process is not None:  # it is ending by itself, and its own exit code says why
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        code = self._kill()
        if code is not None and code < 0:
            return f"the worker process was ended by signal {-code}", "Crash"
        return f"the worker process ended with exit code {code}", "Crash"


def _feed(stream: Any, commands: "queue.Queue[Any]") -> None:
    """Send messages to a worker, in a thread, since a worker that hangs does not read them."""
    with suppress(OSError), stream:  # a worker that has died: the missing answer shows it
        while (message := commands.get()) is not None:
            pickle.dump(message, stream, pickle.HIGHEST_PROTOCOL)
            stream.flush()


def _collect(stream: Any, answers: "queue.Queue[tuple[Any, ...] | None]") -> None:
    """Read the messages of a worker until it ends."""
    with stream:
        while True:
            try:
                answers.put(pickle.load(stream))
            except Exception:  # the end, or a message that was cut by it
                answers.put(None)
                return

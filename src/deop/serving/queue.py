"""Requests wait here for a worker: bounded, batched, cancelled without a trace, and retried if a worker ends."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil

from deop.serving.encoded_photos import unknown_photo
from deop.serving.lanes import Lane, WorkerLost
from deop.serving.limits import Limits
from deop.serving.metrics import Metrics
from deop.serving.problems import Problem, exceeds
from deop.serving.request_log import RequestLog
from deop.serving.work import Done, Outcome, Work

_MEMORY = 0.9  # of the running mean of seconds per request


@dataclass(eq=False)
class _Waiting:
    work: Work
    outcome: "asyncio.Future[Outcome]"
    is_retried: bool = False
    since: float = field(default_factory=time.monotonic)


class WorkQueue:
    """Distributes work to lanes.

    Args:
        lanes: the workers.
        limits: how many requests are accepted, and how long each may take.
        metrics: what is counted.
        log: where lost workers are logged.
        batch: photos that a worker encodes together.
        batch_seconds: how long a worker waits for further photos, if it could encode more together.
    """

    def __init__(
        self,
        lanes: list[Lane],
        limits: Limits,
        metrics: Metrics,
        log: RequestLog,
        *,
        batch: int = 1,
        batch_seconds: float = 0.005,
    ) -> None:
        self._lanes = lanes
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._batch = batch
        self._batch_seconds = batch_seconds
        self._shared: deque[_Waiting] = deque()
        self._own: list[deque[_Waiting]] = [deque() for _ in lanes]
        self._turns = [False] * len(lanes)  # whether the turn before was that of own work
        self._is_up = [True] * len(lanes)
        self._changed: asyncio.Condition | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._places = 0
        self._seconds = 0.2  # mean of a request, a guess until the first one
        self.closing = False

    async def start(self) -> None:
        """Begin to work."""
        self._changed = asyncio.Condition()
        self._tasks = [asyncio.create_task(self._serve(index)) for index in range(len(self._lanes))]
        self._tasks.append(asyncio.create_task(self._expire()))

    async def stop(self) -> None:
        """End the workers. Requests that were accepted have been answered before."""
        self.closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes:
            await asyncio.to_thread(lane.close)

    @property
    def ready(self) -> bool:
        """Whether requests are accepted, and a worker runs."""
        return (
            bool(self._tasks) and not self.closing and any(self._is_up) and not any(task.done() for task in self._tasks)
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for requests, before the body is received; it is free again at the end.

        Raises:
            Problem: 429 if there is none, or if the answer would take longer than it may; 503 if the server ends.
        """
        if self.closing:
            raise Problem(503, "the server is being stopped: try again later", retry_after=5)
        if self._places >= self._limits.requests:
            what = f"{self._places:,} requests are being answered"
            raise exceeds(429, "requests", self._limits.requests, what, retry_after=self._retry_after())
        needed = self._seconds * (self._places / len(self._lanes) + 1)  # those before it, and its own
        if self._places >= len(self._lanes) and needed > self._limits.seconds:
            what = f"the answer would take about {needed:.0f} seconds"
            raise exceeds(429, "seconds", self._limits.seconds, what, retry_after=self._retry_after())
        self._places += 1
        self._metrics.in_progress.set(self._places)
        try:
            yield
        finally:
            self._places -= 1
            self._metrics.in_progress.set(self._places)

    def _retry_after(self) -> int:
        return max(1, min(20, ceil(self._seconds * self._places / len(self._lanes) / 4)))

    async def run(self, work: Work, lane: int | None = None) -> Outcome:
        """The outcome of a work. If the caller is cancelled while it waits, it leaves the queue.

        Args:
            work: what to do.
            lane: index of the worker that must do it; None: any.

        Raises:
            Problem: 503 if it takes longer than the limit, or its worker has ended.
        """
        assert self._changed is not None
        waiting = _Waiting(work, asyncio.get_running_loop().create_future())
        line = self._shared if lane is None else self._own[lane]
        line.append(waiting)
        self._count()
        async with self._changed:
            self._changed.notify_all()
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await waiting.outcome
        except TimeoutError:
            what = f"the answer takes longer than {self._limits.seconds:g} seconds"
            raise exceeds(503, "seconds", self._limits.seconds, what, retry_after=self._retry_after()) from None
        finally:
            if waiting in line:
                line.remove(waiting)
                self._count()

    async def _expire(self) -> None:
        """Let idle workers forget photos that were not used for too long."""
        assert self._changed is not None
        while True:
            await asyncio.sleep(min(30.0, self._limits.cache_seconds / 4))
            for own in self._own:
                own.append(_Waiting(Work("forget"), asyncio.get_running_loop().create_future()))
            async with self._changed:
                self._changed.notify_all()

    def _count(self) -> None:
        self._metrics.waiting.set(len(self._shared) + sum(map(len, self._own)))

    async def _serve(self, index: int) -> None:
        lane = self._lanes[index]
        while True:
            batch = await self._next(index)
            now = time.monotonic()
            for waiting in batch:
                self._metrics.wait_seconds.observe(now - waiting.since)
            self._metrics.batch_size.observe(len(batch))
            try:
                done: Done = await lane.run([waiting.work for waiting in batch])
            except WorkerLost as lost:
                self._metrics.workers_lost.inc()
                self._log.write("worker lost", "error", worker=index, requests=len(batch), exit_code=lost.exit_code)
                self._is_up[index] = False
                await self._retry(batch, suspect=lost.has_begun)
                await lane.restart()
                self._is_up[index] = True
                continue
            self._metrics.cache(index, done.photos, done.bytes)
            seconds = (time.monotonic() - now) / len(batch)
            self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * seconds
            for waiting, outcome in zip(batch, done.outcomes, strict=True):
                _finish(waiting, outcome)

    async def _retry(self, batch: list[_Waiting], *, suspect: bool) -> None:
        """Give what a lost worker had to others.

        Args:
            batch: what it had.
            suspect: whether one of them may be why it ended. Each is then computed alone, and for the last time.
        """
        assert self._changed is not None
        for waiting in batch:
            if waiting.outcome.done():  # answered with 503, or cancelled
                continue
            if waiting.work.id or waiting.work.kind == "forget":
                _finish(waiting, unknown_photo())  # it was in the memory of the worker
            elif waiting.is_retried:
                _finish(waiting, _harmful())
            else:
                waiting.is_retried = suspect
                self._shared.appendleft(waiting)
        async with self._changed:
            self._changed.notify_all()

    async def _next(self, index: int) -> list[_Waiting]:
        """The next work of a lane. Work that only this lane can do is quick, and has every second turn."""
        assert self._changed is not None
        own = self._own[index]
        async with self._changed:
            await self._changed.wait_for(lambda: own or self._shared)
        if own and not (self._shared and self._turns[index]):
            self._turns[index] = True
            batch = [own.popleft()]
        else:
            self._turns[index] = False
            if len(self._shared) < self._batch and self._batch > 1:
                await asyncio.sleep(self._batch_seconds)
            batch = self._take()
            if not batch:  # cancelled, or taken by another lane
                return await self._next(index)
        self._count()
        return batch

    def _take(self) -> list[_Waiting]:
        """Up to a batch of work for any lane; what is retried comes alone."""
        batch: list[_Waiting] = []
        while self._shared and len(batch) < self._batch and not (batch and self._shared[0].is_retried):
            batch.append(self._shared.popleft())
            if batch[-1].is_retried:
                break
        return batch


def _harmful() -> Problem:
    return Problem(
        422,
        "two workers have ended while they processed this photo, which may be damaged or need too much memory: convert "
        "it to JPEG or make it smaller",
    )


def _finish(waiting: _Waiting, outcome: Outcome) -> None:
    if not waiting.outcome.done():
        waiting.outcome.set_result(outcome)


def lane_of(key: str, lanes: int) -> int | None:
    """The worker that keeps a photo, from its id; None for an id that no worker has given.

    >>> lane_of("1-abc", 2), lane_of("abc", 2), lane_of("7-abc", 2)
    (1, None, None)
    """
    prefix, separator, _ = key.partition("-")
    if not separator or not (prefix.isascii() and prefix.isdecimal() and len(prefix) < 5):
        return None
    return int(prefix) if int(prefix) < lanes else None


def prefix_of(lane: int) -> str:
    """The start of the ids of a worker's photos, as ``lane_of`` reads it."""
    return f"{lane}-"

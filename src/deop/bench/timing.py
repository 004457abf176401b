"""Timing: cases that alternate within one process, and the stages of a model as it runs."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

Case = Callable[[], object]
"""What is timed: a function without arguments."""


@dataclass(frozen=True)
class Times:
    """The durations of one case.

    Attributes:
        seconds: one duration per repeat, in order.
    """

    seconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The 95th percentile by the nearest-rank method; with fewer than 20 repeats the maximum."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, -(-len(ordered) * 95 // 100) - 1)]

    @property
    def minimum(self) -> float:
        """The shortest duration."""
        return min(self.seconds)


_observer: ContextVar[Callable[[str], None]] = ContextVar("observer", default=lambda text: None)


@contextmanager
def observed(observer: Callable[[str], None]) -> Iterator[None]:
    """Call ``observer`` with what is measured now, whenever that changes inside this block."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def report(text: str) -> None:
    """Say what is measured now."""
    _observer.get()(text)


def time_alternately(
    cases: Mapping[str, Case], repeats: int, device: torch.device, *, warm_up: int = 1
) -> dict[str, Times]:
    """Time each case ``repeats`` times, in alternating order, so that noise affects all cases alike.

    Args:
        cases: what to time, by name.
        repeats: timed runs per case.
        device: device to synchronize with before and after each run.
        warm_up: untimed runs per case before those.

    Returns:
        The durations of each case.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for turn in range(warm_up + repeats):
        for name in order if turn % 2 == 0 else reversed(order):
            report(f"{name}, run {turn + 1} of {warm_up + repeats}")
            synchronize(device)
            started = time.perf_counter()
            cases[name]()
            synchronize(device)
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


Function = tuple[Any, str]
"""A module or class, and the name of a function in it."""


@contextmanager
def time_stages(stages: Mapping[str, Sequence[Function]], device: torch.device) -> Iterator[dict[str, float]]:
    """Measure how long functions run inside this block, by wrapping them.

    The time of a wrapped function that is called by another wrapped function counts for its own stage only.

    Args:
        stages: the functions of each stage.
        device: device to synchronize with at the start and the end of each call.

    Yields:
        Seconds per stage; they grow while the block runs.

    Raises:
        AttributeError: a function that does not exist.
    """
    seconds = dict.fromkeys(stages, 0.0)
    running: list[str] = []
    last = 0.0

    def switch() -> None:
        """Add the time since the last switch to the stage that was running."""
        nonlocal last
        synchronize(device)
        now = time.perf_counter()
        if running:
            seconds[running[-1]] += now - last
        last = now

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            switch()
            running.append(stage)
            try:
                return function(*arguments, **options)
            finally:
                switch()
                running.pop()

        return call

    functions = [(owner, name, getattr(owner, name), stage) for stage, pairs in stages.items() for owner, name in pairs]
    try:
        for owner, name, function, stage in functions:
            setattr(owner, name, timed(stage, function))
        yield seconds
    finally:
        for owner, name, function, _ in functions:
            setattr(owner, name, function)

"""Times that can be compared: subjects take turns in one process, so that what disturbs one disturbs all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Subject = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """How long a subject took, time after time; all in seconds.

    Attributes:
        seconds: each of its turns, in order.
    """

    seconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The value that 95 % of the turns stay below, by the nearest rank; with fewer than 20 turns the slowest."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, -(-len(ordered) * 95 // 100) - 1)]

    @property
    def least(self) -> float:
        """The quickest turn."""
        return min(self.seconds)


def take_turns(subjects: Mapping[str, Subject], repeats: int, device: torch.device, warm: int = 1) -> dict[str, Times]:
    """Time each subject ``repeats`` times, one after the other in turn, forwards and backwards.

    Args:
        subjects: by name.
        repeats: turns that count, of each.
        device: waited for before and after each turn.
        warm: turns before, which do not count.

    Returns:
        The times of each.
    """
    found: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    for turn in range(warm + repeats):
        for name in order if turn % 2 == 0 else reversed(order):
            wait_for(device)
            started = time.perf_counter()
            subjects[name]()
            wait_for(device)
            if turn >= warm:
                found[name].append(time.perf_counter() - started)
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Stopwatch:
    """Laps of one turn: what each stage of it took.

    Args:
        device: waited for at the end of each lap.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str, value: Any = None) -> Any:
        """End a lap; gives ``value`` back, so that it can stand around an expression."""
        wait_for(self.device)
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
        return value

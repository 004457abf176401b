"""Timing with CUDA events, CUDA graphs, waits of the host, and kernels."""

import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import deop
from deop.bench.timing import Case

PACKAGE = Path(deop.__file__).parent


@dataclass
class TimeLimit:
    """The time that the benchmark may take.

    Attributes:
        seconds: total time.
        started: start, from ``time.monotonic``.
    """

    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float:
        """Seconds until the end."""
        return self.seconds - self.elapsed


def median_seconds(
    cases: Mapping[str, Case], device: torch.device, repeats: int = 30, seconds: float = 1.5, warm_up: int = 2
) -> dict[str, float]:
    """Median duration of each case. The cases alternate, in both orders, so that noise affects all alike.

    Args:
        cases: what to time, by name.
        device: device to time on. On a GPU, durations are between CUDA events before and after a call.
        repeats: timed runs per case; fewer when ``seconds`` have passed, but at least three.
        seconds: approximate time for all runs together.
        warm_up: untimed runs per case before those.
    """
    durations: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    end = time.monotonic() + seconds
    turn = 0
    while turn < warm_up + 3 or (turn < warm_up + repeats and time.monotonic() < end):
        for name in order if turn % 2 == 0 else reversed(order):
            duration = _duration(cases[name], device)
            if turn >= warm_up:
                durations[name].append(duration)
        turn += 1
    return {name: statistics.median(values) for name, values in durations.items()}


def _duration(case: Case, device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        case()
        return time.perf_counter() - started
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    before.record()
    case()
    after.record()
    torch.cuda.synchronize(device)
    return before.elapsed_time(after) / 1000


class Graph:
    """A function captured once as a CUDA graph, which each call replays; without a GPU, the function itself.

    Args:
        function: works on tensors of fixed shape at fixed addresses, and never waits for the device.
        device: device of the tensors.
    """

    @torch.inference_mode()
    def __init__(self, function: Case, device: torch.device) -> None:
        self.function, self.graph, self.output = function, None, None
        if device.type != "cuda":
            return
        # A capture requires that kernels have been chosen and constants created before, on another stream.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function()

    @torch.inference_mode()
    def __call__(self) -> Any:
        """The output, which the next call overwrites."""
        if self.graph is None:
            return self.function()
        self.graph.replay()
        return self.output


def find_waits(function: Case, device: torch.device) -> list[dict[str, Any]]:
    """The lines at which one call waits for the device, and how often; the most frequent first.

    A wait outside the package is attributed to the innermost line of the package that leads to it.
    """
    if device.type != "cuda":
        return []
    lines: Counter[str] = Counter()

    def record(message: Warning | str, *_: Any, **__: Any) -> None:
        if "called a synchronizing" not in str(message):
            return
        frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
        inside = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
        frame = (inside or frames)[-1]
        lines[f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}: {frame.line}"] += 1

    function()
    torch.cuda.synchronize(device)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = record
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [{"line": line, "count": count} for line, count in lines.most_common()]


def profile_kernels(function: Case, device: torch.device, limit: int = 14) -> dict[str, Any]:
    """Driver calls of one call of ``function``, and the ``limit`` kernels that take the most time."""
    from torch.profiler import ProfilerActivity, profile, record_function

    function()
    if device.type != "cuda":
        return {}
    label = "profiled call"
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        with record_function(label):
            function()
        torch.cuda.synchronize(device)
    events = list(profiler.events())
    span = next(event.time_range for event in events if event.name == label)
    driver_calls = Counter(
        event.name
        for event in events
        if event.name.startswith("cuda") and span.start <= event.time_range.start <= span.end
    )
    kernels = [
        event
        for event in profiler.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA and event.key != label  # its span is no kernel
    ]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in kernels) or 1
    return {
        "driver_calls": dict(driver_calls),
        "kernels": [
            {
                "kernel": event.key[:110],
                "count": event.count,
                "ms": event.self_device_time_total / 1000,
                "share": event.self_device_time_total / total,
            }
            for event in kernels[:limit]
        ],
    }

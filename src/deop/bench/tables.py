"""The results of a bench: measurements with times and ratios, as tables and as JSON."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from deop._version import __version__
from deop.bench.timing import Times


@dataclass(frozen=True)
class Goal:
    """The value that a figure should reach.

    Attributes:
        figure: key in the row's figures.
        bound: the value.
        higher_is_better: True: the figure should be at least ``bound``; False: at most.
    """

    figure: str
    bound: float
    higher_is_better: bool = True

    def is_met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return value >= self.bound if self.higher_is_better else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.higher_is_better else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One case, or two cases that are compared.

    Attributes:
        label: description of the case.
        times: its durations; None if the row has figures only.
        against: name and durations of the case that it is compared with.
        figures: other numbers by name, such as ratios, shares or MiB.
        goal: goal for one of the figures.
    """

    label: str
    times: Times | None = None
    against: tuple[str, Times] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.goal is None else self.goal.is_met(self.figures[self.goal.figure])

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object; times in seconds."""
        entries: dict[str, Any] = {"label": self.label}
        for prefix, times in (("", self.times), ("against_", self.against[1] if self.against else None)):
            if times is not None:
                entries |= {f"{prefix}p50": times.p50, f"{prefix}p95": times.p95, f"{prefix}least": times.minimum}
                entries[f"{prefix}turns"] = len(times.seconds)
        if self.against:
            entries["against"] = self.against[0]
        entries |= self.figures
        if self.goal:
            entries |= {"goal": {self.goal.figure: str(self.goal)}, "met": self.met}
        return entries


@dataclass(frozen=True)
class Measurement:
    """The rows of one topic.

    Attributes:
        key: the topic, as on the command line.
        title: title of the table.
        rows: the results.
        note: how to read them.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    note: str = ""


def compare(label: str, ours: Times, theirs: Times, name: str, goal: float | None = None, **figures: float) -> Row:
    """A row with the ratio of two medians: how many times as long the other case takes.

    Args:
        label: description of our case.
        ours: its durations.
        theirs: durations of the other case.
        name: name of the other case.
        goal: minimum ratio.
        figures: other figures of the row.
    """
    ratio_goal = None if goal is None else Goal("ratio", goal)
    return Row(label, ours, (name, theirs), {"ratio": theirs.p50 / ours.p50, **figures}, ratio_goal)


def show(measurement: Measurement, console: Console) -> None:
    """Print a measurement as a table."""
    rows = measurement.rows
    table = Table(title=measurement.title, title_justify="left", title_style="bold", box=None, pad_edge=False,
                  header_style="dim", padding=(0, 2, 0, 0))  # fmt: skip
    has_times = any(row.times for row in rows)
    has_others = any(row.against for row in rows)
    has_goals = any(row.goal for row in rows)
    figures = list(dict.fromkeys(key for row in rows for key in row.figures))
    table.add_column("", no_wrap=True)
    headings = (("median", "95 %") if has_times else ()) + (("of the other", "95 %") if has_others else ())
    for heading in (*headings, *figures):
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    if has_goals:
        table.add_column("goal", no_wrap=True)
    for row in rows:
        cells = [row.label]
        if has_times:
            cells += [_seconds(row.times.p50), _seconds(row.times.p95)] if row.times else ["", ""]
        if has_others:
            cells += [_seconds(row.against[1].p50), _seconds(row.against[1].p95)] if row.against else ["", ""]
        cells += [_number(key, row.figures[key]) if key in row.figures else "" for key in figures]
        if has_goals:
            cells.append(f"{row.goal} {'met' if row.met else '[red]missed[/red]'}" if row.goal else "")
        table.add_row(*cells)
    console.print(table)
    if measurement.note:
        console.print(measurement.note, style="dim", highlight=False)
    console.print()


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms" if value >= 1e-3 else f"{1e6 * value:.0f} µs"


def _number(key: str, value: float) -> str:
    if key.endswith("MiB"):
        return f"{value:,.0f}"
    if key.startswith("share"):
        return f"{100 * value:.0f} %"
    return f"{value:.2f} x" if "ratio" in key else f"{value:,.4g}"


def environment(device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """The hardware, software and settings of this run."""
    packages = ("torch", "transformers", "numpy", "pillow")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "device_type": device.type,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "seed": seed,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"deop": __version__, **{name: version(name) for name in packages}},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory() -> float:
    """Peak resident memory of this process in MiB; 0 where the system does not report it."""
    try:
        # Not getrusage on Linux: there a new process inherits the peak of its parent.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def as_json(measurements: Iterable[Measurement], environment: dict[str, Any]) -> str:
    """All measurements and their environment as one line of JSON."""
    parts = {item.key: {"title": item.title, "rows": [row.to_json() for row in item.rows]} for item in measurements}
    return json.dumps({**environment, "peak_memory_MiB": round(peak_memory(), 1), "parts": parts})

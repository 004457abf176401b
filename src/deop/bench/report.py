"""What a bench found: rows with times and ratios, as a table and as JSON."""

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

from deop.bench.timing import Times


@dataclass(frozen=True)
class Goal:
    """What a figure should reach.

    Attributes:
        figure: key in the row's figures.
        bound: the value.
        least: whether it is the least that is good; else the most.
    """

    figure: str
    bound: float
    least: bool = True

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One comparison, or one thing measured.

    Attributes:
        label: what, in words.
        times: of it; None where it is no time.
        against: what it is compared with, and its times.
        figures: further numbers by name: ratios, shares, MiB.
        goal: of one of the figures.
    """

    label: str
    times: Times | None = None
    against: tuple[str, Times] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return None if self.goal is None else self.goal.met(self.figures[self.goal.figure])

    def entries(self) -> dict[str, Any]:
        """The row as JSON has it; times in seconds."""
        found: dict[str, Any] = {"label": self.label}
        for prefix, times in (("", self.times), ("against_", self.against[1] if self.against else None)):
            if times is not None:
                found |= {f"{prefix}p50": times.p50, f"{prefix}p95": times.p95, f"{prefix}least": times.least}
                found[f"{prefix}turns"] = len(times.seconds)
        if self.against:
            found["against"] = self.against[0]
        found |= self.figures
        if self.goal:
            found |= {"goal": {self.goal.figure: str(self.goal)}, "met": self.met}
        return found


@dataclass(frozen=True)
class Part:
    """Rows that belong together.

    Attributes:
        key: what people ask for it by.
        title: what it answers.
        rows: what was found.
        note: how to read it.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    note: str = ""


def faster(label: str, ours: Times, theirs: Times, name: str, least: float | None = None, **figures: float) -> Row:
    """A row that says how many times as long another takes, by medians."""
    goal = None if least is None else Goal("ratio", least)
    return Row(label, ours, (name, theirs), {"ratio": theirs.p50 / ours.p50, **figures}, goal)


def show(part: Part, console: Console) -> None:
    """Print a part as a table."""
    table = Table(title=part.title, title_justify="left", title_style="bold", box=None, pad_edge=False,
                  header_style="dim", padding=(0, 2, 0, 0))  # fmt: skip
    others = any(row.against for row in part.rows)
    keys = list(dict.fromkeys(key for row in part.rows for key in row.figures))
    goals = any(row.goal for row in part.rows)
    table.add_column("", no_wrap=True)
    timed = any(row.times for row in part.rows)
    for heading in (("median", "95 %") if timed else ()) + (("of the other", "95 %") if others else ()) + tuple(keys):
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    if goals:
        table.add_column("goal", no_wrap=True)
    for row in part.rows:
        cells = [row.label]
        if timed:
            cells += [_seconds(row.times.p50), _seconds(row.times.p95)] if row.times else ["", ""]
        if others:
            cells += [_seconds(row.against[1].p50), _seconds(row.against[1].p95)] if row.against else ["", ""]
        cells += [_number(key, row.figures[key]) if key in row.figures else "" for key in keys]
        if goals:
            cells.append(f"{row.goal} {'met' if row.met else '[red]missed[/red]'}" if row.goal else "")
        table.add_row(*cells)
    console.print(table)
    if part.note:
        console.print(part.note, style="dim", highlight=False)
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
    """What the numbers were made on."""
    packages = ("deop", "torch", "transformers", "numpy", "pillow")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "device_type": device.type,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "seed": seed,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory() -> float:
    """Most memory that this process has held, MiB; 0 where the system does not tell."""
    try:
        # Not getrusage where this is there: on Linux a new process starts with the peak of the one that made it.
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


def as_json(parts: Iterable[Part], made_on: dict[str, Any]) -> str:
    """Everything in one line."""
    found = {part.key: {"title": part.title, "rows": [row.entries() for row in part.rows]} for part in parts}
    return json.dumps({**made_on, "peak_memory_MiB": round(peak_memory(), 1), "parts": found})

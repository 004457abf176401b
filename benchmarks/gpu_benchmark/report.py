"""The report of a run: JSON, written after each row, and tables."""

import gc
import json
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from deop.bench.tables import environment
from gpu_benchmark.timing import TimeLimit

Row = dict[str, Any]


class Report:
    """The results of a run.

    Args:
        path: the JSON file.
        limit: the time that the run may take.
        environment: hardware, software and settings, from ``gpu_environment``.
    """

    def __init__(self, path: Path, limit: TimeLimit, environment: dict[str, Any]) -> None:
        self.path, self.limit, self._lock = path, limit, threading.Lock()
        self.results: dict[str, Any] = {"environment": environment, "goals": [], "parts": {}, "skipped": []}

    def run_part(self, key: str, title: str, measure: Callable[[], Iterable[Row]], required: float) -> None:
        """Run a part if ``required`` seconds remain, and print its table; an error does not stop the other parts."""
        if self.limit.remaining < required:
            self.results["skipped"].append(key)
            print(
                f"-- {key}: skipped: {self.limit.remaining:.0f} s remain, and it takes {required:.0f} s\n", flush=True
            )
            self.save()
            return
        rows: list[Row] = []
        part: dict[str, Any] = {"title": title, "rows": rows}
        self.results["parts"][key] = part
        start = self.limit.elapsed
        try:
            for row in measure():
                rows.append(row)
                self.save()
        except Exception as error:
            part["error"] = f"{type(error).__name__}: {error}"
            part["trace"] = traceback.format_exc().splitlines()[-12:]
        gc.collect()  # each CUDA graph holds memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        part["seconds"] = round(self.limit.elapsed - start, 1)
        self.save()
        print(f"-- {key}: {title} ({part['seconds']} s, {self.limit.remaining:.0f} s remain)")
        print(as_table(rows))
        if "error" in part:
            print("\n".join(["FAILED " + part["error"], *part["trace"]]))
        print(flush=True)

    def set_goal(self, name: str, value: float | None, bound: float, *, minimum: bool, source: str = "") -> None:
        """Record whether a figure reaches its goal.

        Args:
            name: the goal.
            value: the figure; None: not measured.
            bound: the bound of the figure.
            minimum: whether ``bound`` is a minimum; otherwise it is a maximum.
            source: which case gave the figure.
        """
        reached = None if value is None else bool(value >= bound if minimum else value <= bound)
        self.results["goals"] = [goal for goal in self.results["goals"] if goal["goal"] != name]
        self.results["goals"].append(
            {"goal": name, "bound": bound, "minimum": minimum, "value": value, "reached": reached, "source": source}
        )

    def save(self) -> None:
        """Write the results so far."""
        with self._lock:  # the thread that ends the run saves too
            self.results["seconds"] = round(self.limit.elapsed, 1)
            partial = self.path.with_name(self.path.name + ".part")
            partial.write_text(json.dumps(self.results, indent=1, default=str) + "\n", encoding="utf-8")
            partial.replace(self.path)

    def print_interrupted(self) -> None:
        """Print the rows of a part that was still running at the end."""
        for key, part in self.results["parts"].items():
            if "seconds" not in part:
                part["error"] = "not finished: the time limit was reached"
                print(f"-- {key}: {part['title']} (NOT FINISHED)\n{as_table(list(part['rows']))}\n")

    def print_goals(self) -> None:
        """Print one line per goal."""
        words = {True: "REACHED", False: "MISSED", None: "NOT MEASURED"}
        for goal in self.results["goals"]:
            value = "" if goal["value"] is None else f"{goal['value']:.4g}, "
            source = f"  ({goal['source']})" if goal["source"] else ""
            bound = f"{'at least' if goal['minimum'] else 'at most'} {goal['bound']:g}"
            print(f"{words[goal['reached']]:<12}  {goal['goal']}: {value}{bound}{source}")


def as_table(rows: list[Row]) -> str:
    """Rows as aligned columns; values that are lists or dicts follow below."""
    scalars = [{key: value for key, value in row.items() if not isinstance(value, list | dict)} for row in rows]
    keys = list(dict.fromkeys(key for row in scalars for key in row))
    cells = [keys, *([_text(row.get(key, "")) for key in keys] for row in scalars)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(keys))]
    lines = [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    for row in rows:
        for key, value in row.items():
            if isinstance(value, list):
                lines += [f"  {' '.join(_text(entry) for entry in item.values())}" for item in value]
            elif isinstance(value, dict):
                lines.append(f"  {key}: " + ", ".join(f"{name} {_text(entry)}" for name, entry in value.items()))
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def gpu_environment(device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """Date, hardware, software and settings of this run."""
    values = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), **environment(device, dtype, seed)}
    if device.type == "cuda":
        values["cuda"] = torch.version.cuda
        values["cudnn"] = torch.backends.cudnn.version()
        values["memory_GiB"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
        key = "driver, clocks, power limit"
        try:
            result = subprocess.run(query, capture_output=True, encoding="utf-8", timeout=20, check=True)
            values[key] = result.stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            values[key] = f"unknown: {error}"
    return values

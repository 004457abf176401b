"""Memory, open files and threads of a process and all that it has started, over time (Linux)."""

import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_PAGE = 4096


@dataclass(frozen=True)
class Sample:
    """The state of some processes at one moment.

    Attributes:
        seconds: since the watch began.
        done: how much was done, as the watcher counts it.
        megabytes: resident memory of all processes together; pages that they share count for each.
        files: open files of all of them.
        threads: threads of all of them.
        processes: their number.
    """

    seconds: float
    done: int
    megabytes: float
    files: int
    threads: int
    processes: int


def tree_of(process: int) -> list[int]:
    """A process and all that it has started; without those that have ended."""
    found = [process]
    for number in found:
        try:
            files = list(Path(f"/proc/{number}/task").glob("*/children"))
            found += [int(child) for file in files for child in file.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found


def sample(process: int, seconds: float, done: int) -> Sample:
    """The state of a process and all that it has started."""
    pages = files = threads = processes = 0
    for number in tree_of(process):
        place = Path(f"/proc/{number}")
        try:
            resident = int((place / "statm").read_text(encoding="ascii").split()[1])
            opened = len(list((place / "fd").iterdir()))
            started = len(list((place / "task").iterdir()))
        except (OSError, IndexError):  # it has ended
            continue
        pages, files, threads, processes = pages + resident, files + opened, threads + started, processes + 1
    return Sample(round(seconds, 1), done, round(pages * _PAGE / 1e6, 1), files, threads, processes)


@dataclass
class Watch:
    """Samples of a process, taken in a thread.

    Args:
        process: its number.
        every: seconds between samples.

    Attributes:
        done: how much was done; set by whoever does it.
        samples: what was seen.
    """

    process: int
    every: float = 2.0
    done: int = 0
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> "Watch":
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        begin = time.monotonic()
        while not self._end.is_set():
            seen = sample(self.process, time.monotonic() - begin, self.done)
            if seen.processes:
                self.samples.append(seen)
            self._end.wait(self.every)


def growth(samples: list[Sample], *, per: str, unit: float) -> dict[str, Any]:
    """Whether memory, open files and threads are flat.

    The first quarter is left out: allocators and caches fill in it. The slope is that of the line with the smallest
    squared error through the rest; "change" compares the medians of the second and of the last quarter.

    Args:
        samples: at least four.
        per: what the slope is for, "seconds" or "done".
        unit: how many of them.
    """
    quarter = max(1, len(samples) // 4)
    settled = samples[quarter:]
    report: dict[str, Any] = {}
    for name in ("megabytes", "files", "threads"):
        values = np.array([getattr(entry, name) for entry in settled], float)
        places = np.array([getattr(entry, per) for entry in settled], float)
        slope = float(np.polyfit(places, values, 1)[0]) * unit if np.ptp(places) else 0.0
        change = float(np.median(values[-quarter:]) - np.median(values[:quarter]))
        report[name] = {
            "first": getattr(samples[0], name),
            "second_quarter": float(np.median(values[:quarter])),
            "last_quarter": float(np.median(values[-quarter:])),
            "most": max(getattr(entry, name) for entry in samples),
            "change": round(change, 1),
            "slope": round(slope, 2),
        }
    return report


def thinned(samples: list[Sample], count: int = 40) -> list[dict[str, Any]]:
    """Some of the samples, evenly spaced, as JSON values."""
    if not samples:
        return []
    chosen = np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int))
    return [asdict(samples[number]) for number in chosen.tolist()]

"""Progress of a run: a progress bar on a terminal, a line every 30 seconds elsewhere, and TensorBoard logs."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from deop.errors import MissingDependencyError

_SECONDS_BETWEEN_LINES = 30.0  # where stderr is not a terminal


class Reporter:
    """Shows and logs the progress of one run.

    Args:
        folder: where TensorBoard's files are written.
        steps: number of steps of the run.
        writes: False: write neither files nor lines, as in all processes but the first.
        shown: False: write files only.
    """

    def __init__(self, folder: Path, steps: int, writes: bool = True, shown: bool = True) -> None:
        self.folder, self.steps, self.writes, self.shown = folder, steps, writes, shown and writes
        self.writer: Any = None
        self.bar: Any = None
        self.task: Any = None
        self.last_line = 0.0

    def open(self, step: int) -> None:
        """Start logging after ``step``. Later entries, which an interrupted run left in the files, are dropped.

        Raises:
            MissingDependencyError: TensorBoard is not installed.
        """
        if not self.writes:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError('training writes logs with tensorboard: pip install "deop[train]"') from error
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        if not self.shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task("", total=1.0, completed=step / self.steps, step=step)

    def log(
        self, step: int, values: Mapping[str, float], seconds: float | None = None, done: float | None = None
    ) -> None:
        """Log the values of a step.

        Args:
            step: the step, counted from 1.
            values: scalars by name; with ``done`` they include "loss" and "rate".
            seconds: time since the run started; None: the values are of a validation.
            done: fraction of the run that is complete, in (0, 1]; None: the values are of a validation.
        """
        if not self.writes:
            return
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        if seconds is None or done is None:
            self.say(f"step {step}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
            return
        line = f"loss {values['loss']:.4g}  rate {values['rate']:.2g}"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, description=line, step=step)
        elif step in (1, self.steps) or time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES:
            left = seconds * (1 - done) / done
            self.say(f"step {step} of {self.steps}  {line}  {max(left, 0) / 60:.1f} min left")
            self.last_line = time.monotonic()

    def say(self, message: str) -> None:
        """Print a line on stderr."""
        if self.shown and self.bar is not None:
            self.bar.console.print(message, markup=False, highlight=False)
        elif self.shown:
            print(message, file=sys.stderr, flush=True)

    def __enter__(self) -> "Reporter":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.writer is not None:
            self.writer.close()

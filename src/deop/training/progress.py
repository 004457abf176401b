"""How a run is doing: one line on a terminal, a line now and then elsewhere, and TensorBoard's files."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from deop.errors import MissingDependencyError

_QUIET_SECONDS = 30.0
"""From one line to the next where there is no terminal."""


class Reporter:
    """Progress of one run.

    Args:
        folder: of TensorBoard's files.
        steps: of the run.
        writes: False: neither files nor lines, as in all processes but the first.
        shown: False: files only.
    """

    def __init__(self, folder: Path, steps: int, writes: bool = True, shown: bool = True) -> None:
        self.folder, self.steps, self.writes, self.shown = folder, steps, writes, shown and writes
        self.writer: Any = None
        self.bar: Any = None
        self.task: Any = None
        self.last_said = 0.0

    def open(self, step: int) -> None:
        """Begin after a step; what the files say of later ones, of a run that was interrupted, is passed over.

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
        """Values of a step; with the losses the ``seconds`` since the run began and the share of it that is done."""
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
        elif step in (1, self.steps) or time.monotonic() - self.last_said > _QUIET_SECONDS:
            left = seconds * (1 - done) / done
            self.say(f"step {step} of {self.steps}  {line}  {max(left, 0) / 60:.1f} min left")
            self.last_said = time.monotonic()

    def say(self, message: str) -> None:
        """A line of its own, on stderr."""
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

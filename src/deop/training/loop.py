"""The training loop, which all training in deop uses.

A step depends on the weights, the optimizer's state, the seed and its own number, and on nothing else: its number
decides which samples it gets, and random states are set from seed, step and process. A run that was interrupted
anywhere therefore resumes with exactly the same result as an uninterrupted run.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deop.errors import SettingError, TrainingError
from deop.training import checkpoint as checkpoints
from deop.training.batches import micro_batches
from deop.training.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from deop.training.loss_monitor import LossMonitor
from deop.training.process import accelerator_for, deterministic, seed_everything, stop_signals
from deop.training.progress import Reporter
from deop.training.recipe import differences, plain, write_recipe
from deop.training.task import LoopSettings, Task
from deop.training.weights import TrainedWeights

_MAY_DIFFER = ("workers", "save_every", "keep", "log_every", "deterministic")
_CHECK_EVERY = 10  # steps between checks that all values are finite: a check waits for the device


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: contains ``model/``, ``log/`` (TensorBoard) and ``checkpoints/``.
        steps: total number of steps taken.
        best: best value of the validation score ``LoopSettings.best``, or None.
    """

    folder: Path
    steps: int
    best: float | None = None

    @property
    def model(self) -> Path:
        """Folder of the trained model, as ``Task.export`` wrote it."""
        return self.folder / "model"


def fit(
    task: Task,
    settings: LoopSettings,
    out: Path | str,
    *,
    recipe: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Run:
    """Train a task, in all processes of ``accelerate launch`` or else in this one.

    Args:
        task: what is trained.
        settings: settings of the loop.
        out: folder of the run.
        recipe: further settings of the run, as JSON values. They are saved as ``recipe.yaml`` together with
            ``settings``, and a run resumes only with the same ones.
        resume: continue from the last complete checkpoint, if there is one.
        device: "cpu" trains on the CPU; None: on a GPU if there is one.
        progress: show progress on stderr.

    Returns:
        The finished run.

    Raises:
        SettingError: a batch size that cannot be divided among the processes, a folder that already contains a run, or
            validations of a task that has none.
        TrainingError: a loss is not finite, or a checkpoint cannot be written or does not match the recipe.
        KeyboardInterrupt: SIGINT or SIGTERM was received; a checkpoint has been saved.
    """
    return _Fit(task, settings, Path(out), recipe or {}, device, progress).run(resume)


class _Fit:
    """The state of one run."""

    def __init__(
        self,
        task: Task,
        settings: LoopSettings,
        out: Path,
        recipe: Mapping[str, Any],
        device: str | None,
        progress: bool,
    ) -> None:
        self.task, self.settings, self.out = task, settings, out
        self.recipe = {"loop": plain(settings), **recipe}
        self.checkpoint_folder = out / "checkpoints"
        if settings.validate_every and type(task).validate is Task.validate:
            raise SettingError(f"{type(task).__name__} has no validation: set validate_every to 0")
        self.accelerator = accelerator_for(settings, device, task.skips_parameters)
        self.distributed = self.accelerator.num_processes > 1
        parts = settings.accumulate * self.accelerator.num_processes
        if settings.batch % parts:
            raise SettingError(
                f"a batch of {settings.batch} cannot be divided into {settings.accumulate} parts for each of "
                f"{self.accelerator.num_processes} processes: make it a multiple of {parts}"
            )
        groups = task.groups()
        task.to(self.accelerator.device)
        self.weights = TrainedWeights(task, groups, settings.ema)
        parameters = self.weights.parameters
        self.rates = [group.rate for group in groups]
        self.optimizer = settings.optimizer.build(
            [
                {"params": [parameters[name] for name in group.names], "lr": group.rate, "weight_decay": group.decay}
                for group in groups
            ],
            self.accelerator.device,
        )
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.monitor = LossMonitor(self.accelerator)
        main = self.accelerator.is_main_process
        self.reporter = Reporter(out / "log", settings.iterations, writes=main, shown=progress)
        self.step, self.since_best, self.saved_step = 0, 0, -1
        self.best: float | None = None
        self.started = time.monotonic()

    def run(self, resume: bool) -> Run:
        self._open(resume)
        module, optimizer = self.accelerator.prepare(self.task, self.optimizer)
        with deterministic(self.settings.deterministic), stop_signals() as signals, self.reporter:
            try:
                batches = micro_batches(self.task.batches, self.settings, self.accelerator, self.step)
                self.task.train()
                while self._continues() and (done := self._done()) < 1:
                    self._one_step(module, optimizer, batches, done)
                    if self.step % self.settings.log_every == 0 or self.step == 1:
                        self._log()
                    self._validate()
                    stop = self._in_any_process(bool(signals))
                    if stop or (self.settings.save_every and self.step % self.settings.save_every == 0):
                        self._save()
                    if stop:
                        self.reporter.say(f"stopped after step {self.step}; continue with --resume")
                        raise KeyboardInterrupt
                if self.settings.save_every and self.saved_step != self.step:
                    self._save()
                self._check_finite()
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"the device is out of memory at step {self.step}: set accumulate to {2 * self.settings.accumulate}"
                    " or more, which gives the same result with less memory, or use a smaller batch"
                ) from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            with self.weights.used_by_task(), torch.no_grad():
                self.task.eval()
                self.task.export(self.out / "model")
        self.accelerator.wait_for_everyone()
        return Run(self.out, self.step, self.best)

    def _open(self, resume: bool) -> None:
        """Start from step 0, or from the last complete checkpoint."""
        last = checkpoints.latest(self.checkpoint_folder)
        if last is not None and not resume:
            raise SettingError(
                f"{self.out} already contains a run of {last.step} steps: continue it with --resume, or choose another "
                "folder"
            )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoints.clear_leftovers(self.checkpoint_folder)
        seconds = 0.0
        if last is not None:
            seconds = self._restore(last)
            self.reporter.say(f"resuming after step {self.step}")
        if self.accelerator.is_main_process:
            write_recipe(self.recipe, self.out / "recipe.yaml")
        self.reporter.open(self.step)
        self.started = time.monotonic() - seconds

    def _restore(self, last: Checkpoint) -> float:
        """Load a checkpoint; returns the seconds that the run has taken so far."""
        if changes := differences(last.entry("recipe", dict), self.recipe, _MAY_DIFFER):
            raise TrainingError(
                f"{last.folder} was saved with another recipe: {'; '.join(changes)}. Resume with the same recipe, or "
                "start a new run in another folder"
            )
        seconds = float(last.entry("seconds", int, float))
        best = last.entry("best", int, float, type(None))
        since_best = last.entry("since_best", int)
        scaler = last.entry("scaler", dict)
        self.weights.restore(last)
        restore_optimizer(self.optimizer, self.names, last.with_prefix("optimizer."))
        self.step = self.saved_step = last.step
        self.best, self.since_best = best, since_best
        if self.accelerator.scaler is not None and scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        return seconds

    def _continues(self) -> bool:
        """Whether steps are left and validations still improve often enough."""
        patience = self.settings.patience
        return self.step < self.settings.iterations and not (patience and self.since_best >= patience)

    def _done(self) -> float:
        """The fraction of the run that is complete; all processes use the clock of the first."""
        share = self.step / self.settings.iterations
        if self.settings.seconds:
            timed = torch.tensor(
                (time.monotonic() - self.started) / self.settings.seconds, device=self.accelerator.device
            )
            if self.distributed:
                torch.distributed.broadcast(timed, 0)
            share = max(share, float(timed))
        return share

    def _one_step(self, module: nn.Module, optimizer: Any, batches: Iterator[Any], done: float) -> None:
        from accelerate.utils import send_to_device

        settings = self.settings
        share = settings.schedule.share(self.step, done)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        for part in range(settings.accumulate):
            batch = send_to_device(next(batches), self.accelerator.device, non_blocking=True)
            seed_everything(settings.seed, self.step, part, self.accelerator.process_index, 1)
            with self.accelerator.accumulate(module):
                losses = module(batch)
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
                self.accelerator.backward(total)
                norm = None
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(
                        self.weights.parameters.values(), settings.clip or float("inf")
                    )
                self.monitor.check(self.step, total, norm)
                optimizer.step()
                optimizer.zero_grad()
            self.monitor.add({**losses, "loss": total}, settings.accumulate)
            if norm is not None:
                self.monitor.add({"norm": norm}, 1)
        self.weights.update_average(self.step)
        self.step += 1
        self.monitor.steps += 1
        if self.step % _CHECK_EVERY == 0 or self.step == 1:
            self._check_finite()

    def _check_finite(self) -> None:
        """Stop the run if a loss or gradient was not finite. No checkpoint is saved after such a step."""
        bad = self.monitor.first_bad_step()
        if bad is None:
            return
        last = checkpoints.latest(self.checkpoint_folder)
        where = "no checkpoint has been saved yet" if last is None else f"the last good weights are in {last.folder}"
        raise TrainingError(
            f"a loss or gradient is not finite at step {bad + 1} ({', '.join(self.monitor.culprits()) or 'gradient'}); "
            f"{where}. Try a smaller learning rate, gradient clipping (clip), or precision=no"
        )

    def _log(self) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        means = self.monitor.means()
        self.reporter.log(self.step, {**means, "rate": rate}, time.monotonic() - self.started, self._done())

    def _validate(self) -> None:
        """Validate if this step is due for it, and remember the best weights."""
        every, settings = self.settings.validate_every, self.settings
        if not every or (self.step % every and self.step < settings.iterations):
            return
        self._check_finite()
        scores: list[Any] = [None]
        if self.accelerator.is_main_process:
            with self.weights.used_by_task(best=False), torch.no_grad():
                self.task.eval()
                scores = [self.task.validate()]
            self.reporter.log(self.step, {f"validation/{key}": value for key, value in scores[0].items()})
        self.task.train()
        if self.distributed:
            torch.distributed.broadcast_object_list(scores, 0)
        if not settings.best:
            return
        if settings.best not in scores[0]:
            raise SettingError(
                f"best={settings.best} is not a validation score: choose one of {', '.join(scores[0]) or '(none)'}"
            )
        value = float(scores[0][settings.best])
        self.since_best += 1
        if not math.isnan(value) and (self.best is None or value > self.best):
            self.best, self.since_best = value, 0
            self.weights.keep_as_best()

    def _save(self) -> None:
        self._check_finite()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = optimizer_tensors(self.optimizer, self.names)
            tensors = self.weights.tensors() | {f"optimizer.{key}": value for key, value in state.items()}
            entries = {
                "seconds": time.monotonic() - self.started,
                "best": self.best,
                "since_best": self.since_best,
                "scaler": scaler.state_dict() if scaler is not None else {},
                "recipe": self.recipe,
            }
            checkpoints.save(Checkpoint(self.step, tensors, entries), self.checkpoint_folder, self.settings.keep)
        self.saved_step = self.step
        self.accelerator.wait_for_everyone()

    def _in_any_process(self, flag: bool) -> bool:
        """Whether any process has set the flag; several processes only compare it every few steps."""
        if not self.distributed:
            return flag
        if self.step % _CHECK_EVERY:
            return False
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum") > 0)

"""The loop: every model of deop that learns, learns here.

A step is a function of the weights, the optimiser's state, the seed and its own number, and of nothing that was done
before: which samples it sees follows from its number, and random states are set anew from seed, number and process. So
a run that was interrupted anywhere goes on exactly as if it had not been.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deop.errors import SettingError, TrainingError
from deop.training import checkpoint as checkpoints
from deop.training.batches import batches_from
from deop.training.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from deop.training.process import accelerator_for, deterministic, seed_everything, stop_signals
from deop.training.progress import Reporter
from deop.training.recipe import differing, plain, write_recipe
from deop.training.task import LoopSettings, Task

_MAY_DIFFER = ("workers", "save_every", "keep", "log_every", "deterministic")
_CHECK_EVERY = 10  # steps from one look at whether all is finite to the next: looking waits for the device


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: with ``model/``, ``log/`` (TensorBoard) and ``checkpoints/``.
        steps: taken in all.
        best: the best value of what validation followed, or None.
    """

    folder: Path
    steps: int
    best: float | None = None

    @property
    def model(self) -> Path:
        """What was learned, as ``Task.export`` wrote it."""
        return self.folder / "model"


def fit(
    task: Task,
    settings: LoopSettings,
    out: Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Run:
    """Train.

    Under ``accelerate launch`` it trains in all processes of it; otherwise in this one.

    Args:
        task: what learns.
        settings: for how long.
        out: folder of the run.
        recipe: what the run is made of, in JSON's types, beside ``settings``: kept as ``recipe.yaml``, and going on
            with another is refused.
        resume: go on from the last whole checkpoint, if any.
        device: "cpu" keeps off a GPU that is there; None: the one that is there.
        progress: show it on stderr.

    Returns:
        What came of it.

    Raises:
        SettingError: a batch that the processes cannot share, or a folder that holds a run already.
        TrainingError: a loss that is not finite, a checkpoint that cannot be written or does not fit.
        KeyboardInterrupt: asked to stop, after a checkpoint was written.
    """
    return _Fit(task, settings, Path(out), recipe or {}, device, progress).run(resume)


class _Fit:
    """One run: what its steps share."""

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
        self.places = out / "checkpoints"
        self.accelerator = accelerator_for(settings, device, task.skips_parameters)
        world = self.accelerator.num_processes
        if settings.batch % (settings.accumulate * world):
            raise SettingError(
                f"a batch of {settings.batch} cannot be shared by {world} processes in {settings.accumulate} parts "
                f"each: make it a multiple of {settings.accumulate * world}"
            )
        groups = task.groups()
        own = dict(task.named_parameters())
        self.trained = {name: own[name] for group in groups for name in group.names}
        for name, parameter in own.items():
            parameter.requires_grad_(name in self.trained)
        task.to(self.accelerator.device)
        self.rates = [group.rate for group in groups]
        values = [
            {"params": [own[name] for name in group.names], "lr": group.rate, "weight_decay": group.decay}
            for group in groups
        ]
        self.optimizer = settings.optimizer.build(values, self.accelerator.device)
        self.names = {id(parameter): name for name, parameter in self.trained.items()}
        self.average = [p.detach().clone() for p in self.trained.values()] if settings.ema else None
        self.step, self.spent, self.since_best = 0, 0.0, 0
        self.saved = -1
        self.best: float | None = None
        self.best_weights: dict[str, Tensor] = {}
        main = self.accelerator.is_main_process
        self.reporter = Reporter(out / "log", settings.iterations, writes=main, shown=progress)
        self.sums: dict[str, Tensor] = {}
        self.counted = 0  # steps in the sums
        self.lost: list[str] = []  # what was not finite when it was logged
        self.first_bad = torch.full((), -1, dtype=torch.long, device=self.accelerator.device)
        self.begun = time.monotonic()

    def run(self, resume: bool) -> Run:
        self._open(resume)
        module, optimizer = self.accelerator.prepare(self.task, self.optimizer)
        with deterministic(self.settings.deterministic), stop_signals() as stop, self.reporter:
            try:
                batches = batches_from(self.task.batches, self.settings, self.accelerator, self.step)
                self.task.train()
                while self.step < self.settings.iterations and not self._is_over() and (done := self._done()) < 1:
                    self._one_step(module, optimizer, batches, done)
                    if self.step % self.settings.log_every == 0 or self.step == 1:
                        self._log()
                    self._validate()
                    asked = self._anyone(bool(stop))
                    if asked or (self.settings.save_every and self.step % self.settings.save_every == 0):
                        self._save()
                    if asked:
                        self.reporter.say(f"stopped after step {self.step}; go on with --resume")
                        raise KeyboardInterrupt
                if self.settings.save_every and self.saved != self.step:
                    self._save()
                self._check_finite()
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"the device is out of memory at step {self.step}: set accumulate to {2 * self.settings.accumulate}"
                    " or more, which changes nothing but the memory needed, or make the batch smaller"
                ) from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            with self._weights_to_use(), torch.no_grad():
                self.task.eval()
                self.task.export(self.out / "model")
        self.accelerator.wait_for_everyone()
        return Run(self.out, self.step, self.best)

    def _open(self, resume: bool) -> None:
        """Begin anew, or where the last whole checkpoint is."""
        if not resume and (found := checkpoints.latest(self.places)) is not None:
            raise SettingError(
                f"{self.out} holds a run already, of {found.step} steps: go on with --resume, or choose another folder"
            )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoints.clear_leftovers(self.places)
        found = checkpoints.latest(self.places) if resume else None
        if found is not None:
            self._restore(found)
            self.reporter.say(f"going on after step {self.step}")
        if self.accelerator.is_main_process:
            write_recipe(self.recipe, self.out / "recipe.yaml")
        self.reporter.open(self.step)
        self.begun = time.monotonic() - self.spent

    def _restore(self, found: Checkpoint) -> None:
        if other := differing(found.entries["recipe"], self.recipe, _MAY_DIFFER):
            raise TrainingError(
                f"{found.folder} is of another recipe: {'; '.join(other)}. Go on with the same, or begin anew in "
                "another folder"
            )
        own = {**self.trained, **self._buffers()}
        weights = found.below("weights.")
        if weights.keys() != own.keys() or any(weights[key].shape != own[key].shape for key in own):
            raise TrainingError(f"the weights of {found.folder} are not those that this recipe trains")
        with torch.no_grad():
            for key, value in weights.items():
                own[key].copy_(value)
            for name, kept in zip(self.trained, self.average or [], strict=False):
                kept.copy_(found.tensors[f"average.{name}"])
        restore_optimizer(self.optimizer, self.names, found.below("optimizer."))
        self.step = self.saved = found.step
        self.spent = float(found.entries["seconds"])
        self.best, self.since_best = found.entries["best"], int(found.entries["since_best"])
        device = self.accelerator.device
        self.best_weights = {key: value.to(device) for key, value in found.below("best.").items()}
        if self.accelerator.scaler is not None and found.entries["scaler"]:
            self.accelerator.scaler.load_state_dict(found.entries["scaler"])

    def _done(self) -> float:
        """Share of the run that is done; the first process's clock counts."""
        share = self.step / self.settings.iterations
        if self.settings.seconds:
            timed = torch.tensor(
                (time.monotonic() - self.begun) / self.settings.seconds, device=self.accelerator.device
            )
            if self.accelerator.num_processes > 1:
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
                    norm = self.accelerator.clip_grad_norm_(self.trained.values(), settings.clip or float("inf"))
                bad = ~total.detach().isfinite()
                if norm is not None and self.accelerator.scaler is None:  # a scaler skips such a step by itself
                    bad = bad | ~norm.isfinite()
                self.first_bad = torch.where(bad & (self.first_bad < 0), self.step, self.first_bad)
                optimizer.step()
                optimizer.zero_grad()
            self._count({**losses, "loss": total}, settings.accumulate)
            if norm is not None:
                self._count({"norm": norm}, 1)
        if self.average is not None:
            keep = min(settings.ema, (self.step + 1) / (self.step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.trained.values()), 1 - keep)
        self.step += 1
        self.counted += 1
        if self.step % _CHECK_EVERY == 0 or self.step == 1:
            self._check_finite()

    def _count(self, values: Mapping[str, Tensor], parts: int) -> None:
        for key, value in values.items():
            before = self.sums.get(key)
            value = value.detach().float() / parts
            self.sums[key] = value if before is None else before + value

    def _check_finite(self) -> None:
        """End the run where weights or losses were lost; nothing is saved after that."""
        bad = self.accelerator.reduce(self.first_bad + 1, "max") - 1 if self._several else self.first_bad
        if int(bad) < 0:
            return
        lost = self.lost or sorted(key for key, value in self.sums.items() if not bool(value.isfinite()))
        whole = checkpoints.latest(self.places)
        last = "no checkpoint was written yet" if whole is None else f"the last good weights are in {whole.folder}"
        raise TrainingError(
            f"a loss or gradient is not finite any more at step {int(bad) + 1} ({', '.join(lost) or 'gradient'}); "
            f"{last}. A smaller learning rate, clip, or precision=no may help"
        )

    def _log(self) -> None:
        keys = sorted(self.sums)
        values = torch.stack([self.sums[key] for key in keys]) / self.counted
        values = self.accelerator.reduce(values, "mean") if self._several else values
        found = dict(zip(keys, values.tolist(), strict=True))
        self.lost = self.lost or [key for key, value in found.items() if not np.isfinite(value)]
        rate = self.optimizer.param_groups[0]["lr"]
        self.reporter.log(self.step, {**found, "rate": rate}, time.monotonic() - self.begun, self._done())
        self.sums, self.counted = {}, 0

    def _is_over(self) -> bool:
        return bool(self.settings.patience) and self.since_best >= self.settings.patience

    def _validate(self) -> None:
        """Measure where it is time to."""
        every, settings = self.settings.validate_every, self.settings
        if not every or (self.step % every and self.step < settings.iterations):
            return
        self._check_finite()
        numbers: list[Any] = [None]
        if self.accelerator.is_main_process:
            with self._weights_to_use(best=False), torch.no_grad():
                self.task.eval()
                numbers = [self.task.validate()]
            self.reporter.log(self.step, {f"validation/{key}": value for key, value in numbers[0].items()})
        self.task.train()
        if self._several:
            torch.distributed.broadcast_object_list(numbers, 0)
        if not settings.best:
            return
        if settings.best not in numbers[0]:
            raise SettingError(
                f"best={settings.best} is not among what validation measures: {', '.join(numbers[0]) or 'nothing'}"
            )
        value = float(numbers[0][settings.best])
        self.since_best += 1
        if self.best is None or value > self.best:
            self.best, self.since_best = value, 0
            used = self.average if self.average is not None else list(self.trained.values())
            self.best_weights = {name: v.detach().clone() for name, v in zip(self.trained, used, strict=True)}

    def _save(self) -> None:
        self._check_finite()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            tensors = {f"weights.{key}": value for key, value in {**self.trained, **self._buffers()}.items()}
            tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer, self.names).items()}
            tensors |= {f"average.{k}": v for k, v in zip(self.trained, self.average or [], strict=False)}
            tensors |= {f"best.{key}": value for key, value in self.best_weights.items()}
            entries = {
                "seconds": time.monotonic() - self.begun,
                "best": self.best,
                "since_best": self.since_best,
                "scaler": scaler.state_dict() if scaler is not None else {},
                "recipe": self.recipe,
            }
            checkpoints.save(Checkpoint(self.step, tensors, entries), self.places, self.settings.keep)
        self.saved = self.step
        self.accelerator.wait_for_everyone()

    def _buffers(self) -> dict[str, Tensor]:
        """Buffers that training may change: those beside parameters that learn."""
        learning = {name.rpartition(".")[0] for name in self.trained}
        return {name: value for name, value in self.task.named_buffers() if name.rpartition(".")[0] in learning}

    @contextmanager
    def _weights_to_use(self, best: bool = True) -> Iterator[None]:
        """The best weights, or their moving average, in the place of the last ones."""
        used: Iterable[Tensor] | None = self.average
        if best and self.best_weights:
            used = [self.best_weights[name] for name in self.trained]
        if used is None:
            yield
            return
        last = [parameter.detach().clone() for parameter in self.trained.values()]
        _copy(self.trained.values(), used)
        try:
            yield
        finally:
            _copy(self.trained.values(), last)

    @property
    def _several(self) -> bool:
        return self.accelerator.num_processes > 1

    def _anyone(self, flag: bool) -> bool:
        """Whether any process has the flag; several of them talk about it now and then only."""
        if not self._several:
            return flag
        if self.step % _CHECK_EVERY:
            return False
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum") > 0)


def _copy(to: Iterable[Tensor], source: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for place, value in zip(to, source, strict=True):
            place.copy_(value)

"""The description of a run: its loop settings, and the task that is trained."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deop.errors import SettingError
from deop.training.schedules import Schedule

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Optimizer:
    """The optimizer. Learning rates and weight decays belong to the parameter groups.

    Attributes:
        kind: "adamw" or "sgd".
        betas: betas of AdamW, each in [0, 1).
        momentum: momentum of SGD, in [0, 1).

    Raises:
        SettingError: an unknown kind, or a value out of range.
    """

    kind: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise SettingError(f"unknown optimizer {self.kind!r}: choose one of {', '.join(OPTIMIZERS)}")
        object.__setattr__(self, "betas", tuple(self.betas))
        if len(self.betas) != 2 or not all(0 <= value < 1 for value in (*self.betas, self.momentum)):
            raise SettingError(
                f"the optimizer's betas are {self.betas} and its momentum is {self.momentum}: expected two betas and a "
                "momentum in [0, 1)"
            )

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """The torch optimizer for groups with ``params``, ``lr`` and ``weight_decay``."""
        if self.kind == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum)
        return torch.optim.AdamW(groups, betas=self.betas, fused=device.type == "cuda")


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the training loop.

    Attributes:
        iterations: number of optimizer steps.
        batch: samples per step, over all processes together.
        accumulate: number of micro-batches into which each process divides its share of a batch, to save memory.
        seed: seed of all random choices, 0 or more.
        clip: maximum norm of all gradients together; 0: no limit.
        precision: "no" (float32), "bf16" or "fp16".
        ema: decay of the moving average of the weights, in [0, 1). The average is what is validated and exported.
            0: no average.
        seconds: shorten the schedule to this time; 0: no limit. Such a run cannot be repeated exactly.
        workers: processes that prepare batches in advance; 0: batches are prepared between steps.
        deterministic: use algorithms that give the same bits each time, where torch has them; slower on a GPU.
        save_every: steps between checkpoints; 0: save only when the run is interrupted.
        keep: number of checkpoints to keep.
        log_every: steps between log entries; an entry is the mean of these steps.
        validate_every: steps between validations; 0: never.
        best: name of a validation score; the weights with its highest value are exported. "": the last weights.
        patience: stop after this many validations without a new best score; 0: never stop early.
        optimizer: the optimizer.
        schedule: learning-rate schedule.

    Raises:
        SettingError: a value out of range, or an option without effect.
    """

    iterations: int
    batch: int
    accumulate: int = 1
    seed: int = 0
    clip: float = 0.0
    precision: str = "no"
    ema: float = 0.0
    seconds: float = 0.0
    workers: int = 0
    deterministic: bool = True
    save_every: int = 1000
    keep: int = 2
    log_every: int = 20
    validate_every: int = 0
    best: str = ""
    patience: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "accumulate", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}: expected 1 or more")
        for name in ("seed", "clip", "seconds", "workers", "save_every", "validate_every", "patience"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise SettingError(f"{name} is {value}: expected 0 or more")
        if not 0 <= self.ema < 1:
            raise SettingError(f"ema is {self.ema}: expected a number in [0, 1)")
        if self.precision not in PRECISIONS:
            raise SettingError(f"unknown precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if self.patience and not self.best:
            raise SettingError("patience needs a score to follow: set best to a validation score, such as miou")
        if self.best and not self.validate_every:
            raise SettingError(f"best={self.best} needs validations: set validate_every to 1 or more")


@dataclass
class Group:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        names: names of the parameters, as in the task's ``named_parameters``, in order.
        rate: base learning rate.
        decay: weight decay.

    Raises:
        SettingError: names in a set, whose order differs from run to run.
    """

    names: list[str]
    rate: float
    decay: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.names, (set, frozenset, str)):
            raise SettingError(f"the names of a parameter group are {self.names!r}: give a list")


class Batches(Protocol):
    """Makes batches. It is sent to worker processes, so it must not hold a model."""

    def __call__(self, rows: range) -> Any:
        """The batch of the samples numbered ``rows``, out of an endless sequence of samples.

        The result may depend on nothing but the numbers and the random states of Python, NumPy and torch, which are
        set from the seed before each call.
        """
        ...


class Task(nn.Module):
    """What is trained: ``forward`` computes the losses, ``groups`` lists the parameters to train.

    A checkpoint contains the trained parameters and the buffers of the modules that hold them.

    Attributes:
        batches: makes the batches that ``forward`` takes.
        skips_parameters: whether some step leaves a trained parameter without gradient; processes that train together
            must know.
    """

    batches: Batches
    skips_parameters = False

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The weighted losses of a batch, whose sum is minimized. Each is a mean over the samples of the batch."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """The parameters to train, with their learning rates."""
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Validation scores by name, higher is better, of the weights that would be exported."""
        return {}

    def export(self, folder: Path) -> None:
        """Write the trained model in the form in which it is used."""
        raise NotImplementedError


def split_groups(
    task: nn.Module,
    names: Sequence[str],
    rate: float,
    decay: float,
    *,
    slower: Callable[[str], float] = lambda name: 1.0,
) -> list[Group]:
    """Group parameters by learning rate and weight decay; norm layers and embedding tables have no decay.

    See docs/method.md §9.

    Args:
        task: the module that has the parameters.
        names: names of the parameters to train, in order.
        rate: base learning rate.
        decay: weight decay of the other parameters.
        slower: factor of the learning rate for a parameter name.

    Raises:
        SettingError: no parameters, or names in a set.
    """
    if isinstance(names, (set, frozenset)):
        raise SettingError("the names of the parameters to train are a set, which has no order: give a list")
    if not names:
        raise SettingError("no parameters to train: name some in learn")
    without_decay = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, nn.Embedding)
    modules = dict(task.named_modules())
    groups: dict[tuple[float, float], Group] = {}
    for name in names:
        module, _, last = name.rpartition(".")
        # Queries are embedding tables in the original; here they are plain parameters.
        exempt = isinstance(modules[module], without_decay) or last == "queries"
        key = (rate * slower(name), 0.0 if exempt else decay)
        groups.setdefault(key, Group([], *key)).names.append(name)
    return list(groups.values())

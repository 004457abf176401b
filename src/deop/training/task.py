"""What a run is told: for how long, in which steps, and what learns."""

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
    """What moves the weights; rates and decays belong to the groups.

    Attributes:
        kind: "adamw" or "sgd".
        betas: of AdamW.
        momentum: of SGD.
    """

    kind: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise SettingError(f"unknown optimizer {self.kind!r}: choose one of {', '.join(OPTIMIZERS)}")
        object.__setattr__(self, "betas", tuple(self.betas))

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """The optimiser of groups with ``params``, ``lr`` and ``weight_decay``."""
        if self.kind == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum)
        return torch.optim.AdamW(groups, betas=self.betas, fused=device.type == "cuda")


@dataclass(frozen=True)
class LoopSettings:
    """How long and in which steps is trained.

    Attributes:
        iterations: steps of the optimiser.
        batch: samples a step, over all processes together.
        accumulate: parts that each process takes its share of a batch in, one after the other, to save memory.
        seed: of everything that is drawn.
        clip: most that the norm of all gradients together may be; 0: any.
        precision: "no" (float32), "bf16" or "fp16".
        ema: keep of the moving average of the weights in each step, which is then what is saved; 0: none.
        seconds: the schedule is shortened to this much time; 0: no limit. Such a run cannot be repeated exactly.
        workers: processes that make batches ahead; 0: they are made in between.
        deterministic: only algorithms that give the same bits each time, where there are such: slower on a GPU.
        save_every: steps from one checkpoint to the next; 0: none but at an interruption.
        keep: checkpoints that stay.
        log_every: steps that a line of the log is the mean of.
        validate_every: steps from one validation to the next; 0: never.
        best: what validation measures is followed by this name, and the weights with the largest value are taken in the
            end; "": the last.
        patience: validations without a new best after which the run ends; 0: it never ends early.
        optimizer: what moves the weights.
        schedule: of the learning rate.
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
        if self.precision not in PRECISIONS:
            raise SettingError(f"unknown precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if self.patience and not self.best:
            raise SettingError("patience needs to know what to wait for: set best to a measure of the validation")


@dataclass
class Group:
    """Parameters that learn alike.

    Attributes:
        names: of the parameters in the task, as ``named_parameters`` has them.
        rate: base learning rate.
        decay: weight decay.
    """

    names: list[str]
    rate: float
    decay: float = 0.0


class Batches(Protocol):
    """What makes batches; it is sent to worker processes, and holds no model."""

    def __call__(self, rows: range) -> Any:
        """The samples of these numbers, of an endless row of samples, as tensors that lie together.

        The same for the same numbers, whatever was asked before; Python's, numpy's and torch's random numbers may be
        drawn, their states are set from the seed beforehand.
        """
        ...


class Task(nn.Module):
    """What is trained: its call computes losses, and its parameters with a gradient learn.

    Saved are the parameters that learn and the buffers of the modules that hold them.
    """

    batches: Batches
    skips_parameters = False  # whether some step leaves a parameter without gradient, which processes must agree on

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch, already weighted: their sum is made small. Means over the samples of the batch."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """Which parameters learn, and how fast."""
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """What is measured now and then, the larger the better, with the weights as they would be saved."""
        return {}

    def export(self, folder: Path) -> None:
        """Write what was learned for use, with the weights as they are now."""
        raise NotImplementedError


def split_groups(
    task: nn.Module,
    names: Sequence[str],
    rate: float,
    decay: float,
    *,
    slower: Callable[[str], float] = lambda name: 1.0,
) -> list[Group]:
    """Parameters by rate and by whether they decay: norm layers and embedding tables do not (METHOD section 9).

    Args:
        task: what the names are of.
        names: parameters that learn.
        rate: base learning rate.
        decay: weight decay of the others.
        slower: the share of the rate that a parameter has.
    """
    kept = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, nn.Embedding)
    modules = dict(task.named_modules())
    groups: dict[tuple[float, float], Group] = {}
    for name in names:
        place, _, last = name.rpartition(".")
        # Queries are embedding tables in the original; here they are plain parameters.
        free = isinstance(modules[place], kept) or last == "queries"
        key = (rate * slower(name), 0.0 if free else decay)
        groups.setdefault(key, Group([], *key)).names.append(name)
    return list(groups.values())

"""The weights that a run trains: their current values, their moving average, and the best values so far."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from deop.errors import TrainingError
from deop.training.checkpoint import Checkpoint
from deop.training.task import Group, Task


class TrainedWeights:
    """The trained parameters of a task, in the order of its groups. All other parameters are frozen.

    Args:
        task: the task, on the device that it trains on.
        groups: the parameters to train.
        ema: decay of the moving average; 0: no average.

    Attributes:
        parameters: trained parameters by name.
        average: their moving averages in the same order, or None.
        best: the values with the best validation score by name; empty before the first validation.
    """

    def __init__(self, task: Task, groups: list[Group], ema: float) -> None:
        self.task, self.ema = task, ema
        everything = dict(task.named_parameters())
        self.parameters: dict[str, nn.Parameter] = {name: everything[name] for group in groups for name in group.names}
        for name, parameter in everything.items():
            parameter.requires_grad_(name in self.parameters)
        self.average = [value.detach().clone() for value in self.parameters.values()] if ema else None
        self.best: dict[str, Tensor] = {}

    def update_average(self, step: int) -> None:
        """Move the average towards the current values, faster in the first steps.

        Args:
            step: number of steps taken before this one.
        """
        if self.average is not None:
            decay = min(self.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.parameters.values()), 1 - decay)

    def keep_as_best(self) -> None:
        """Remember the current values, or their average, as the best."""
        values = self.average if self.average is not None else list(self.parameters.values())
        self.best = {name: value.detach().clone() for name, value in zip(self.parameters, values, strict=True)}

    def buffers(self) -> dict[str, Tensor]:
        """Buffers that training may change: those of modules with trained parameters."""
        modules = {name.rpartition(".")[0] for name in self.parameters}
        return {name: value for name, value in self.task.named_buffers() if name.rpartition(".")[0] in modules}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores."""
        tensors = {f"weights.{key}": value for key, value in {**self.parameters, **self.buffers()}.items()}
        tensors |= {f"average.{key}": value for key, value in zip(self.parameters, self.average or [], strict=False)}
        return tensors | {f"best.{key}": value for key, value in self.best.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load what ``tensors`` returned.

        Raises:
            TrainingError: the checkpoint has other weights than this task trains.
        """
        targets = {**self.parameters, **self.buffers()}
        weights = checkpoint.with_prefix("weights.")
        best = checkpoint.with_prefix("best.")
        average = checkpoint.with_prefix("average.")
        expected = self.parameters.keys() if self.average is not None else set()
        same = weights.keys() == targets.keys() and all(weights[key].shape == targets[key].shape for key in targets)
        if not same or average.keys() != expected or (best and best.keys() != self.parameters.keys()):
            raise TrainingError(
                f"the weights in {checkpoint.folder} are not the ones that this recipe trains: resume with the recipe "
                "that the run was started with, or start a new run in another folder"
            )
        with torch.no_grad():
            for key, value in weights.items():
                targets[key].copy_(value)
            for name, target in zip(self.parameters, self.average or [], strict=False):
                target.copy_(average[name])
        self.best = {key: value.to(self.parameters[key].device) for key, value in best.items()}

    @contextmanager
    def used_by_task(self, best: bool = True) -> Iterator[None]:
        """Let the task use the best weights, or their moving average, and restore the current ones afterwards.

        Args:
            best: prefer the best weights where a validation has chosen some.
        """
        values: Iterable[Tensor] | None = self.average
        if best and self.best:
            values = [self.best[name] for name in self.parameters]
        if values is None:
            yield
            return
        current = [parameter.detach().clone() for parameter in self.parameters.values()]
        _copy(values, self.parameters.values())
        try:
            yield
        finally:
            _copy(current, self.parameters.values())


def _copy(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for value, place in zip(source, target, strict=True):
            place.copy_(value)

"""Which samples each process sees in each step: they follow from the numbers of steps and processes alone."""

from collections.abc import Iterator
from typing import Any

import torch

from deop.training.process import seed_everything
from deop.training.task import Batches, LoopSettings


class _Samples(torch.utils.data.Dataset[Any]):
    """The parts of batches that one process sees, in order."""

    def __init__(self, batches: Batches, settings: LoopSettings, process: int, processes: int) -> None:
        self.batches, self.settings, self.process, self.processes = batches, settings, process, processes

    def __getitem__(self, number: int) -> Any:
        settings = self.settings
        step, part = divmod(number, settings.accumulate)
        count = settings.batch // (settings.accumulate * self.processes)
        first = step * settings.batch + (part * self.processes + self.process) * count
        seed_everything(settings.seed, step, part, self.process, 0)
        return self.batches(range(first, first + count))


def batches_from(batches: Batches, settings: LoopSettings, accelerator: Any, step: int) -> Iterator[Any]:
    """The parts of batches that this process sees, from a step on.

    Args:
        batches: the task's.
        settings: of the run.
        accelerator: accelerate's picture of the processes.
        step: the first one, counted from 0.
    """
    samples = _Samples(batches, settings, accelerator.process_index, accelerator.num_processes)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        samples,
        batch_size=None,
        sampler=range(step * settings.accumulate, settings.iterations * settings.accumulate),
        num_workers=settings.workers,
        pin_memory=accelerator.device.type == "cuda" and settings.workers > 0,
    )
    return iter(loader)

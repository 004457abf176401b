"""Which samples each process gets in each step. This depends only on the step, the process and the batch size."""

from collections.abc import Iterator
from typing import Any

import torch

from deop.training.process import seed_everything
from deop.training.task import Batches, LoopSettings


class _MicroBatches(torch.utils.data.Dataset[Any]):
    """The micro-batches of one process, in training order."""

    def __init__(self, batches: Batches, settings: LoopSettings, process: int, processes: int) -> None:
        self.batches, self.settings, self.process, self.processes = batches, settings, process, processes

    def __getitem__(self, index: int) -> Any:
        settings = self.settings
        step, part = divmod(index, settings.accumulate)
        size = settings.batch // (settings.accumulate * self.processes)
        first = step * settings.batch + (part * self.processes + self.process) * size
        seed_everything(settings.seed, step, part, self.process, 0)
        return self.batches(range(first, first + size))


def micro_batches(batches: Batches, settings: LoopSettings, accelerator: Any, step: int) -> Iterator[Any]:
    """The micro-batches of this process: ``settings.accumulate`` per step.

    Args:
        batches: makes a batch from sample numbers.
        settings: settings of the run.
        accelerator: accelerate's ``Accelerator``.
        step: first step, counted from 0.
    """
    samples = _MicroBatches(batches, settings, accelerator.process_index, accelerator.num_processes)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        samples,
        batch_size=None,
        sampler=range(step * settings.accumulate, settings.iterations * settings.accumulate),
        num_workers=settings.workers,
        pin_memory=accelerator.device.type == "cuda" and settings.workers > 0,
    )
    return iter(loader)

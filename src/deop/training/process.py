"""The process, or the processes, that a run lives in: devices, random states, signals."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

from deop.errors import MissingDependencyError, SettingError
from deop.training.task import LoopSettings


def accelerator_for(settings: LoopSettings, device: str | None, skips: bool) -> Any:
    """accelerate's own picture of the processes that train together.

    Args:
        settings: of the run.
        device: "cpu" keeps off a GPU that is there; None: the one that is there.
        skips: whether some step leaves a parameter without gradient.

    Raises:
        MissingDependencyError: accelerate is not installed.
        SettingError: a way of training together that the checkpoints do not know.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise MissingDependencyError('training needs accelerate: pip install "deop[train]"') from error
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(
            reset_partial_state=True
        )  # another run in this process may have had other settings
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        cpu=device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=skips)],
    )
    if str(accelerator.distributed_type).rpartition(".")[2] not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise SettingError(f"training by {accelerator.distributed_type} is not supported: use plain data parallelism")
    return accelerator


def seed_everything(*numbers: int) -> None:
    """Set the random states of Python, numpy and torch, on all devices, from some numbers."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 - libraries that augment draw from it
    torch.manual_seed(seed)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Algorithms that give the same bits each time, where there are such."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that fills when the process is asked to stop; asked again, it stops at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not in the main thread
            break
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

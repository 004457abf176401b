"""The processes that train: devices, random states and signals."""

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
    """accelerate's ``Accelerator`` for a run.

    Args:
        settings: settings of the run.
        device: "cpu" trains on the CPU; None: on a GPU if there is one.
        skips: whether some step leaves a parameter without gradient.

    Raises:
        MissingDependencyError: accelerate is not installed.
        SettingError: an unknown device, or a kind of distributed training that checkpoints do not support.
    """
    if device not in (None, "cpu"):
        raise SettingError(f'device is {device!r}: training takes "cpu", or None for a GPU if there is one')
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise MissingDependencyError('training needs accelerate: pip install "deop[train]"') from error
    if PartialState._shared_state and PartialState().num_processes == 1:
        # An earlier run in this process may have had other settings.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        cpu=device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=skips)],
    )
    if str(accelerator.distributed_type).rpartition(".")[2] not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise SettingError(f"training with {accelerator.distributed_type} is not supported: use plain data parallelism")
    return accelerator


def seed_everything(*numbers: int) -> None:
    """Set the random states of Python, NumPy and torch (all devices) from integers of 0 or more."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 - augmentation libraries use this state
    torch.manual_seed(seed)


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Use algorithms that give the same bits each time, where torch has them; it warns about the others."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if enabled:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list of the SIGINT and SIGTERM signals received so far. A second signal of a kind ends the process at once."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not in the main thread
            break
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Checkpoints of a training run. A checkpoint is either complete or absent, whenever the process is killed.

A checkpoint is a folder ``step-00000100`` with ``tensors.safetensors`` and ``state.json``; the latter holds the sha256
of the former. It is written under a temporary name, flushed to disk (fsync) and renamed. Old checkpoints are removed
only after that.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.errors import CheckpointError, TrainingError
from deop.files import read_json, sha256

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_FORMAT = 1


@dataclass
class Checkpoint:
    """Everything that a run needs to resume with the same result as without an interruption.

    Random states are not saved: every step sets them from the seed and its own number.

    Attributes:
        step: number of steps taken.
        tensors: trained weights, their averages and the optimizer's state, by key.
        entries: everything else, as JSON values.
        folder: where the checkpoint is saved; None: not saved yet.
    """

    step: int
    tensors: dict[str, Tensor]
    entries: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def with_prefix(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose key starts with ``prefix``, with the prefix removed from the keys."""
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}

    def entry(self, key: str, *kinds: type) -> Any:
        """An entry of one of the types ``kinds``.

        Raises:
            TrainingError: the entry is missing or has another type.
        """
        value = self.entries.get(key)
        if key not in self.entries or not isinstance(value, kinds):
            raise TrainingError(
                f"the entry {key!r} of {self.folder} is missing or damaged: delete that checkpoint and resume from the "
                "one before, or start a new run in another folder"
            )
        return value


def save(checkpoint: Checkpoint, folder: Path, keep: int = 2) -> Path:
    """Write a checkpoint, then remove all but the last ``keep``.

    Args:
        checkpoint: its tensors may be on any device.
        folder: contains all checkpoints of the run; created if missing.
        keep: number of checkpoints to keep, at least 1.

    Returns:
        The folder of this checkpoint.

    Raises:
        TrainingError: the checkpoint cannot be written, for example because the disk is full. Older checkpoints are
            not touched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}.part"
    try:
        temporary.mkdir(parents=True)
        tensors = {key: value.detach().cpu().contiguous() for key, value in checkpoint.tensors.items()}
        save_file(tensors, str(temporary / _TENSORS))
        _flush(temporary / _TENSORS)
        digest = sha256(temporary / _TENSORS)
        state = {"format": _FORMAT, "step": checkpoint.step, "sha256": digest, **checkpoint.entries}
        (temporary / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        _flush(temporary / _STATE)
        _flush(temporary)
        if target.exists():  # a damaged checkpoint of an earlier attempt: otherwise this step would not run again
            _remove(target)
        temporary.rename(target)
        _flush(folder)
    except (OSError, CheckpointError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        previous = latest(folder)
        last = "there is no earlier one" if previous is None else f"the last complete one is {previous.folder}"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TrainingError(
            f"cannot save the checkpoint {target}: {reason}; {last}. Free some disk space, then continue with --resume"
        ) from error
    for old in list(_newest_first(folder))[max(keep, 1) :]:
        _remove(old)
    return target


def latest(folder: Path) -> Checkpoint | None:
    """The last complete checkpoint of a run, or None. Damaged checkpoints are skipped."""
    from safetensors.torch import load_file

    for path in _newest_first(folder):
        try:
            state = read_json(path / _STATE)
            if state.pop("format") != _FORMAT or state.pop("sha256") != sha256(path / _TENSORS):
                continue
            return Checkpoint(int(state.pop("step")), load_file(str(path / _TENSORS)), state, path)
        except (ValueError, TypeError, KeyError, OSError):  # CheckpointError is a ValueError
            continue
    return None


def clear_leftovers(folder: Path) -> None:
    """Remove checkpoints that a killed process was still writing or removing."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(".step-"):
                shutil.rmtree(path, ignore_errors=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors.

    Args:
        optimizer: AdamW, SGD or any other whose state consists of tensors and numbers.
        names: the name of each parameter, by its ``id``.

    Returns:
        ``{"NAME::exp_avg": ...}``. Numbers become float64 tensors without dimensions.
    """
    tensors = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value is not None:
                tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
                tensors[f"{names[id(parameter)]}::{key}"] = tensor
    return tensors


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: dict[str, Tensor]) -> None:
    """Load the state that ``optimizer_tensors`` returned.

    Raises:
        TrainingError: a tensor belongs to no parameter of this optimizer.
    """
    indices = {
        names[id(parameter)]: index
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition("::")
        if name not in indices:
            raise TrainingError(
                f"the checkpoint has optimizer state for {name}, which this recipe does not train: resume with the "
                "recipe that the run was started with"
            )
        state.setdefault(indices[name], {})[part] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _newest_first(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("step-*"), reverse=True)


def _remove(path: Path) -> None:
    """Hide the folder by renaming it, then delete its files one by one."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.old")
    with suppress(OSError):
        path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

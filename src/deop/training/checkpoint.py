"""Checkpoints of a run: whole or not there, whenever the process ends.

A checkpoint is a folder ``step-00000100`` with ``tensors.safetensors`` and ``state.json``, which has the sha256 of the
former. It is written beside, brought to the disk (fsync) and renamed; only then are older ones removed.
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
    """All that a run needs to go on as if nothing had happened.

    Random states are not part of it: they are set anew in every step, from the seed and the number of the step.

    Attributes:
        step: steps taken.
        tensors: trained weights, their averages, the optimiser's state, by key, on the CPU.
        entries: everything else, as JSON has it.
        folder: where it lies, once it is saved.
    """

    step: int
    tensors: dict[str, Tensor]
    entries: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose key starts with ``prefix``, under the rest of its key."""
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


def save(checkpoint: Checkpoint, folder: Path, keep: int = 2) -> Path:
    """Write a checkpoint, then remove all but the last ``keep``.

    Args:
        checkpoint: tensors may lie on any device.
        folder: of all checkpoints of the run; made where it is missing.
        keep: how many stay, at least 1.

    Returns:
        The checkpoint's own folder.

    Raises:
        TrainingError: it cannot be written, as on a full disk; older ones are untouched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{checkpoint.step:08d}"
    beside = folder / f".{target.name}.{os.getpid()}.part"
    try:
        beside.mkdir(parents=True)
        tensors = {key: value.detach().cpu().contiguous() for key, value in checkpoint.tensors.items()}
        save_file(tensors, str(beside / _TENSORS))
        _to_disk(beside / _TENSORS)
        state = {"format": _FORMAT, "step": checkpoint.step, "sha256": sha256(beside / _TENSORS), **checkpoint.entries}
        (beside / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        _to_disk(beside / _STATE)
        _to_disk(beside)
        if target.exists():  # of an earlier try, and damaged, or this step would not be taken again
            _remove(target)
        beside.rename(target)
        _to_disk(folder)
    except (OSError, CheckpointError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        whole = latest(folder)
        last = "no earlier one is there" if whole is None else f"the last whole one is {whole.folder}"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TrainingError(
            f"cannot save the checkpoint {target}: {reason}; {last}. Make room there, then go on with --resume"
        ) from error
    for old in list(_newest_first(folder))[max(keep, 1) :]:
        _remove(old)
    return target


def latest(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint of a run, or None; damaged ones are passed over."""
    from safetensors.torch import load_file

    for place in _newest_first(folder):
        try:
            state = read_json(place / _STATE)
            if state.pop("format") != _FORMAT or state.pop("sha256") != sha256(place / _TENSORS):
                continue
            return Checkpoint(int(state.pop("step")), load_file(str(place / _TENSORS)), state, place)
        except (ValueError, KeyError, OSError):  # CheckpointError is a ValueError
            continue
    return None


def clear_leftovers(folder: Path) -> None:
    """Remove what a process that was killed had not finished writing or removing."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(".step-"):
                shutil.rmtree(path, ignore_errors=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors.

    Args:
        optimizer: AdamW, SGD and others whose state is tensors and numbers.
        names: of each parameter, by its ``id``.

    Returns:
        ``{"NAME::exp_avg": ...}``; numbers become float64 tensors without dimensions.
    """
    found = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value is not None:
                tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
                found[f"{names[id(parameter)]}::{key}"] = tensor
    return found


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: dict[str, Tensor]) -> None:
    """Put the state of ``optimizer_tensors`` back.

    Raises:
        TrainingError: a tensor of no parameter of this optimiser.
    """
    places = {
        names[id(parameter)]: index
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition("::")
        if name not in places:
            raise TrainingError(f"the checkpoint has the optimiser's state of {name}, which is not trained here")
        state.setdefault(places[name], {})[part] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _newest_first(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("step-*"), reverse=True)


def _remove(place: Path) -> None:
    """Out of sight in one move, then file by file."""
    hidden = place.with_name(f".{place.name}.{os.getpid()}.old")
    with suppress(OSError):
        place.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

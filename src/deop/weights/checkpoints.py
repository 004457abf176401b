"""Reading checkpoint files, pickled or safetensors: the only module that reads a pickle.

It uses ``torch.load(weights_only=True)``, which does not run code from the file.
"""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.errors import CheckpointError
from deop.files import PICKLE_INDEX, PICKLE_SUFFIXES, WEIGHT_INDEX, convert_command, read_weight_index
from deop.networks.loading import list_some, read_weights

# Where training programs put the state dict of a checkpoint. Averaged weights are used only if there are no others.
_WRAPPERS = (
    "state_dict", "model", "model_state_dict", "module", "state_dict_ema", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
# What wrappers of torch add to every key: DataParallel, torch.compile, AveragedModel.
_PREFIXES = ("module.", "_orig_mod.")
_COUNTERS = ("n_averaged",)
_SHARD = re.compile(r"-\d+-of-\d+$")
# How torch names what it refuses to unpickle.
_FOREIGN_CLASS = re.compile(r"(?:Unsupported global: GLOBAL|Unsupported class|unsupported GLOBAL) (\S+)")
_OPEN_CLIP_WEIGHTS = (
    "open_clip_pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without running code from it.

    What training programs and torch wrap around a state dict is removed: entries such as ``state_dict`` and ``model``,
    and prefixes of all keys such as ``module.`` (DataParallel) and ``_orig_mod.`` (torch.compile).

    Args:
        path: a file; or the index of a checkpoint in several files, which are joined (``checkpoint_in``).

    Raises:
        CheckpointError: missing, damaged, incomplete, or not a state dict of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: check the path")
    if path.name in (PICKLE_INDEX, WEIGHT_INDEX):
        return _read_shards(path)
    return _state_of(_read_file(path), path)


def checkpoint_in(folder: Path) -> Path:
    """The file to read from a folder: the index if the weights are in several files.

    Raises:
        CheckpointError: no such file, or several that may be meant.
    """
    if (folder / PICKLE_INDEX).is_file():
        return folder / PICKLE_INDEX
    if (folder / "pytorch_model.bin").is_file():
        return folder / "pytorch_model.bin"
    for name in _OPEN_CLIP_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    files = sorted(file for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if not files:
        raise CheckpointError(f"{folder} has no pickled weights to convert: give the file, or another folder")
    shards = [file for file in files if _SHARD.search(file.stem)]
    if shards and len(shards) == len(files):
        raise CheckpointError(f"{folder} has {_shards_without_index(shards[0])}")
    if len(files) != 1:
        raise CheckpointError(
            f"{folder} has {len(files)} pickled files ({list_some([file.name for file in files])}): give one of them"
        )
    return files[0]


def whole_checkpoint(path: Path) -> Path:
    """The file to read for a file that the user chose: for one shard of several, the index that joins them.

    Raises:
        CheckpointError: a shard without its index.
    """
    if not _SHARD.search(path.stem):
        return path
    index = path.parent / (WEIGHT_INDEX if path.suffix == ".safetensors" else PICKLE_INDEX)
    if not index.is_file():
        raise CheckpointError(f"{path} is {_shards_without_index(path)}")
    return index


def _shards_without_index(shard: Path) -> str:
    name = WEIGHT_INDEX if shard.suffix == ".safetensors" else PICKLE_INDEX
    return (
        f"one of several files of a checkpoint ({shard.name}), and {name}, which lists them, is missing: "
        f"put it and all files into one folder, and run: {convert_command(shard.parent)}"
    )


def _read_shards(index: Path) -> dict[str, Tensor]:
    """All tensors that an index lists, each from the file that it names."""
    files = read_weight_index(index)
    state: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        file = index.parent / name
        if not file.is_file():
            raise CheckpointError(f"{index.parent} lacks {name}, which {index.name} lists. Fetch the folder again")
        part = _state_of(_read_file(file), file)
        if missing := sorted(key for key, place in files.items() if place == name and key not in part):
            raise CheckpointError(f"{file} lacks {list_some(missing)}, which {index.name} lists. Fetch it again")
        state |= part
    return state


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends torch.jit.load, which runs code, for TorchScript
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of pickle and zip, and several of its own
        raise CheckpointError(f"cannot read {path} without running code in it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why torch does not read a file. Its own messages are not shown: they advise to run the code in the file."""
    text = str(error)
    if "TorchScript" in text:
        return "it is a TorchScript archive. If you trust it, save its state dict with torch, and convert that"
    if found := re.search(
        r"(?:Unsupported global: GLOBAL|Unsupported class|Trying to load unsupported GLOBAL) (\S+)", text
    ):
        return (
            f"it contains {found[1]}, which is not a tensor. If you trust the file, load it with the program that "
            "wrote it, save the state dict alone with torch, and convert that"
        )
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or not a checkpoint of torch, or contains more than tensors. Fetch it again"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is damaged, or not a checkpoint of torch. Fetch it again"


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, dict) and (inner := _wrapped(content)) is not None:
        content = inner
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} does not contain a state dict: choose the file with the weights")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if others := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"{path} contains entries that are not tensors: {list_some(others)}. Save the state dict alone"
        )
    return without_prefix(state, *_PREFIXES)


def _wrapped(content: dict[Any, Any]) -> dict[Any, Any] | None:
    for key in _WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, dict) and inner:
            return inner
    return None


def without_prefix(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """A state dict without the prefixes that all of its keys have.

    >>> sorted(without_prefix({"module._orig_mod.a.b": 1, "module._orig_mod.c": 2}, "module.", "_orig_mod."))
    ['a.b', 'c']
    >>> sorted(without_prefix({"module.a": 1, "b": 2}, "module."))
    ['b', 'module.a']
    """
    keys = [key for key in state if key not in _COUNTERS]
    for prefix in prefixes:
        if keys and all(key.startswith(prefix) and key != prefix for key in keys):
            return without_prefix({key.removeprefix(prefix): state[key] for key in keys}, *prefixes)
    return state

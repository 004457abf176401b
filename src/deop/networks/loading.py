"""Reading what lies beside each other in a model's folder: settings in JSON, and weights, all of them or an error."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from deop.errors import CheckpointError
from deop.files import PICKLE_SUFFIXES, read_json
from deop.images.preprocessing import Normalization

_SCALE = "::scale"
_PACKED_FROM = 2048  # numbers; below, int8 would save nothing


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file, or the weights of a folder in the hub's layout, sharded or not.

    Args:
        path: a ``.safetensors`` file, or a folder with ``model.safetensors`` or ``model.safetensors.index.json``.

    Returns:
        Every tensor by its key, on the CPU.

    Raises:
        CheckpointError: no such file, a damaged one, or one that would have to be unpickled.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for file in _weight_files(Path(path)):
        try:
            state.update(load_file(str(file)))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot read {file}: {error}. Fetch or convert it again.") from error
    return _unpack(state)


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix in PICKLE_SUFFIXES:
            raise CheckpointError(
                f"{path} is a pickle, which deop never loads. Convert it once: deop convert {path} FOLDER"
            )
        return [path]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if missing := [name for name in names if not (path / name).is_file()]:
            raise CheckpointError(f"{index} names {', '.join(missing)}, which is not there. Fetch the folder again.")
        return [path / name for name in names]
    pickles = sorted(file.name for file in path.glob("*") if file.suffix in PICKLE_SUFFIXES) if path.is_dir() else []
    if pickles:
        raise CheckpointError(
            f"{path} has only pickled weights ({', '.join(pickles)}), which deop never loads. "
            f"Convert them once: deop convert {path / pickles[0]} FOLDER"
        )
    raise CheckpointError(f"no weights at {path}: expected a .safetensors file or a folder with model.safetensors")


def read_normalization(folder: Path, default: Normalization) -> Normalization:
    """The channel statistics in preprocessor_config.json (0..1 there, 0..255 here), or ``default``.

    Raises:
        CheckpointError: the file is not JSON or its statistics are not three numbers.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        entries = read_json(folder / name)
        entries = entries.get("image_processor", entries)
        if entries.get("image_mean") is None or entries.get("image_std") is None:
            continue
        try:
            mean, std = (tuple(255 * float(v) for v in entries[key]) for key in ("image_mean", "image_std"))
            return Normalization(mean, std)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / name}: image_mean and image_std must be three numbers: {error}"
            ) from error
    return default


def load_strictly(module: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Put ``state`` into ``module``: every key and shape must match.

    Raises:
        CheckpointError: naming the missing keys, the surplus keys and the differing shapes.
    """
    own = module.state_dict()
    state = _with_repeats(state, own)
    complaints = [f"{key} is missing" for key in own if key not in state]
    complaints += [f"{key} is not known" for key in state if key not in own]
    complaints += [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if complaints:
        raise CheckpointError(f"the weights of {origin} do not fit: " + list_some(complaints))
    module.load_state_dict(state)


def stored_once(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights on the CPU as safetensors can hold them: what parts of a model share is kept under its first key only."""
    firsts = _first_keys(state)
    return {key: value.detach().cpu().contiguous() for key, value in state.items() if firsts[key] == key}


def _with_repeats(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a module shares between keys, under all of them."""
    firsts = _first_keys(own)
    return state | {key: state[firsts[key]] for key in own if key not in state and firsts[key] in state}


def _first_keys(state: dict[str, Tensor]) -> dict[str, str]:
    """For each key the first one with the very same tensor."""
    seen: dict[tuple[object, ...], str] = {}
    firsts = {}
    for key, value in state.items():
        place = (value.data_ptr(), value.storage_offset(), value.shape)
        firsts[key] = seen.setdefault(place, key) if value.numel() else key
    return firsts


def pack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights at about a quarter of their size; ``read_weights`` unpacks them.

    Matrices and convolutions become int8, each row (output channel) with a scale of its own, max |row| / 127; what is
    small stays float16. Integers stay as they are.
    """
    packed: dict[str, Tensor] = {}
    for key, value in state.items():
        if not value.is_floating_point():
            packed[key] = value
        elif value.ndim < 2 or value.numel() < _PACKED_FROM:
            packed[key] = value.half()
        else:
            scale = value.float().flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            rows = value.float() / scale.view(-1, *[1] * (value.ndim - 1))
            packed[key] = rows.round().to(torch.int8)
            packed[key + _SCALE] = scale
    return packed


def _unpack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for key in [key for key in state if key.endswith(_SCALE)]:
        scale, name = state.pop(key), key.removesuffix(_SCALE)
        state[name] = state[name].float() * scale.view(-1, *[1] * (state[name].ndim - 1))
    return state


def list_some(items: list[str], most: int = 8) -> str:
    """The first items, and how many more there are."""
    more = len(items) - most
    return "; ".join(items[:most]) + (f"; and {more} more" if more > 0 else "")

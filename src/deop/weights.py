"""Reading weights from safetensors and putting them into modules: all of them or an error."""

import json
from pathlib import Path

from torch import Tensor, nn

from deop.errors import CheckpointError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


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
    return state


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


def load_strictly(module: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Put ``state`` into ``module``: every key and shape must match.

    Raises:
        CheckpointError: naming the missing keys, the surplus keys and the differing shapes.
    """
    own = module.state_dict()
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


def list_some(items: list[str], most: int = 8) -> str:
    """The first items, and how many more there are."""
    more = len(items) - most
    return "; ".join(items[:most]) + (f"; and {more} more" if more > 0 else "")

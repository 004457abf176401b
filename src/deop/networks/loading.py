"""The files of a model folder: reading and packing weights, loading them strictly, channel statistics."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from deop.errors import CheckpointError, DeopError
from deop.files import PICKLE_SUFFIXES, WEIGHT_INDEX, convert_command, read_json, read_weight_index, resolved, sha256
from deop.images.preprocessing import Normalization
from deop.tensors import TensorFile

_SCALE = "::scale"
_SLACK = 1_000_000  # numbers of small models, or of parts that are replaced
_MIN_PACKED = 2048  # numbers in a tensor; with fewer, int8 saves nothing


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file, or the weights of a folder in the hub's layout, in one file or in shards.

    Args:
        path: a ``.safetensors`` file, or a folder with ``model.safetensors`` or ``model.safetensors.index.json``.

    Returns:
        All tensors by key, on the CPU. Packed weights (``pack``) are unpacked.

    Raises:
        CheckpointError: missing, damaged or pickled weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    if Path(path).is_dir():
        check_cached(Path(path))
    for file in _weight_files(Path(path)):
        try:
            state.update(load_file(str(file)))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot read {file}: {error}. Fetch or convert it again.") from error
    return unpack(state, path)


def check_cached(folder: Path) -> None:
    """Compare weights that lie in the hub's cache with their SHA-256, by which the cache names its files.

    Args:
        folder: a folder with safetensors; those that are not links into the cache are not compared.

    Raises:
        CheckpointError: naming a file that has changed since it was downloaded.
    """
    for file in sorted(folder.glob("*.safetensors")):
        content = resolved(file)
        if content.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", content.name):
            digest = sha256(content)
            if digest != content.name:
                raise CheckpointError(
                    f"{file} is damaged: its SHA-256 is {digest[:12]}..., and the hub's cache says "
                    f"{content.name[:12]}.... Delete {content} and load the model again"
                )


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix in PICKLE_SUFFIXES:
            raise CheckpointError(
                f"{path} is a pickle, which deop never loads. Convert it once: {convert_command(path)}"
            )
        return [path]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if (path / WEIGHT_INDEX).is_file():
        names = sorted(set(read_weight_index(path / WEIGHT_INDEX).values()))
        if missing := [name for name in names if not (path / name).is_file()]:
            raise CheckpointError(
                f"{path} lacks {list_some(missing)}, which {WEIGHT_INDEX} lists. Fetch the folder again."
            )
        return [path / name for name in names]
    pickles = sorted(file.name for file in path.glob("*") if file.suffix in PICKLE_SUFFIXES) if path.is_dir() else []
    if pickles:
        raise CheckpointError(
            f"{path} has only pickled weights ({', '.join(pickles)}), which deop never loads. "
            f"Convert them once: {convert_command(path)}"
        )
    raise CheckpointError(f"no weights at {path}: expected a .safetensors file or a folder with model.safetensors")


@contextmanager
def building_model(origin: Path) -> Iterator[None]:
    """Report every failure inside as a damaged model: torch and transformers raise errors of many kinds.

    A configuration that describes many more weights than the folder has is refused before they are allocated.

    Args:
        origin: the folder or file that the model comes from.

    Raises:
        CheckpointError: in place of any error except deop's own, missing libraries and lack of memory.
    """
    try:
        with _bounded(origin):
            yield
    except CheckpointError as error:
        if str(origin) in str(error):
            raise
        raise CheckpointError(f"cannot load {origin}: {error}") from error
    except (DeopError, ImportError, MemoryError):
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"cannot build the model from {origin}: {reason}. It is damaged or of another kind: fetch or convert it "
            "again"
        ) from error


@contextmanager
def _bounded(origin: Path) -> Iterator[None]:
    """Refuse to build modules with more than twice the numbers in the safetensors of a folder, and a few more."""
    try:
        files = [TensorFile(file) for file in origin.glob("*.safetensors")]
    except CheckpointError:  # reading the weights says why
        files = []
    if not files:
        yield
        return
    stored = sum(prod(tensor.shape) for file in files for tensor in file.tensors.values())
    left, thread = 2 * stored + _SLACK, threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is None or threading.get_ident() != thread:
            return
        left -= parameter.numel()
        if left < 0:
            raise CheckpointError(
                f"the config of {origin} describes more weights than its files have ({stored:,} numbers): fetch or "
                "convert the folder again"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def read_normalization(folder: Path, default: Normalization) -> Normalization:
    """The channel statistics in a folder's preprocessor_config.json, or ``default`` if it has none.

    The file has them in units of 0..1, ``Normalization`` in units of 0..255.

    Raises:
        CheckpointError: the file is not JSON, or its statistics are not three numbers.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        values = read_json(folder / name)
        if isinstance(values.get("image_processor"), dict):
            values = values["image_processor"]
        if values.get("image_mean") is None or values.get("image_std") is None:
            continue
        try:
            mean, std = (tuple(255 * float(value) for value in values[key]) for key in ("image_mean", "image_std"))
            return Normalization(mean, std)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / name}: image_mean and image_std must be three numbers each: {error}"
            ) from error
    return default


def load_strictly(module: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load ``state`` into ``module``: every key and every shape must match.

    Args:
        module: the module to fill.
        state: its state dict; tensors that the module shares between keys may be given under the first key only.
        origin: where the state comes from, for error messages.

    Raises:
        CheckpointError: naming missing keys, unknown keys and different shapes.
    """
    expected = module.state_dict()
    state = _with_shared_keys(state, expected)
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} is not known" for key in state if key not in expected]
    problems += [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    # Floating-point weights come in any precision, and packed ones were unpacked; nothing else is converted.
    problems += [
        f"{key} is {state[key].dtype}, expected {value.dtype}"
        for key, value in expected.items()
        if key in state and _kind_of_number(state[key].dtype) != _kind_of_number(value.dtype)
    ]
    if problems:
        raise CheckpointError(f"the weights of {origin} do not fit: " + list_some(problems))
    module.load_state_dict(state)


def _kind_of_number(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "real"
    return "truth" if dtype == torch.bool else "whole"


def stored_once(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as safetensors can store it: contiguous, on the CPU, shared tensors under their first key only."""
    first_keys = _first_keys(state)
    return {key: value.detach().cpu().contiguous() for key, value in state.items() if first_keys[key] == key}


def _with_shared_keys(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with shared tensors under all their keys."""
    first_keys = _first_keys(expected)
    return state | {key: state[first_keys[key]] for key in expected if key not in state and first_keys[key] in state}


def _first_keys(state: dict[str, Tensor]) -> dict[str, str]:
    """For each key, the first key with the same memory."""
    key_of_memory: dict[tuple[object, ...], str] = {}
    first_keys = {}
    for key, value in state.items():
        memory = (value.data_ptr(), value.storage_offset(), value.shape)
        first_keys[key] = key_of_memory.setdefault(memory, key) if value.numel() else key
    return first_keys


def pack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compress weights to about a quarter of their size, with some loss; ``read_weights`` unpacks them.

    Matrices and convolutions become int8 with one scale for each row (output channel): max |row| / 127. Small tensors
    become float16. Integer tensors stay as they are.
    """
    packed: dict[str, Tensor] = {}
    for key, value in state.items():
        if not value.is_floating_point():
            packed[key] = value
        elif value.ndim < 2 or value.numel() < _MIN_PACKED:
            packed[key] = value.half()
        else:
            scale = value.float().flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            rows = value.float() / scale.view(-1, *[1] * (value.ndim - 1))
            packed[key] = rows.round().to(torch.int8)
            packed[key + _SCALE] = scale
    return packed


def unpack(state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Undo ``pack``, in place; weights that are not packed stay as they are.

    Raises:
        CheckpointError: scales without rows, naming ``path``.
    """
    for key in [key for key in state if key.endswith(_SCALE)]:
        scale, name = state.pop(key), key.removesuffix(_SCALE)
        if name not in state or scale.shape != state[name].shape[:1]:
            raise CheckpointError(f"the packed weights at {path} have no rows for {key}. Fetch or convert them again.")
        state[name] = state[name].float() * scale.view(-1, *[1] * (state[name].ndim - 1))
    return state


def list_some(items: list[str], limit: int = 8) -> str:
    """The first items, and how many more there are.

    >>> list_some(["a", "b", "c"], 2)
    'a; b; and 1 more'
    """
    more = len(items) - limit
    return "; ".join(items[:limit]) + (f"; and {more} more" if more > 0 else "")

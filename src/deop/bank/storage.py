"""Banks as safetensors files, memory-mapped when they are read."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop._version import __version__
from deop.bank.space import Space
from deop.errors import CheckpointError, DeopError, SettingError
from deop.files import json_of, replacing
from deop.tensors import TensorFile

if TYPE_CHECKING:
    from deop.bank.bank import Bank

SUFFIX = ".safetensors"
KEY, VERSION = "deop.bank", 1
"""Key of the description in the metadata of the file, and its version."""

_DTYPES = {"regions": "F16", "probe": "F32", "area": "F32", "name_of": "I32", "photo_of": "I32", "marked": "BOOL"}
"""The tensors of a file, in their order, with their types. Those with large elements come first, so that all are
aligned."""
_NUMPY = {"F16": "<f2", "F32": "<f4", "I32": "<i4", "BOOL": "?"}
_ORDER = ("probe", "area", "name_of", "photo_of", "regions", "marked")


def bank_path(path: str | Path) -> Path:
    """Where a bank is: the path, with the suffix ``.safetensors`` if it has none.

    >>> bank_path("shop").name
    'shop.safetensors'
    """
    place = Path(path).expanduser()
    return place if place.suffix else place.with_name(place.name + SUFFIX)


def save_bank(bank: "Bank", path: str | Path) -> Path:
    """Write a bank; ``Bank.save``."""
    target = bank_path(path)
    with replacing(target) as file:
        for part in _parts(bank):
            file.write(part)
    return target


def bank_to_bytes(bank: "Bank") -> bytes:
    """The content of the file of a bank; ``Bank.to_bytes``."""
    return b"".join(_parts(bank))


def _parts(bank: "Bank") -> Iterator[bytes]:
    arrays = {
        key: np.ascontiguousarray(bank.space.probe if key == "probe" else getattr(bank, key), _NUMPY[_DTYPES[key]])
        for key in _ORDER
    }
    digest = _digest(arrays, bank.names, bank.photos)
    space = bank.space
    description = {
        "version": VERSION,
        "deop": __version__,
        "model": space.model,
        "license": space.license,
        "note": space.note,
        "precision": space.precision,
        "encoding": dict(space.encoding),
        "names": list(bank.names),
        "photos": list(bank.photos),
        "sha256": digest,
    }
    header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(description, ensure_ascii=False)}}
    offset = 0
    for key, array in arrays.items():
        header[key] = {
            "dtype": _DTYPES[key], "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes],
        }  # fmt: skip
        offset += array.nbytes
    content = json.dumps(header, ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    yield len(content).to_bytes(8, "little") + content
    for array in arrays.values():
        yield array.tobytes()


def read_bank(path: str | Path, limit: int, content: bytes | None = None) -> dict[str, Any]:
    """The fields of a bank in a file; its embeddings are mapped from it.

    Args:
        path: the file; the suffix ``.safetensors`` may be omitted.
        limit: maximum number of regions.
        content: the bytes of the file, if they are in memory; ``path`` is then only what messages call it.

    Raises:
        CheckpointError: no such file, no bank, a newer version, or a damaged one.
        SettingError: a bank with more than ``limit`` regions.
    """
    place = bank_path(path) if content is None else Path(path)
    if content is None and not place.is_file():
        raise CheckpointError(f"no bank at {place}: create it with `deop learn DATA --name {path}`")
    file = TensorFile(place, content)
    try:
        described = json_of(file.metadata[KEY])
        version = described["version"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{place} is no bank of examples: create one with `deop learn`") from None
    if version != VERSION:
        raise CheckpointError(f"{place} has version {version}, and deop {__version__} reads version {VERSION}: update")
    count = file.tensors["regions"].shape[0] if "regions" in file.tensors and file.tensors["regions"].shape else 0
    if count > limit:
        raise SettingError(f"{place} has {count:,} regions, and the limit is {limit:,}: learn fewer (--limit)")
    try:
        arrays = {key: file[key] for key in _ORDER}
        _check(arrays, described, {key: file.tensors[key].dtype for key in _ORDER})
        space = Space(
            np.array(arrays.pop("probe")), described["precision"], described["encoding"], described["model"],
            described["license"], described["note"],
        )  # fmt: skip
        names, photos = tuple(described["names"]), tuple(described["photos"])
        return {"space": space, "names": names, "photos": photos, **arrays}
    except DeopError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place} is damaged: {error}. Copy or learn it again") from error


def _check(arrays: dict[str, np.ndarray], described: dict[str, Any], dtypes: dict[str, str]) -> None:
    """Raise ValueError if the parts of a file do not fit each other."""
    if dtypes != {key: _DTYPES[key] for key in _ORDER}:
        raise ValueError("its tensors have other types than those of a bank")
    regions, probe = arrays["regions"], arrays["probe"]
    if regions.ndim != 2 or probe.ndim != 2 or regions.shape[1] != probe.shape[1]:
        raise ValueError("its embeddings have other shapes than those of a bank")
    if any(arrays[key].shape != (len(regions),) for key in ("area", "name_of", "photo_of", "marked")):
        raise ValueError("its tensors have different lengths")
    names, photos = described["names"], described["photos"]
    if not all(isinstance(text, str) for text in (*names, *photos)):
        raise ValueError("a name is not a string")
    if described["sha256"] != _digest(arrays, names, photos):
        raise ValueError("its SHA-256 is not the one that it names")
    for key, texts in (("name_of", names), ("photo_of", photos)):
        if len(regions) and not 0 <= arrays[key].min() <= arrays[key].max() < len(texts):
            raise ValueError(f"{key} refers to a text that the file does not have")
    if not np.isfinite(regions).all():
        raise ValueError("an embedding is not finite")


def _digest(arrays: dict[str, np.ndarray], names: Any, photos: Any) -> str:
    digest = hashlib.sha256(json.dumps([list(names), list(photos)], ensure_ascii=False).encode())
    for key in _ORDER:
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()

"""Tensors of a safetensors file as numpy arrays that are mapped from it, without torch.

Our own reader, since the runtime needs what ``safetensors`` does not give: where each tensor lies in the file, which
ONNX external data point to, and arrays that are read only where they are used.
"""

import json
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from deop.errors import CheckpointError
from deop.files import check_regular

_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_LONGEST_HEADER = 100_000_000  # bytes, the limit of safetensors


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its file.

    Attributes:
        dtype: as in the file, "F32" or "I8".
        shape: its shape.
        offset: first byte, counted from the start of the file.
        length: bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class TensorFile:
    """The tensors of a safetensors file. Its header is checked; its data are mapped when they are asked for.

    Args:
        path: the file.
        content: its bytes, if they are in memory; ``path`` is then only what messages call it.

    Attributes:
        tensors: where each tensor lies, by key.
        metadata: texts that the file has about itself.

    Raises:
        CheckpointError: the file cannot be read, or its header is malformed: a tensor outside the file, tensors that
            overlap or leave a gap, a size that is not that of dtype and shape, a key twice.
    """

    def __init__(self, path: str | Path, content: bytes | None = None) -> None:
        self.path, self._content = Path(path), content
        try:
            if content is None:
                check_regular(self.path)
            with self.path.open("rb") if content is None else BytesIO(content) as file:
                start = file.read(8)
                length = int.from_bytes(start, "little")
                size = self.path.stat().st_size if content is None else len(content)
                if len(start) < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                    raise ValueError("it has no header")
                header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
                self.metadata = _metadata(header)
                self.tensors = _checked(header, 8 + length, size)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"cannot read {self.path}: {error}. Fetch or convert it again.") from error

    def __getitem__(self, key: str) -> np.ndarray:
        """A tensor, as a read-only array that is mapped from the file.

        Raises:
            CheckpointError: no such tensor, a dtype that numpy lacks (bfloat16), or the file is gone.
        """
        tensor = self.tensors.get(key)
        if tensor is None:
            raise CheckpointError(f"{self.path} has no tensor {key}: fetch or convert it again")
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"{key} in {self.path} is {tensor.dtype}, which numpy does not have")
        if not tensor.length:
            return np.zeros(tensor.shape, _DTYPES[tensor.dtype])
        if self._content is not None:
            count = prod(tensor.shape)
            return np.frombuffer(self._content, _DTYPES[tensor.dtype], count, tensor.offset).reshape(tensor.shape)
        try:
            return np.memmap(self.path, _DTYPES[tensor.dtype], "r", tensor.offset, tensor.shape)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {self.path}: {error}. Fetch or convert it again.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key of its header stands twice")
    return values


def _metadata(header: Any) -> dict[str, str]:
    """The texts of a header, which are removed from it."""
    if not isinstance(header, dict):
        raise ValueError("its header is not a table")
    texts = header.pop("__metadata__", {})
    return {key: value for key, value in texts.items() if isinstance(value, str)} if isinstance(texts, dict) else {}


def _checked(header: dict[str, Any], data: int, size: int) -> dict[str, StoredTensor]:
    """The tensors of a header, for a file of ``size`` bytes whose data begin at byte ``data``."""
    tensors = {key: _tensor(key, entry, data) for key, entry in header.items()}
    end = data
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].length)):
        if tensor.offset != end:
            raise ValueError(f"{key} begins at byte {tensor.offset}, and the tensor before it ends at {end}")
        end += tensor.length
    if end != size:
        raise ValueError(f"its tensors end at byte {end}, and the file has {size}")
    return tensors


def _tensor(key: str, entry: Any, data: int) -> StoredTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{key} lacks dtype, shape or offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise ValueError(f"{key} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"shape or offsets of {key} are not lists of integers of at least 0")
    start, stop = offsets
    if stop - start != prod(shape) * _SIZES[dtype]:
        raise ValueError(f"{key} has {stop - start} bytes, and {shape} {dtype} has {prod(shape) * _SIZES[dtype]}")
    return StoredTensor(dtype, tuple(shape), data + start, stop - start)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)

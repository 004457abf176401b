"""Weights of an ONNX graph that stay in a safetensors file: one copy serves torch and ONNX Runtime.

An initializer of the graph becomes ONNX external data: the name of the file, an offset and a length. Packed weights
(``deop.networks.loading.pack``) are unpacked by nodes without other inputs, which the runtime computes once, at load:

    int8 rows and their scales -> DequantizeLinear        float16 -> Cast        float32: as it is
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import CheckpointError

if TYPE_CHECKING:
    import onnx

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I8": np.dtype("i1")}
_SCALE = "::scale"
_PROBE = 8  # numbers that find a tensor; initializers with fewer stay in the graph


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in the file.

    Attributes:
        key: its key.
        dtype: of the stored numbers.
        shape: its shape.
        offset: of its first byte in the file.
    """

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def row(self) -> int:
        """Numbers in one row, that is, one index of the first dimension."""
        return int(np.prod(self.shape[1:]))


@dataclass(frozen=True)
class Place:
    """Consecutive rows of a stored tensor that an initializer is equal to.

    Attributes:
        stored: the tensor.
        first: first row.
        rows: number of rows.
        transposed: whether the initializer is the transposed matrix.
    """

    stored: Stored
    first: int
    rows: int
    transposed: bool


class StoredWeights:
    """The tensors of a safetensors file, which can be found by their values.

    Args:
        path: the file.

    Raises:
        CheckpointError: a file that is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = path.read_bytes()
            length = struct.unpack("<Q", data[:8])[0]
            header = json.loads(data[8 : 8 + length])
            self.stored = {
                key: Stored(key, _DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
                for key, entry in header.items()
                if key != "__metadata__" and entry["dtype"] in _DTYPES
            }
            numbers = {
                key: np.frombuffer(data, one.dtype, int(np.prod(one.shape)), one.offset)
                for key, one in self.stored.items()
            }
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise CheckpointError(f"cannot read {path}: {error}. Fetch or convert the folder again.") from error
        self._values: dict[str, np.ndarray] = {}
        self._places: dict[bytes, list[tuple[str, int]]] = {}
        for key, one in self.stored.items():
            if key.endswith(_SCALE) or not one.shape:
                continue
            values = numbers[key].astype(np.float32).reshape(one.shape[0], -1)
            if key + _SCALE in numbers:
                values = values * numbers[key + _SCALE][:, None]
            self._values[key] = values.reshape(-1)
            for start in range(0, values.size, values.shape[1]) if values.ndim > 1 else ():
                probe = self._values[key][start : start + _PROBE].tobytes()
                self._places.setdefault(probe, []).append((key, start))

    def find(self, values: np.ndarray) -> Place | None:
        """The rows that a float32 array is equal to, as it is or transposed; None if there are none."""
        for transposed in (False, True) if values.ndim == 2 else (False,):
            flat = np.ascontiguousarray(values.T if transposed else values).reshape(-1)
            for key, start in self._places.get(flat[:_PROBE].tobytes(), []):
                stored = self.stored[key]
                if flat.size % stored.row == 0 and np.array_equal(self._values[key][start : start + flat.size], flat):
                    return Place(stored, start // stored.row, flat.size // stored.row, transposed)
        return None

    def scale_of(self, stored: Stored) -> Stored | None:
        """The scales of an int8 tensor."""
        return self.stored.get(stored.key + _SCALE)


def refer_to_weights(model: "onnx.ModelProto", weights: StoredWeights) -> None:
    """Replace the weights in a graph by references to a file beside it, in place; debugging information is dropped.

    Args:
        model: the graph, with weights as float32 initializers.
        weights: the file; the graph must be written to the same folder.

    Raises:
        CheckpointError: an initializer of more than 256 numbers is not in the file, or is not float32.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    kept, external, nodes = [], {}, []

    def refer(stored: Stored, first: int, rows: int) -> str:
        """The name of the initializer that reads rows of a stored tensor."""
        name = f"{stored.key}[{first}:{first + rows}]"
        if name not in external:
            size = stored.row * stored.dtype.itemsize
            tensor = TensorProto(name=name, dims=(rows, *stored.shape[1:]), data_location=TensorProto.EXTERNAL)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(stored.dtype)
            entries = {"location": weights.path.name, "offset": stored.offset + first * size, "length": rows * size}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            external[name] = tensor
        return name

    for initializer in graph.initializer:
        values = numpy_helper.to_array(initializer)
        place = weights.find(values) if values.dtype == np.float32 and values.size >= _PROBE else None
        if place is None:
            if values.size > 256:
                raise CheckpointError(
                    f"{weights.path} does not hold the weights of this model: it lacks {initializer.name} "
                    f"{tuple(values.shape)}. Export into the folder that the model was loaded from"
                )
            kept.append(numpy_helper.from_array(values, initializer.name))
            continue
        rows = (place.rows, *place.stored.shape[1:])
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        if place.stored.dtype == np.int8:
            scale = weights.scale_of(place.stored)
            if scale is None:
                raise CheckpointError(f"{weights.path} has no scales for {place.stored.key}: convert it again")
            steps.append(("DequantizeLinear", [refer(scale, place.first, place.rows)], {"axis": 0}))
        elif place.stored.dtype == np.float16:
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        if place.transposed:
            if len(rows) > 2:
                steps.append(("Flatten", [], {"axis": 1}))
            steps.append(("Transpose", [], {"perm": [1, 0]}))
        elif rows != values.shape:
            shape = f"{initializer.name}::shape"
            kept.append(numpy_helper.from_array(np.array(values.shape, np.int64), shape))
            steps.append(("Reshape", [shape], {}))
        steps = steps or [("Identity", [], {})]
        source = refer(place.stored, place.first, place.rows)
        for index, (kind, more, attributes) in enumerate(steps):
            target = initializer.name if index == len(steps) - 1 else f"{initializer.name}::{index}"
            nodes.append(helper.make_node(kind, [source, *more], [target], **attributes))
            source = target

    nodes += graph.node
    for node in nodes:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for field in ("node", "initializer", "value_info", "metadata_props", "doc_string"):
        graph.ClearField(field)
    model.ClearField("metadata_props")
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *external.values()])

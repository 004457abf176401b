"""Weights of an ONNX graph that stay in a safetensors file: one copy serves torch and ONNX Runtime.

An initializer of the graph becomes ONNX external data: the name of the file, an offset and a length. Packed weights
(``deop.networks.loading.pack``) are unpacked by nodes without other inputs, which the runtime computes once, at load:

    int8 rows and their scales -> DequantizeLinear        float16 -> Cast        float32: as it is

A graph in int8 (``deop.export.quantize``) refers to the stored int8 rows and scales themselves.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import CheckpointError
from deop.tensors import StoredTensor, TensorFile

if TYPE_CHECKING:
    import onnx

_SCALE = "::scale"
_FLOATS = ("F32", "F16")
_PROBE = 8  # numbers that find a tensor; initializers with fewer stay in the graph
_SMALLEST_PACKED = 2048  # numbers in a tensor; ``pack`` stores smaller ones as float16
_LARGEST_CONSTANT = 256  # numbers; larger initializers must be weights


@dataclass(frozen=True)
class Place:
    """Consecutive rows of a stored tensor that an initializer is equal to.

    Attributes:
        key: of the tensor.
        first: first row.
        rows: number of rows.
        transposed: whether the initializer is the transposed matrix.
    """

    key: str
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
        self.file = TensorFile(path)
        self._values: dict[str, np.ndarray] = {}
        self._places: dict[bytes, list[tuple[str, int]]] = {}
        for key, tensor in self.file.tensors.items():
            scale = self.scale_of(key)
            if key.endswith(_SCALE) or not tensor.shape or (tensor.dtype not in _FLOATS and scale is None):
                continue
            values = self.file[key].astype(np.float32).reshape(tensor.shape[0], -1)
            if scale is not None:
                values = values * self.file[scale][:, None]
            self._values[key] = values.reshape(-1)
            for start in range(0, values.size, values.shape[1]):
                probe = self._values[key][start : start + _PROBE].tobytes()
                self._places.setdefault(probe, []).append((key, start))

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """Where each tensor lies, by key."""
        return self.file.tensors

    def find(self, values: np.ndarray) -> Place | None:
        """The rows that a float32 array is equal to, as it is or transposed; None if there are none."""
        for transposed in (False, True) if values.ndim == 2 else (False,):
            flat = np.ascontiguousarray(values.T if transposed else values).reshape(-1)
            for key, start in self._places.get(flat[:_PROBE].tobytes(), []):
                row = prod(self.tensors[key].shape[1:])
                if flat.size % row == 0 and np.array_equal(self._values[key][start : start + flat.size], flat):
                    return Place(key, start // row, flat.size // row, transposed)
        return None

    def scale_of(self, key: str) -> str | None:
        """The key of the scales of an int8 tensor; None: it has none."""
        scale = key + _SCALE
        return scale if self.tensors[key].dtype == "I8" and scale in self.tensors else None


def refer_to_weights(model: "onnx.ModelProto", weights: StoredWeights) -> None:
    """Replace the weights in a graph by references to a file beside it, in place.

    Args:
        model: the graph, with weights as float32 initializers, or int8 initializers with scales.
        weights: the file; the graph must be written to the same folder.

    Raises:
        CheckpointError: an initializer of more than 256 numbers is not in the file, or is not float32.
    """
    from onnx import numpy_helper

    graph = model.graph
    references = _References(weights)
    kept: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    quantized = _quantized(model)
    scales = {name + _SCALE for name in quantized}
    for initializer in graph.initializer:
        name, values = initializer.name, numpy_helper.to_array(initializer)
        if name in scales:
            continue  # it is treated together with its rows
        if name in quantized:
            rows = quantized[name]
            place = weights.find(rows)
            if place is not None and weights.scale_of(place.key) is not None:
                more, constants = references.unpack(place, name, values.shape, scales_apart=True)
                nodes += more
                kept += constants
                continue
            if values.size >= _SMALLEST_PACKED:
                raise CheckpointError(f"{weights.file.path} has no int8 rows for {name}: pack the model again")
            kept += [initializer, next(one for one in graph.initializer if one.name == name + _SCALE)]
            continue
        place = weights.find(values) if values.dtype == np.float32 and values.size >= _PROBE else None
        if place is not None:
            more, constants = references.unpack(place, name, values.shape)
            nodes += more
            kept += constants
        elif values.size <= _LARGEST_CONSTANT:
            kept.append(initializer)
        else:
            raise CheckpointError(
                f"{weights.file.path} does not hold the weights of this model: it lacks {initializer.name} "
                f"{tuple(values.shape)}. Export into the folder that the model was loaded from"
            )
    kept = [*kept, *references.tensors.values()]
    nodes += graph.node
    for field in ("node", "initializer"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _quantized(model: "onnx.ModelProto") -> dict[str, np.ndarray]:
    """The float32 values of the int8 initializers that have scales, by name."""
    from onnx import TensorProto, helper, numpy_helper

    arrays = {one.name: one for one in model.graph.initializer}
    values = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        rows, scale = arrays.get(node.input[0]), arrays.get(node.input[0] + _SCALE)
        if rows is None or scale is None or rows.data_type != TensorProto.INT8:
            continue
        axis = next(helper.get_attribute_value(one) for one in node.attribute if one.name == "axis")
        shape = [-1 if index == axis else 1 for index in range(len(rows.dims))]
        values[rows.name] = numpy_helper.to_array(rows) * numpy_helper.to_array(scale).reshape(shape)
    return values


class _References:
    """Initializers that refer to rows of stored tensors, each once."""

    def __init__(self, weights: StoredWeights) -> None:
        self.weights = weights
        self.tensors: dict[str, onnx.TensorProto] = {}

    def refer(self, key: str, first: int, rows: int) -> str:
        """The name of the initializer that reads rows of a stored tensor."""
        from onnx import TensorProto

        name = f"{key}[{first}:{first + rows}]"
        if name not in self.tensors:
            stored = self.weights.tensors[key]
            size = stored.length // stored.shape[0]
            tensor = TensorProto(name=name, dims=(rows, *stored.shape[1:]), data_location=TensorProto.EXTERNAL)
            tensor.data_type = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}[
                stored.dtype
            ]
            location = self.weights.file.path.name
            entries = {"location": location, "offset": stored.offset + first * size, "length": rows * size}
            for entry, value in entries.items():
                tensor.external_data.add(key=entry, value=str(value))
            self.tensors[name] = tensor
        return name

    def unpack(
        self, place: Place, name: str, shape: tuple[int, ...], *, scales_apart: bool = False
    ) -> "tuple[list[onnx.NodeProto], list[onnx.TensorProto]]":
        """Nodes that turn stored rows into an initializer, and the constants that they need.

        Args:
            place: the rows.
            name: name of the initializer.
            shape: its shape.
            scales_apart: leave int8 as it is, and add its scales as another tensor, "<name>::scale".
        """
        from onnx import TensorProto, helper, numpy_helper

        stored = self.weights.tensors[place.key]
        rows = (place.rows, *stored.shape[1:])
        constants: list[TensorProto] = []
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        scale = self.weights.scale_of(place.key)
        if scale is not None and not scales_apart:
            steps.append(("DequantizeLinear", [self.refer(scale, place.first, place.rows)], {"axis": 0}))
        elif stored.dtype == "F16":
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        if place.transposed:
            if len(rows) > 2:
                steps.append(("Flatten", [], {"axis": 1}))
            steps.append(("Transpose", [], {"perm": [1, 0]}))
        elif rows != shape:
            constants.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}::shape"))
            steps.append(("Reshape", [f"{name}::shape"], {}))
        source = self.refer(place.key, place.first, place.rows)
        nodes = []
        for index, (kind, more, attributes) in enumerate(steps or [("Identity", [], {})]):
            target = name if index >= len(steps) - 1 else f"{name}::{index}"
            nodes.append(helper.make_node(kind, [source, *more], [target], **attributes))
            source = target
        if scale is not None and scales_apart:
            apart = self.refer(scale, place.first, place.rows)
            nodes.append(helper.make_node("Identity", [apart], [name + _SCALE]))
        return nodes, constants

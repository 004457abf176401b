"""Static int8 for ONNX graphs: weights and activations in 8 bits, with ranges observed on photos.

Convolutions and products with weights get int8 weights with one scale for each output channel, symmetric, by the rule
of ``deop.networks.loading.pack``; so a packed model keeps its stored weights. Their inputs become uint8 with one scale
and zero point for each tensor. The graph stays in float32 notation, with QuantizeLinear and DequantizeLinear around the
operations ("QDQ"); ONNX Runtime fuses these into integer kernels at load.

    x -> Quantize -> Dequantize -> Conv     -> Quantize -> Dequantize        = QLinearConv, and QLinearAdd for sums
    x -> Quantize -> Dequantize -> MatMul                                    = MatMulIntegerToFloat

The results of products with weights stay in float32: quantising them again would gain no time and lose accuracy.
Products with matrices (not batches of them) or with a fixed number of rows, such as the queries of a decoder, stay in
float32 as a whole: they are small, and ONNX Runtime merges them with their bias before it looks for int8.
"""

import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import SettingError

if TYPE_CHECKING:
    import onnx

SCALE = "::scale"
"""The scales of an int8 initializer are an initializer with this added to its name."""
MIN_WEIGHTS = 2048
"""Products with fewer weights stay in float32, as in ``pack``."""
_LEVELS = 255

Feed = Mapping[str, np.ndarray]
Ranges = Mapping[str, tuple[float, float]]
"""Minimum and maximum of a tensor by its name."""


@dataclass(frozen=True)
class Layer:
    """A node of a graph that can be computed in int8.

    Attributes:
        index: of the node in the graph.
        name: name of its weights; "" for a sum.
        kind: "Conv", "MatMul" or "Add".
        inputs: the tensors that become uint8.
        output: the tensor that becomes uint8 as well, after the activation that the kernel includes; "" for none.
        clip: index of that activation; -1 without one.
    """

    index: int
    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str = ""
    clip: int = -1


def quantize(
    model: "onnx.ModelProto",
    photos: Iterable[Feed],
    *,
    keep: Callable[[Layer], bool] | None = None,
    typical: bool = False,
) -> "onnx.ModelProto":
    """A graph in int8.

    Args:
        model: the graph in float32, with its weights as initializers inside it. It is not changed.
        photos: inputs of the graph for some dozens of photos like those that it will be used for.
        keep: which layers stay in float32, besides those that ``layers`` excludes; None: no others.
        typical: as in ``observe``.

    Returns:
        The graph, with int8 initializers and their scales (``SCALE``).

    Raises:
        SettingError: no photos, or a graph without layers that can be quantised.
    """
    chosen: list[Layer] = []
    for layer in layers(model):
        # A sum is only quantised together with both of its terms.
        apart = layer.kind == "Add" and not set(layer.inputs) <= {one.output for one in chosen}
        if not apart and (keep is None or not keep(layer)):
            chosen.append(layer)
    return rewrite(model, chosen, observe(model, chosen, photos, typical=typical))


def stays_in_float32(layer: Layer) -> bool:
    """Whether a layer of the small model stays in float32: most of its trunk, which its masks depend on, and sums.

    Measured on training photos (docs/speed.md): almost all differences of label maps come from the trunk, more from its
    start than from its end. Sums in int8 would round the results of all blocks again, and save no time.
    """
    return layer.kind == "Add" or re.search(r"\btrunk\.(stem|blocks\.(\d|1[0-4]))\.", layer.name) is not None


def layers(model: "onnx.ModelProto") -> list[Layer]:
    """The layers of a graph that can be computed in int8.

    Raises:
        SettingError: there are none.
    """
    graph = Graph(model)
    found = [layer for index in range(len(graph.nodes)) if (layer := graph.layer(index)) is not None]
    # Sums of two results of convolutions stay in integers, so that the trunk never leaves them.
    outputs = {layer.output for layer in found}
    for index, node in enumerate(graph.nodes):
        if node.op_type == "Add" and set(node.input) <= outputs and node.input[0] != node.input[1]:
            found.append(Layer(index, "", "Add", tuple(node.input), node.output[0]))
            outputs.add(node.output[0])
    if not found:
        raise SettingError("cannot export in int8: the graph has no convolutions or products with weights")
    return sorted(found, key=lambda layer: layer.index)


class Graph:
    """A graph with its constants.

    Args:
        model: with its weights inside it.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self.initializers = {one.name: one for one in model.graph.initializer}
        self.producers = {name: index for index, node in enumerate(self.nodes) for name in node.output}
        self.outputs = {output.name for output in model.graph.output}
        self.users: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.users.setdefault(name, []).append(index)
        self._to_array = numpy_helper.to_array
        self._shapes = _shapes(model)
        self._constants: dict[str, np.ndarray | None] = {}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a tensor that does not depend on the inputs of the graph, or None."""
        if name not in self._constants:
            self._constants[name] = self._evaluate(name)
        return self._constants[name]

    def _evaluate(self, name: str) -> np.ndarray | None:
        if name in self.initializers:
            return self._to_array(self.initializers[name])
        node = self.nodes[self.producers[name]] if name in self.producers else None
        if node is None or node.op_type not in ("Transpose", "Slice", "Reshape", "Identity", "Squeeze", "Unsqueeze"):
            return None
        inputs = {one: self.constant(one) for one in node.input if one}
        if any(value is None for value in inputs.values()):
            return None
        from onnx.reference import ReferenceEvaluator

        outputs: Any = ReferenceEvaluator(node).run(None, inputs)
        value: np.ndarray = outputs[0]
        return value

    def layer(self, index: int) -> Layer | None:
        """The convolution or product with weights at an index, or None."""
        node = self.nodes[index]
        if node.op_type not in ("Conv", "MatMul"):
            return None
        weight = self.constant(node.input[1])
        if weight is None or weight.dtype != np.float32 or weight.size < MIN_WEIGHTS * (node.op_type != "Conv"):
            return None
        if self.constant(node.input[0]) is not None:
            return None
        if node.op_type == "MatMul":
            shape = self._shapes.get(node.input[0])
            merged = shape is not None and (len(shape) < 3 or None not in shape)
            return None if weight.ndim != 2 or merged else Layer(index, node.input[1], "MatMul", (node.input[0],))
        if len(node.input) > 2 and self.constant(node.input[2]) is None:
            return None
        output, clip = node.output[0], -1
        users = self.users.get(output, [])
        if len(users) == 1 and output not in self.outputs and self.nodes[users[0]].op_type in ("Clip", "Relu"):
            # QuantizeLinear clips to its own range, which the observed range makes the same.
            clip = users[0]
            output = self.nodes[clip].output[0]
        return Layer(index, node.input[1], "Conv", (node.input[0],), output, clip)


def _shapes(model: "onnx.ModelProto") -> dict[str, tuple[int | None, ...]]:
    """The shapes of the tensors of a graph as far as they are known; None for dimensions that vary."""
    from onnx.shape_inference import infer_shapes

    try:
        inferred = infer_shapes(model)
    except ValueError:  # more than 2 GB
        return {}
    return {
        value.name: tuple(
            one.dim_value if one.HasField("dim_value") else None for one in value.type.tensor_type.shape.dim
        )
        for value in (*inferred.graph.value_info, *inferred.graph.input)
        if value.type.tensor_type.HasField("shape")
    }


def observe(
    model: "onnx.ModelProto", chosen: Collection[Layer], photos: Iterable[Feed], *, typical: bool = False
) -> Ranges:
    """The ranges of the tensors that become uint8: minimum and maximum over all photos.

    Args:
        model: as in ``quantize``.
        chosen: from ``layers``.
        photos: as in ``quantize``.
        typical: the means of each photo's minimum and maximum instead: finer steps, but rare values are cut off.

    Raises:
        SettingError: there are no photos.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from deop.runtime.providers import import_onnxruntime

    onnxruntime = import_onnxruntime()
    names = sorted({name for layer in chosen for name in (*layer.inputs, layer.output) if name})
    if not names:
        return {}
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "::flat"))
    wanted = []
    for name in names:
        observed.graph.node.append(helper.make_node("Reshape", [name, "::flat"], [f"{name}::flat"]))
        for kind in ("ReduceMin", "ReduceMax"):
            observed.graph.node.append(helper.make_node(kind, [f"{name}::flat"], [f"{name}::{kind}"], keepdims=0))
            observed.graph.output.append(helper.make_tensor_value_info(f"{name}::{kind}", TensorProto.FLOAT, ()))
            wanted.append(f"{name}::{kind}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    with tempfile.TemporaryDirectory(prefix="deop-quantize-") as folder:
        # In files, since a serialised model is limited to 2 GB.
        path = Path(folder) / "graph.onnx"
        onnx.save_model(observed, str(path), save_as_external_data=True, location="weights", size_threshold=1024)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        rows = [session.run(wanted, dict(photo)) for photo in photos]
    if not rows:
        raise SettingError("int8 needs photos to observe the ranges of activations: give a folder of photos")
    lows, highs = np.array(rows).reshape(len(rows), -1, 2).transpose(2, 0, 1)
    ends = (lows.mean(0), highs.mean(0)) if typical else (lows.min(0), highs.max(0))
    return {name: (float(low), float(high)) for name, low, high in zip(names, *ends, strict=True)}


def rewrite(model: "onnx.ModelProto", chosen: Collection[Layer], ranges: Ranges) -> "onnx.ModelProto":
    """The graph with the chosen layers in QDQ form.

    Args:
        model: the graph in float32; it is not changed.
        chosen: from ``layers``.
        ranges: of all inputs and outputs of these layers.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph = Graph(model)
    by_index = {layer.index: layer for layer in chosen}
    clips = {layer.clip for layer in chosen if layer.clip >= 0}
    produced = {layer.output for layer in chosen if layer.output}
    scales: dict[str, tuple[np.float32, int]] = {}
    initializers: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    weights: dict[tuple[str, int], tuple[str, np.ndarray]] = {}
    shared: set[str] = set()

    def constant(name: str, value: np.ndarray) -> str:
        initializers.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def scale_of(name: str) -> tuple[np.float32, int]:
        if name not in scales:
            scales[name] = uint8_scale(*ranges[name])
            constant(f"{name}{SCALE}", np.asarray(scales[name][0], np.float32))
            constant(f"{name}::zero", np.asarray(scales[name][1], np.uint8))
        return scales[name]

    def pair(source: str, name: str, target: str) -> None:
        """Quantise a tensor with the range of ``name``, and dequantise it again."""
        scale_of(name)
        more = [f"{name}{SCALE}", f"{name}::zero"]
        nodes.append(helper.make_node("QuantizeLinear", [source, *more], [f"{target}::q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{target}::q", *more], [target]))

    def quantised(name: str) -> str:
        """The uint8 form of an input, dequantised; added to the graph where it is needed first."""
        if name in produced:
            return name  # its producer quantises it
        target = f"{name}::uint8"
        if name not in shared:
            shared.add(name)
            pair(name, name, target)
        return target

    for index, node in enumerate(graph.nodes):
        if index in clips:
            continue
        layer = by_index.get(index)
        if layer is None:
            nodes.append(node)
            continue
        replaced = onnx.NodeProto()
        replaced.CopyFrom(node)
        for position, name in enumerate(layer.inputs):
            replaced.input[position] = quantised(name)
        bias = ""
        if layer.kind != "Add":
            axis = 0 if layer.kind == "Conv" else 1  # the output channels
            key = (layer.name, axis)
            if key not in weights:
                value = graph.constant(layer.name)
                assert value is not None
                rows, factors = int8_rows(value, axis)
                name = f"{layer.name}::int8" if (layer.name, 1 - axis) not in weights else f"{layer.name}::int8 {axis}"
                constant(name, rows)
                constant(name + SCALE, factors)
                weights[key] = name, factors
            name, factors = weights[key]
            target = f"{node.output[0]}::weight"
            nodes.append(helper.make_node("DequantizeLinear", [name, name + SCALE], [target], axis=axis))
            replaced.input[1] = target
            bias = node.input[2] if len(node.input) > 2 else ""
        if layer.kind == "Conv" and bias:
            replaced.input[2] = int32_bias(nodes, constant, bias, scale_of(layer.inputs[0])[0], name, node.output[0])
        if not layer.output:
            nodes.append(replaced)
            continue
        replaced.output[0] = f"{layer.output}::exact"
        nodes.append(replaced)
        pair(replaced.output[0], layer.output, layer.output)

    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    used = {name for node in nodes for name in node.input} | graph.outputs
    # Nodes that only prepared weights in float32 are no longer needed.
    while True:
        kept = [node for node in nodes if any(output in used for output in node.output)]
        if len(kept) == len(nodes):
            break
        nodes = kept
        used = {name for node in nodes for name in node.input} | graph.outputs
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(one for one in model.graph.initializer if one.name in used)
    result.graph.initializer.extend(initializers.values())
    return result


def int32_bias(
    nodes: "list[onnx.NodeProto]", constant: Callable[[str, np.ndarray], str], bias: str, scale: np.float32,
    weight: str, target: str,
) -> str:  # fmt: skip
    """Nodes that quantise a bias to the unit of the integer sums; ONNX Runtime computes them once, at load."""
    from onnx import TensorProto, helper

    input_scale, unit, whole = constant(f"{target}::input scale", np.asarray(scale)), f"{target}::unit", f"{target}::b"
    nodes.append(helper.make_node("Mul", [weight + SCALE, input_scale], [unit]))
    nodes.append(helper.make_node("Div", [bias, unit], [f"{target}::b/unit"]))
    nodes.append(helper.make_node("Round", [f"{target}::b/unit"], [f"{target}::rounded"]))
    nodes.append(helper.make_node("Cast", [f"{target}::rounded"], [whole], to=TensorProto.INT32))
    nodes.append(helper.make_node("DequantizeLinear", [whole, unit], [f"{target}::bias"], axis=0))
    return f"{target}::bias"


def int8_rows(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8, and one scale for each index of an axis: max |row| / 127, as ``deop.networks.loading.pack``.

    Weights that were unpacked keep their values exactly: where the scale has been rounded, its neighbours are tried.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scale = np.maximum(np.abs(rows).max(1), np.float32(1e-12)) / np.float32(127)
    whole = np.rint(rows / scale[:, None])
    for neighbour in (np.nextafter(scale, np.float32(0)), np.nextafter(scale, np.float32(np.inf))):
        better = (whole * neighbour[:, None] == rows).all(1) & (whole * scale[:, None] != rows).any(1)
        scale = np.where(better, neighbour, scale)
    shape = np.moveaxis(weight, axis, 0).shape
    return np.moveaxis(whole.astype(np.int8).reshape(shape), 0, axis).copy(), scale.astype(np.float32)


def uint8_scale(low: float, high: float) -> tuple[np.float32, int]:
    """Scale and zero point of uint8 for a range, which is extended to include 0.

    >>> uint8_scale(0.0, 6.0)
    (np.float32(0.023529412), 0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / _LEVELS, 1e-12))
    return scale, int(np.clip(np.rint(-low / scale), 0, _LEVELS))

"""Operations that onnxruntime-web's WebGPU build lacks, written in others that it has. Needs ``onnx``."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def rewrite_for_webgpu(model: "onnx.ModelProto") -> None:
    """Rewrite a graph in place, so that WebGPU runs it too; results change by rounding alone.

    * Numbers of double precision, which compute sizes, become single precision.
    * An antialiased bilinear ``Resize`` becomes two matrix products.

    Args:
        model: a graph whose antialiased resizes shrink both sides of maps (B, C, H, W), with sizes as input.

    Raises:
        ValueError: an antialiased resize of another kind.
    """
    _to_single_precision(model.graph)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Resize" and any(each.name == "antialias" and each.i for each in node.attribute):
            nodes += _matrix_products(node)
        else:
            nodes.append(node)
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]  # clearing the field frees its nodes
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def _to_single_precision(graph: "onnx.GraphProto") -> None:
    from onnx import TensorProto, numpy_helper

    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.DOUBLE:
            values = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
            elif node.op_type == "Constant" and attribute.t.data_type == TensorProto.DOUBLE:
                values = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(values))


def _matrix_products(node: "onnx.NodeProto") -> "list[onnx.NodeProto]":
    """Nodes that resize the last two sides: rows @ maps @ columns^T.

    With s = length / target, place i of the result is the mean of the cells j, weighted by
    max(0, 1 - |j + 0.5 - (i + 0.5) s| / s): a triangle twice as wide as a place, cut off at the edges.
    """
    from onnx import TensorProto, helper, numpy_helper

    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if settings.get("mode") != b"linear" or not settings.get("exclude_outside") or len(node.input) != 4:
        raise ValueError(f"cannot write the antialiased resize {node.name} as matrix products")
    made: list[Any] = []

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{node.name}::{len(made)}"
        made.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(value: Any, dtype: Any) -> str:
        return add("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def places(count: str) -> str:
        """0.5, 1.5, ... (count,) float32."""
        numbers = add("Range", constant(0, np.int64), count, constant(1, np.int64))
        return add("Add", add("Cast", numbers, to=TensorProto.FLOAT), half)

    maps, sizes = node.input[0], node.input[3]
    half, one, zero = (constant(value, np.float32) for value in (0.5, 1, 0))
    shape = add("Shape", maps)

    def weights(axis: int) -> str:
        """(target, length) of one side."""
        length, target = (add("Gather", each, constant(axis, np.int64)) for each in (shape, sizes))
        scale = add("Div", *(add("Cast", each, to=TensorProto.FLOAT) for each in (length, target)))
        centres = add("Unsqueeze", add("Mul", places(target), scale), constant([1], np.int64))
        distance = add("Div", add("Abs", add("Sub", places(length), centres)), scale)
        triangle = add("Max", add("Sub", one, distance), zero)
        return add("Div", triangle, add("ReduceSum", triangle, constant([1], np.int64), keepdims=1))

    rows = add("MatMul", weights(2), maps)
    columns = add("Transpose", weights(3), perm=[1, 0])
    made.append(helper.make_node("MatMul", [rows, columns], list(node.output), name=node.name))
    return made

"""Graphs rewritten for WebGPU give what they gave before, and have nothing left that WebGPU lacks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deop.export.webgpu import rewrite_for_webgpu
from deop.zoo import NANO

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def resize_graph(mode: str = "linear") -> "onnx.ModelProto":
    """An antialiased resize of maps (B, C, H, W) to a size that is computed in double precision: half of the input."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["size"], ["double"], to=types.DOUBLE),
        helper.make_node("Mul", ["double", "factor"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["sizes"], to=types.INT64),
        helper.make_node(
            "Resize", ["maps", "", "", "sizes"], ["result"], name="resize", mode=mode, antialias=1, exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
    ]  # fmt: skip
    factor = onnx.numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float64), "factor")
    inputs = [
        helper.make_tensor_value_info("maps", types.FLOAT, ["b", "c", "h", "w"]),
        helper.make_tensor_value_info("size", types.INT64, [4]),
    ]
    outputs = [helper.make_tensor_value_info("result", types.FLOAT, ["b", "c", "y", "x"])]
    graph = helper.make_graph(nodes, "resize", inputs, outputs, [factor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def is_left(model: "onnx.ModelProto") -> list[str]:
    """The nodes and initializers that WebGPU lacks."""
    double = onnx.TensorProto.DOUBLE
    found = [each.name for each in model.graph.initializer if each.data_type == double]
    for node in model.graph.node:
        for each in node.attribute:
            if each.name == "antialias" and each.i:
                found.append(node.name)
            if node.op_type == "Cast" and each.name == "to" and each.i == double:
                found.append(node.name)
            if each.name == "value" and each.t.data_type == double:
                found.append(node.name)
    return found


@pytest.mark.parametrize("size", [(2, 3, 40, 60), (1, 1, 7, 13), (1, 2, 8, 300)])
def test_an_antialiased_resize_equals_torch(size: tuple[int, ...]) -> None:
    model = resize_graph()
    assert is_left(model)
    rewrite_for_webgpu(model)
    onnx.checker.check_model(model)
    assert is_left(model) == []
    maps = torch.rand(size, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"maps": maps.numpy(), "size": np.array(size, np.int64)})
    target = (size[2] // 2, size[3] // 2)
    expected = torch.nn.functional.interpolate(maps, target, mode="bilinear", antialias=True, align_corners=False)
    np.testing.assert_allclose(result, expected.numpy(), atol=2e-6)


def test_another_antialiased_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="resize"):
        rewrite_for_webgpu(resize_graph("cubic"))


def test_the_graph_of_nano_has_nothing_that_webgpu_lacks() -> None:
    assert is_left(onnx.load(Path(NANO, "encode.onnx"), load_external_data=False)) == []

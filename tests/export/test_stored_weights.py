"""Weights of a graph that stay in the safetensors file: run by ONNX Runtime, against the unpacked weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deop.errors import CheckpointError
from deop.export.quantize import int8_rows
from deop.export.stored_weights import StoredWeights, refer_to_weights
from deop.networks.loading import pack, read_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import ModelProto, TensorProto, helper, numpy_helper  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    state = {"matrix": torch.randn(96, 64), "kernel": torch.randn(32, 8, 3, 3), "bias": torch.randn(300)}
    save_file({**pack(state), "plain": torch.randn(40, 30)}, str(tmp_path / "model.safetensors"))
    return tmp_path


def graph_of(values: dict[str, np.ndarray]) -> ModelProto:
    """A graph that returns its weights."""
    nodes = [helper.make_node("Identity", [name], [f"{name} out"]) for name in values]
    outputs = [
        helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, one.shape) for name, one in values.items()
    ]
    weights = [numpy_helper.from_array(one, name) for name, one in values.items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", [], outputs, weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )


def test_weights_are_read_from_the_file(folder):
    state = {key: value.float().numpy() for key, value in read_weights(folder).items()}
    values = {
        "whole": state["matrix"],
        "transposed": np.ascontiguousarray(state["matrix"].T),
        "rows": state["matrix"][32:64],
        "transposed rows": np.ascontiguousarray(state["matrix"][32:64].T),
        "reshaped": state["kernel"].reshape(4, 64, 9),
        "kernel": state["kernel"],
        "half": state["bias"],
        "part": state["bias"][100:150],
        "float": state["plain"],
        "constant": np.arange(5, dtype=np.float32),
    }
    graph = graph_of(values)
    refer_to_weights(graph, StoredWeights(folder / "model.safetensors"))
    content = graph.SerializeToString()
    (folder / "graph.onnx").write_bytes(content)
    onnx.checker.check_model(str(folder / "graph.onnx"))
    assert len(content) < 6000
    session = onnxruntime.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    for (name, expected), actual in zip(values.items(), session.run(None, {}), strict=True):
        np.testing.assert_array_equal(actual, expected, err_msg=name)


def test_weights_in_float32_are_unpacked_at_load_in_graphs_in_int8(folder):
    """ONNX Runtime would keep DequantizeLinear there and unpack before each use."""
    state = {key: value.float().numpy() for key, value in read_weights(folder).items()}
    graph = graph_of({"first": state["matrix"], "second": state["matrix"][:32], "third": state["matrix"][32:64]})
    rows, scales = int8_rows(state["kernel"], axis=0)
    for name, values in (("packed", rows), ("packed::scale", scales)):
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    node = helper.make_node("DequantizeLinear", ["packed", "packed::scale"], ["packed out"], axis=0)
    graph.graph.node.append(node)
    graph.graph.output.append(helper.make_tensor_value_info("packed out", TensorProto.FLOAT, rows.shape))
    refer_to_weights(graph, StoredWeights(folder / "model.safetensors"))
    (folder / "graph.onnx").write_bytes(graph.SerializeToString())
    onnx.checker.check_model(str(folder / "graph.onnx"))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("DequantizeLinear") == 1  # of the weights that are used in int8
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = onnxruntime.InferenceSession(folder / "graph.onnx", options, providers=["CPUExecutionProvider"])
    first, second, third, packed = session.run(None, {})
    np.testing.assert_array_equal(first, state["matrix"])
    np.testing.assert_array_equal(np.concatenate([second, third]), state["matrix"][:64])
    np.testing.assert_array_equal(packed, state["kernel"])
    optimized = onnx.load(folder / "optimized.onnx").graph.node
    assert "Mul" not in [node.op_type for node in optimized]


def test_weights_of_another_model_are_refused(folder):
    graph = graph_of({"strange": np.ones((20, 20), np.float32)})
    with pytest.raises(CheckpointError, match="strange"):
        refer_to_weights(graph, StoredWeights(folder / "model.safetensors"))


@pytest.mark.parametrize("content", [b"", b"1234", b"\x10\0\0\0\0\0\0\0not json here..."])
def test_damaged_file_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        StoredWeights(tmp_path / "model.safetensors")

"""Graphs in int8: against float32, against the packing of weights, and what ONNX Runtime makes of them."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from deop.errors import CheckpointError, SettingError
from deop.networks.loading import pack, unpack

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deop.export.quantize import int8_rows, layers, observe, quantize, uint8_scale  # noqa: E402
from deop.export.stored_weights import StoredWeights, refer_to_weights  # noqa: E402

KEYS = {"stem": (16, 3, 3, 3), "depthwise": (16, 1, 3, 3), "mix": (16, 16, 1, 1), "up": (48, 64), "down": (64, 48)}


@pytest.fixture
def state():
    """Weights as they are after packing and unpacking."""
    generator = torch.Generator().manual_seed(0)
    values = {
        key: torch.randn(shape, generator=generator) / shape[-1] ** 0.5 / (1 if len(shape) == 2 else 2)
        for key, shape in KEYS.items()
    }
    values |= {f"{key}.bias": torch.randn(KEYS[key][0], generator=generator) / 4 for key in KEYS}
    return {key: value.float().numpy() for key, value in unpack(pack(values), "here").items()}


def network(state) -> "onnx.ModelProto":
    """A trunk of convolutions with a sum, then two linear layers; (1, 3, 16, W) -> (1, 4 W, 64)."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "stem", "stem.bias"], ["a"], pads=[1, 1, 1, 1]),
        node("Clip", ["a", "low", "high"], ["b"]),
        node("Conv", ["b", "depthwise", "depthwise.bias"], ["c"], pads=[1, 1, 1, 1], group=16),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "mix", "mix.bias"], ["e"]),
        node("Conv", ["e", "mix", "mix.bias"], ["f"]),
        node("Add", ["e", "f"], ["g"]),
        node("Reshape", ["g", "shape"], ["h"]),
        node("MatMul", ["h", "up.T"], ["i"]),
        node("Add", ["i", "up.bias"], ["j"]),
        node("Gelu", ["j"], ["k"]),
        node("Transpose", ["down"], ["down.T"], perm=[1, 0]),
        node("MatMul", ["k", "down.T"], ["l"]),
        node("Add", ["l", "down.bias"], ["y"]),
    ]
    constants = {
        **{key: value for key, value in state.items() if key != "up"},
        "up.T": np.ascontiguousarray(state["up"].T),
        "low": np.float32(0),
        "high": np.float32(6),
        "shape": np.array([1, -1, 64], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, "W"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, "rows", 64))],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def photos(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def run(model, feed, folder=None) -> tuple[np.ndarray, Counter]:
    """The result of a graph, and the operations that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    optimized = folder / "optimized.onnx"
    options.optimized_model_filepath = str(optimized)
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(folder / "graph.onnx", options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node)
    return session.run(None, feed)[0], kinds


def test_int8_is_near_float32_and_runs_in_integer_kernels(state, tmp_path):
    model = network(state)
    feeds = photos(4)
    small = quantize(model, feeds)
    onnx.checker.check_model(small)
    expected, _ = run(model, feeds[0], tmp_path)
    actual, kinds = run(small, feeds[0], tmp_path)
    error = np.abs(actual - expected).mean() / np.abs(expected).mean()
    assert 0 < error < 0.04
    assert kinds["QLinearConv"] == 4
    assert kinds["QLinearAdd"] == 1
    assert kinds["MatMulIntegerToFloat"] == 2, kinds
    assert not {"Conv", "MatMul", "Clip", "Relu"} & set(kinds)


def test_products_with_a_fixed_number_of_rows_stay_in_float32(state):
    model = network(state)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 16
    assert {layer.kind for layer in layers(model)} == {"Conv", "Add"}


def test_layers_can_stay_in_float32(state, tmp_path):
    model = network(state)
    found = layers(model)
    assert [(layer.kind, layer.name) for layer in found] == [
        ("Conv", "stem"), ("Conv", "depthwise"), ("Conv", "mix"), ("Conv", "mix"), ("Add", ""), ("MatMul", "up.T"),
        ("MatMul", "down.T"),
    ]  # fmt: skip
    feed = photos(1)
    everything, _ = run(quantize(model, feed, keep=lambda layer: True), feed[0], tmp_path)
    np.testing.assert_array_equal(everything, run(model, feed[0], tmp_path)[0])
    _, kinds = run(quantize(model, feed, keep=lambda layer: layer.kind != "Conv"), feed[0], tmp_path)
    assert kinds["QLinearConv"] == 4
    assert not kinds["QLinearAdd"] + kinds["MatMulIntegerToFloat"]
    _, kinds = run(quantize(model, feed, keep=lambda layer: layer.name == "mix"), feed[0], tmp_path)
    assert kinds["QLinearConv"] == 2
    assert not kinds["QLinearAdd"]  # a sum of results in float32


def test_stored_int8_rows_are_used_as_they_are(state, tmp_path):
    save_file(pack({key: torch.from_numpy(value) for key, value in state.items()}), tmp_path / "model.safetensors")
    feeds = photos(2)
    small = quantize(network(state), feeds)
    inside, _ = run(small, feeds[0], tmp_path)
    refer_to_weights(small, StoredWeights(tmp_path / "model.safetensors"))
    references = {one.name: one for one in small.graph.initializer if one.data_location == TensorProto.EXTERNAL}
    for key in ("mix", "up", "down"):
        if np.prod(KEYS[key]) >= 2048:
            assert references[f"{key}[0:{KEYS[key][0]}]"].data_type == TensorProto.INT8
            assert f"{key}::scale[0:{KEYS[key][0]}]" in references
    outside, kinds = run(small, feeds[0], tmp_path)
    np.testing.assert_array_equal(outside, inside)
    assert kinds["QLinearConv"] == 4
    assert kinds["MatMulIntegerToFloat"] == 2


def test_rows_of_another_model_are_refused(state, tmp_path):
    save_file(pack({key: torch.from_numpy(2 * value[::-1]) for key, value in state.items()}), tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"up\.T"):
        refer_to_weights(quantize(network(state), photos(1)), StoredWeights(tmp_path / "w"))


@given(st.integers(0, 2**31), st.sampled_from([0, 1]), st.floats(1e-6, 1e3))
@settings(deadline=None, max_examples=40)
def test_weights_that_were_packed_keep_their_values(seed, axis, size):
    weights = torch.randn(64, 50, generator=torch.Generator().manual_seed(seed)) * size
    packed = pack({"w": weights})
    unpacked = unpack(dict(packed), "here")["w"].numpy()
    rows, scale = int8_rows(np.ascontiguousarray(unpacked.T) if axis else unpacked, axis)
    np.testing.assert_array_equal(rows.T if axis else rows, packed["w"].numpy())
    np.testing.assert_array_equal((rows.T if axis else rows) * scale[:, None], unpacked)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_uint8_covers_the_range_and_has_an_exact_zero(one, other):
    low, high = sorted((one, other))
    scale, zero = uint8_scale(low, high)
    slack = float(scale) * 0.501 + 1e-9
    assert -zero * float(scale) <= low + slack or low > 0
    assert (255 - zero) * float(scale) >= high - slack or high < 0
    assert 0 <= zero <= 255


def test_ranges_include_the_clip_and_all_photos(state):
    feeds = photos(3)
    ranges = observe(network(state), layers(network(state)), feeds)
    low, high = ranges["x"]
    assert low == pytest.approx(min(feed["x"].min() for feed in feeds))
    assert high == pytest.approx(max(feed["x"].max() for feed in feeds))
    assert ranges["b"][0] == 0
    assert "a" not in ranges  # the result of a convolution before its activation is never rounded


def test_what_cannot_be_quantised_is_refused(state):
    with pytest.raises(SettingError, match="photos"):
        quantize(network(state), [])
    empty = network(state)
    del empty.graph.node[:-2]
    empty.graph.node[0].input[0] = "x"
    del empty.graph.node[1:]
    with pytest.raises(SettingError, match="no convolutions"):
        layers(empty)

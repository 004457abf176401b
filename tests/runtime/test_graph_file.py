"""References of an ONNX file, read without the onnx library, against files that the library writes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deop.runtime.graph_file import references

onnx = pytest.importorskip("onnx")
from onnx import ModelProto, TensorProto, helper  # noqa: E402


def external(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, dims=(2,), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "4"), ("location", location), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(nodes=(), initializers=()) -> ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [], list(initializers)))


def test_finds_every_place_of_external_data():
    branch = helper.make_graph([], "branch", [], [], [external("in branch", "c/../../d")])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, value=external("attribute", "b"))
    model = model_of([node], [external("initializer", "a"), helper.make_tensor("here", 1, [1], [1.0])])
    sparse = onnx.SparseTensorProto(values=external("sparse", "e"), indices=external("indices", "f"))
    model.graph.sparse_initializer.append(sparse)
    function = model.functions.add(name="f")
    function.node.append(helper.make_node("Constant", [], ["z"], value=external("in function", "g")))
    model.metadata_props.add(key="kind", value="encode")
    locations, metadata = references(model.SerializeToString())
    assert locations == {"a", "b", "c/../../d", "e", "f", "g"}
    assert metadata == {"kind": "encode"}


@given(st.binary(max_size=200))
def test_other_content_is_a_value_error(content):
    with suppress(ValueError):
        references(content)


def test_cut_file_is_a_value_error():
    content = model_of(initializers=[external("initializer", "a" * 100)]).SerializeToString()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        with pytest.raises(ValueError):
            references(content[:length])

"""The exported graphs of the built-in model."""

import shutil

import pytest

from deop.export.nano import main
from deop.files import read_json
from deop.zoo import NANO

pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_graphs_beside_the_weights_are_those_of_the_code(tmp_path):
    """If this fails, run ``python -m deop.export.nano``."""
    import onnx

    shutil.copytree(NANO, tmp_path / "nano")
    main(tmp_path / "nano")
    graphs = read_json(NANO / "config.json")["onnx"]["graphs"]["float32"]
    for name in (graphs["encode"], graphs["regions"]):
        written, stored = (onnx.load(path / name, load_external_data=False) for path in (tmp_path / "nano", NANO))
        assert [node.op_type for node in written.graph.node] == [node.op_type for node in stored.graph.node]
        assert (tmp_path / "nano" / name).stat().st_size < 1e6
    assert list(read_json(tmp_path / "nano" / "config.json")["onnx"]["graphs"]) == ["float32", "int8"]  # int8 is kept

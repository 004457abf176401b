"""The exported graph of the built-in model."""

import shutil

import pytest

from deop.zoo import NANO, load

pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_graph_beside_the_weights_is_that_of_the_code(tmp_path):
    """If this fails, run ``python -m deop.export.nano``, and update the SHA-256 in the config."""
    import onnx

    from deop.export.encode import export_encoder

    shutil.copytree(NANO, tmp_path / "nano")
    graph = export_encoder(load(NANO, engine="torch", device="cpu"), tmp_path / "nano")
    assert graph.stat().st_size < 1e6
    kinds = [
        [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
        for path in (graph, NANO / "encode.onnx")
    ]
    assert kinds[0] == kinds[1]

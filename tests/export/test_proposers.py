"""Exported folders with proposers of transformers against torch."""

import numpy as np
import pytest

import deop
from deop.errors import SettingError
from deop.images.preprocessing import IMAGENET
from deop.proposals.transformers_networks import TransformersProposer
from tests.export import small
from tests.export.test_networks import compare, exporting  # noqa: F401
from tests.export.test_partition import RandomText
from tests.proposals import tiny_networks

from deop.export.networks import EncodeGraph  # isort: skip

NAMES = ["cat", "sofa", "wall"]
NETWORKS = [tiny_networks.eomt, tiny_networks.eomt_dinov3]


@pytest.mark.parametrize("network", NETWORKS)
def test_square_frames_that_are_traced(exporting, network):  # noqa: F811
    """Photos are resized into the frame by matrices; also long ones, whose shorter side is one cell of the frame."""
    proposer = TransformersProposer(network(), IMAGENET)
    compare(small.model(proposer=proposer), exporting, sizes=((70, 90), (200, 20), (30, 300)))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_the_graph(tmp_path, network):
    pytest.importorskip("onnxscript")
    from deop.export.folder import export_model

    model = small.model(text=RandomText(), proposer=TransformersProposer(network(), IMAGENET))
    runtime = deop.load(export_model(model, tmp_path / "model", names=NAMES), engine="onnx")
    for size in ((70, 90), (130, 60), (64, 64), (40, 200)):
        photo = small.photo(*size)
        expected, actual = model.encode([photo])[0], runtime.encode([photo])[0]
        np.testing.assert_allclose(actual.masks.logits, expected.masks.logits, atol=1e-4)
        np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=1e-5)


def test_oneformer_is_refused():
    proposer = TransformersProposer(tiny_networks.oneformer(), IMAGENET)
    with pytest.raises(SettingError, match=r"OneFormer cannot be exported.*--proposer given"):
        EncodeGraph(small.model(proposer=proposer))

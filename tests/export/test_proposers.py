"""Exported folders with proposers of transformers against torch."""

import numpy as np
import pytest
import torch

import deop
from deop.images.preprocessing import IMAGENET
from deop.proposals.transformers_networks import TransformersProposer
from tests.export import small
from tests.export.test_networks import compare, exporting  # noqa: F401
from tests.export.test_partition import RandomText
from tests.proposals import tiny_networks

from deop.export.traceable import traceable  # isort: skip

NAMES = ["cat", "sofa", "wall"]
SQUARE = [tiny_networks.eomt, tiny_networks.eomt_dinov3]
PYRAMIDS = [tiny_networks.maskformer, tiny_networks.mask2former, tiny_networks.oneformer]


@pytest.mark.parametrize("network", SQUARE)
def test_square_frames_that_are_traced(exporting, network):  # noqa: F811
    """Photos are resized into the frame by matrices; also long ones, whose shorter side is one cell of the frame."""
    proposer = TransformersProposer(network(), IMAGENET)
    compare(small.model(proposer=proposer), exporting, sizes=((70, 90), (200, 20), (30, 300)))


@pytest.mark.parametrize("network", PYRAMIDS)
def test_the_forms_of_swin_that_are_traced(network):
    """Equal to those of transformers, for sizes that are and are not multiples of the windows."""
    proposer = TransformersProposer(network(), IMAGENET).eval()
    for size in ((160, 192), (64, 96), (32, 256)):
        pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = proposer(pixels)[0].logits
            with traceable():
                torch.testing.assert_close(proposer(pixels)[0].logits, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("network", [tiny_networks.eomt, tiny_networks.mask2former, tiny_networks.oneformer])
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

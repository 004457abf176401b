"""Exported models with a partition against torch; the prior is not part of graphs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import deop
from deop.errors import SettingError
from deop.images.preprocessing import IMAGENET
from deop.proposals.transformers_networks import TransformersProposer
from tests.export import small
from tests.export.test_networks import compare, exporting  # noqa: F401
from tests.proposals import tiny_networks

NAMES = ["cat", "sofa", "wall"]


class RandomText(small.NoText):
    """Rows that depend on the letters of a name."""

    identity = "random"
    context_length = 77

    def count_tokens(self, text):
        return 3

    def embed(self, texts):
        return torch.stack(
            [torch.randn(self.width, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        )


def eomt():
    network = tiny_networks.eomt()
    with torch.no_grad():
        network.class_predictor.weight.mul_(30)  # scores that differ
    return TransformersProposer(network, IMAGENET)


@pytest.mark.parametrize("redundant", [True, False])
@pytest.mark.parametrize("proposer", [small.maskformer, eomt])
def test_the_network_that_is_traced(exporting, proposer, redundant):  # noqa: F811
    compare(small.model(proposer=proposer(), partition="score", drop_redundant=redundant), exporting, "region")


@pytest.mark.slow
def test_the_graph(tmp_path):
    pytest.importorskip("onnxscript")
    from deop.export.folder import export_model

    model = small.model(text=RandomText(), proposer=small.maskformer(), partition="score")
    runtime = deop.load(export_model(model, tmp_path / "model", names=NAMES), engine="onnx")
    photo = small.photo()
    expected, actual = model.encode([photo])[0], runtime.encode([photo])[0]
    np.testing.assert_allclose(actual.masks.logits, expected.masks.logits, atol=1e-3)
    np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=1e-4)
    assert actual.settings["partition"] == expected.settings["partition"] == "score"
    masks = np.ones((2, *photo.shape[:2]), bool)
    masks[1, 20:50, 30:60] = False
    expected, actual = model.encode([photo], [masks])[0], runtime.encode([photo], [masks])[0]
    assert (actual.masks.exact == expected.masks.exact).all()
    np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=1e-4)


def test_a_prior_is_not_exported():
    pytest.importorskip("onnxscript")
    from deop.export.folder import check_export

    model = small.model(proposer=eomt())
    check_export(model, "float32")
    model.settings = replace(model.settings, prior=0.3)
    with pytest.raises(SettingError, match=r"prior 0.3.*torch engine"):
        check_export(model, "float32")

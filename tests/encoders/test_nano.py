"""The vision encoder of the small model: the common suite, and what is special about it."""

import pytest
import torch

from deop.encoders.nano import NanoConfig, NanoEncoder
from deop.networks.efficientnet import EfficientNetLite
from deop.networks.shared_trunk import SharedTrunk
from tests.encoders.suite import EncoderSuite


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = NanoConfig(text=8, width=16, heads=2, hidden=16, region_width=8, region_hidden=8)
    encoder = NanoEncoder(config, SharedTrunk(EfficientNetLite())).eval()
    with torch.no_grad():  # fresh projections are nearly 0, so that all embeddings would be alike
        encoder.projection.weight.normal_()
        for block in encoder.blocks:
            block.attention.qkv.weight.mul_(3)
    return encoder


class TestNanoEncoder(EncoderSuite):
    pass


@torch.no_grad()
def test_features_are_normalised(encoder):
    features = encoder(torch.randn(2, 3, 50, 71))
    torch.testing.assert_close(features.patches.norm(dim=1), torch.ones(2, 7, 9))
    torch.testing.assert_close(features.image.norm(dim=1), torch.ones(2))
    assert (features.patches[:, -1] > 0).all()  # the constant channel


@torch.no_grad()
def test_some_cells_equal_those_of_all_cells(encoder):
    features = encoder.trunk(torch.randn(1, 3, 64, 96))
    tokens = encoder.tokens(features)
    whole, part = encoder.finish(tokens, features)[1], encoder.finish(tokens, features, 3, (1, 2))[1]
    torch.testing.assert_close(part, whole[:, :, 1::3, 2::3])


@torch.no_grad()
def test_patches_of_severed_blocks_do_not_mix(encoder):
    tokens = torch.randn(1, 5, 16)
    block = encoder.blocks[-1]
    changed = tokens.clone()
    changed[:, 3] += 1
    before, after = (block(x, None, lambda values, project: values) for x in (tokens, changed))
    others = [1, 2, 4]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, 3], after[:, 3])
    assert not torch.equal(before[:, 0], after[:, 0])  # the class token attends to all patches

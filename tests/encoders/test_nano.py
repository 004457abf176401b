import pytest
import torch

from deop.encoders.nano import NanoConfig, NanoEncoder
from deop.encoders.severance import KINDS, Severance
from deop.networks.efficientnet import EfficientNetLite
from deop.networks.resampling import grid_of
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.nano import NanoProposer, NanoProposerConfig


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    trunk = SharedTrunk(EfficientNetLite())
    config = NanoConfig(text=8, width=16, heads=2, hidden=16, region_width=8, region_hidden=8)
    encoder = NanoEncoder(config, trunk)
    proposer = NanoProposer(NanoProposerConfig(width=16, pixel_width=8, grid=2, learned=3, heads=2, hidden=16), trunk)
    return encoder.eval(), proposer.eval()


@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_any_severance(parts, size, kind):
    encoder, proposer = parts
    with torch.no_grad():
        pixels = torch.randn(2, 3, *size)
        masks = torch.randn(2, 4, -(-size[0] // 4), -(-size[1] // 4))
        features = encoder(pixels, masks, severance=Severance.parse(kind, encoder.severance))
        assert features.patches.shape == (2, encoder.width, *grid_of(size, encoder.patch))
        assert features.image.shape == (2, encoder.width)
        torch.testing.assert_close(features.patches.norm(dim=1), torch.ones(2, *grid_of(size, encoder.patch)))
        for proposals in proposer(pixels):
            assert proposals.logits.shape[1:] == (-(-size[0] // 4), -(-size[1] // 4))


def test_some_cells_are_those_of_all(parts):
    encoder = parts[0]
    with torch.no_grad():
        features = encoder.trunk(torch.randn(1, 3, 64, 96))
        tokens = encoder.tokens(features)
        whole, some = encoder.finish(tokens, features)[1], encoder.finish(tokens, features, 3, (1, 2))[1]
    torch.testing.assert_close(some, whole[:, :, 1::3, 2::3])


def test_severed_patches_do_not_see_each_other(parts):
    encoder = parts[0]
    with torch.no_grad():
        tokens = torch.randn(1, 5, 16)
        block = encoder.blocks[-1]
        changed = tokens.clone()
        changed[:, 3] += 1
        one, other = (block(x, None, lambda values: values) for x in (tokens, changed))
        kept = [0, 1, 2, 4]
        assert torch.equal(one[:, kept], other[:, kept])
        assert not torch.equal(one[:, 3], other[:, 3])


def test_a_padded_image_is_zero_outside(parts):
    encoder = parts[0]
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, 64, 64), sizes=[(64, 64), (32, 48)])
    assert features.patches[1, :, 4:].abs().max() == 0
    assert features.patches[1, :, :, 6:].abs().max() == 0
    assert features.patches[1, :, :4, :6].abs().min() > 0

"""The proposer of the small model: the common suite, superpixels and colours."""

import numpy as np
import pytest
import torch

from deop.networks.efficientnet import NORMALIZATION, EfficientNetLite
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.nano import NanoProposer, NanoProposerConfig, lab, superpixels
from tests.proposals.suite import Part, ProposerSuite


@pytest.fixture(scope="module")
def proposer():
    torch.manual_seed(0)
    config = NanoProposerConfig(
        width=16, pixel_width=8, grid=2, learned=3, heads=2, hidden=16, superpixels=(4, 9), strength=0.4
    )
    return NanoProposer(config, SharedTrunk(EfficientNetLite())).eval()


class TestNanoProposer(ProposerSuite):
    sizes = ((64, 64), (64, 96), (50, 71), (33, 97))
    fixed_number = False

    def exportable(self, proposer):
        return Part(proposer, lambda module, pixels: module.divide(module.trunk(pixels))[-1])


def test_masks_cover_the_image(proposer):
    with torch.no_grad():
        assert proposer(torch.randn(1, 3, 50, 71))[0].logits.shape[1:] == (13, 18)


def test_queries_and_superpixels_each_divide_the_photo(proposer):
    with torch.no_grad():
        (proposals,) = proposer(torch.randn(1, 3, 64, 96))
    shares = proposals.logits.sigmoid()
    assert len(proposals) > 12  # 2 x 2 and 2 x 4 superpixels
    for part, total in ((shares[:-12], 1.0), (shares[-12:-8], 0.4), (shares[-8:], 0.4)):
        torch.testing.assert_close(part.sum(0), torch.full((16, 24), total), atol=5e-3, rtol=0)
    # A superpixel alone never covers a pixel.
    assert shares[-12:].max() < 0.5


def test_logits_are_products_of_queries_and_pixel_embeddings(proposer):
    query, cells = torch.randn(2, 7, 16), torch.randn(2, 8, 5, 6)
    with torch.no_grad():
        kernel = proposer.kernel(proposer.norm(query))
        expected = (
            torch.einsum("bqc,bchw->bqhw", kernel[..., :-1], proposer.pixels(cells)) + kernel[..., -1, None, None]
        )
        torch.testing.assert_close(proposer._division(query, cells), expected)


def test_superpixels_follow_edges_of_colour():
    colours = torch.zeros(1, 3, 24, 24)
    colours[:, 0, :, 13:] = 60.0  # not in the middle, where the border between initial centres is
    owner = superpixels(colours, 16).argmax(1)[0]
    left, right = set(owner[:, :13].flatten().tolist()), set(owner[:, 13:].flatten().tolist())
    assert len(left) > 1
    assert len(right) > 1
    assert not left & right


def test_superpixels_sum_to_one_and_have_about_the_requested_number():
    shares = superpixels(torch.randn(2, 3, 20, 30) * 20, 24)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 20, 30))
    assert 20 <= shares.shape[1] <= 28


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((255, 255, 255), (100.0, 0.0, 0.0)), ((255, 0, 0), (53.2, 80.1, 67.2)), ((0, 0, 255), (32.3, 79.2, -107.9))],
)
def test_lab_is_close_to_the_standard(rgb, expected):
    mean, std = (torch.tensor(values)[:, None, None] for values in (NORMALIZATION.mean, NORMALIZATION.std))
    pixels = (torch.tensor(rgb, dtype=torch.float)[:, None, None].expand(3, 6, 5) - mean) / std
    colours = lab(pixels[None], NORMALIZATION)
    assert colours.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(colours[0, :, 0, 0].numpy(), expected, atol=8)

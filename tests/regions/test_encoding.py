"""Photos whose masks are embedded together, as on a GPU, give the regions that each gives by itself."""

import pytest
import torch

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.images.canvas import Canvas
from deop.proposals.types import Proposals
from deop.regions import encoding
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.regions.encoding import encode_one_pass
from deop.settings import Settings

GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    config = VisionConfig(width=64, layers=2, heads=4, hidden=128, output=32, patch=16, grid=4)
    return CLIPVision(config).eval(), AnchorDecoder(AnchorConfig(width=32, heads=4, hidden=64, slots=8)).eval()


@pytest.mark.parametrize("anchors", ["decoder", "pool"])
@torch.no_grad()
def test_photos_embedded_together(networks, anchors, monkeypatch):
    encoder, decoder = networks
    sizes = [(64, 96), (64, 96), (40, 70), (64, 96), (64, 96)]
    counts = [5, 5, 5, 5, 3]
    canvases = [Canvas((80, 120), size, (64, 96)) for size in sizes]
    proposals = [Proposals(3 * torch.randn(count, 16, 24), torch.arange(count)) for count in counts]
    pixels, settings = torch.randn(5, 3, 64, 96), Settings(anchors=anchors)
    alone = encode_one_pass(encoder, decoder, settings, pixels, canvases, proposals, settings.severance)
    groups: list[range] = []
    group_alike = encoding._group_alike

    def group_as_on_a_gpu(grids, proposals, kinds, device):
        groups.extend(group_alike(grids, proposals, kinds, GPU))
        return groups

    monkeypatch.setattr(encoding, "_group_alike", group_as_on_a_gpu)
    together = encode_one_pass(encoder, decoder, settings, pixels, canvases, proposals, settings.severance)
    assert groups == [range(2), range(2, 3), range(3, 4), range(4, 5)]
    for one, other in zip(alone, together, strict=True):
        assert (other.canvas, other.settings) == (one.canvas, one.settings)
        torch.testing.assert_close(other.regions, one.regions)
        torch.testing.assert_close(other.heatmaps, one.heatmaps)


def test_groups_on_a_gpu_and_on_a_cpu():
    proposals = [Proposals(torch.zeros(2, 4, 4), torch.arange(2)), Proposals(torch.zeros(2, 4, 4))]
    grids, kinds = [(4, 4)] * 4, ["pool", "pool", "pool", "decoder"]
    masks = [proposals[0], proposals[0], proposals[1], proposals[1]]
    assert encoding._group_alike(grids, masks, kinds, GPU) == [range(2), range(2, 3), range(3, 4)]
    assert encoding._group_alike(grids, masks, kinds, torch.device("cpu")) == [range(i, i + 1) for i in range(4)]

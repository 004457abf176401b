"""On a GPU: every precision, severance and shape gives what the CPU gives in float32. Skipped where there is none."""

import pytest
import torch

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import KINDS, Severance
from deop.encoders.types import VisionFeatures
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.regions.encoding import encode_one_pass
from deop.settings import Settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

B16 = VisionConfig(layers=4)
SIZES = [(224, 320), (200, 300)]


def scene():
    torch.manual_seed(0)
    valid = torch.tensor([[True] * 20, [True] * 12 + [False] * 8])
    return torch.randn(2, 3, 224, 320), 3 * torch.randn(2, 20, 56, 80) - 2, valid


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(1)
    return CLIPVision(B16).eval()


def run(tower, severance, device, dtype, compiled=False) -> VisionFeatures:
    pixels, masks, valid = (part.to(device) for part in scene())
    tower = tower.to(device, dtype)
    call = torch.compile(tower) if compiled else tower
    return call(pixels.to(dtype), masks.to(dtype), severance=severance, valid=valid, sizes=SIZES)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_tower(tower, kind):
    severance = Severance(kind, (-2, -1))
    expected = run(tower, severance, "cpu", torch.float32).patches
    inside = expected.abs().sum(1) > 0
    for dtype, least in ((torch.float32, 0.9999), (torch.float16, 0.995), (torch.bfloat16, 0.98)):
        found = run(tower, severance, "cuda", dtype).patches.float().cpu()
        similarity = torch.cosine_similarity(found, expected, dim=1)[inside]
        assert similarity.min() > least, (dtype, similarity.min())
        assert (found.abs().sum(1) > 0).eq(inside).all()
    tower.to("cpu", torch.float32)


@pytest.mark.parametrize("kind", ["none", "gate", "affinity"])
@torch.no_grad()
def test_compiled_tower(tower, kind):
    severance = Severance(kind)
    expected = run(tower, severance, "cuda", torch.bfloat16).patches.float()
    found = run(tower, severance, "cuda", torch.bfloat16, compiled=True).patches.float()
    inside = expected.abs().sum(1) > 0
    assert torch.cosine_similarity(found, expected, dim=1)[inside].min() > 0.98
    tower.to("cpu", torch.float32)


@torch.no_grad()
def test_proposals_and_anchors():
    from deop.images.canvas import Canvas
    from deop.regions.assembly import semantic

    torch.manual_seed(0)
    proposer = MaskFormer(MaskFormerConfig(depth=50)).eval()
    pixels = torch.randn(1, 3, 192, 256)
    expected = proposer(pixels)[0].logits
    encoder = CLIPVision(B16).eval()
    decoder = AnchorDecoder(AnchorConfig()).eval()
    asked = Settings(severance=Severance("gate-normalized"), anchors="decoder")
    canvas = Canvas((400, 500), (190, 250), (192, 256))
    answers = {}
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.float32), ("cuda", torch.bfloat16)):
        for part in (proposer, encoder, decoder):
            part.to(device, dtype)
        given = pixels.to(device, dtype)
        proposals = proposer(given)[0]
        found = proposals.logits.float().cpu()
        assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99
        # The same masks for all, so that what follows is compared by itself.
        same = Proposals(expected.to(device), proposals.slots)
        look = encode_one_pass(encoder, decoder, asked, given, [canvas], [same], asked.severance)[0]
        votes = (100 * look.regions.float() @ torch.eye(512, device=device)[:7].T).softmax(1)
        answers[device, dtype] = look.regions.float().cpu(), semantic(votes, same, canvas).labels
    regions, labels = answers["cpu", torch.float32]
    for key, least, share in ((("cuda", torch.float32), 0.9999, 0.999), (("cuda", torch.bfloat16), 0.97, 0.9)):
        assert torch.cosine_similarity(answers[key][0], regions).min() > least, key
        assert (answers[key][1] == labels).mean() > share, key

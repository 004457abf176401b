"""Results on a GPU, in all precisions, against those of the CPU in float32. Skipped without a GPU."""

import numpy as np
import pytest
import torch

from deop.bench.subjects import RandomText
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import KINDS, Severance
from deop.encoders.types import VisionFeatures
from deop.images.preprocessing import CLIP, Resize, to_batch
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.regions.encoding import encode_one_pass
from deop.regions.on_device import label_without_waiting, photo_masks
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
    expected, expected_image, _ = run(tower, severance, "cpu", torch.float32)
    inside = expected.abs().sum(1) > 0
    for dtype, minimum in ((torch.float32, 0.9999), (torch.float16, 0.995), (torch.bfloat16, 0.98)):
        features = run(tower, severance, "cuda", dtype)
        patches = features.patches.float().cpu()
        similarity = torch.cosine_similarity(patches, expected, dim=1)[inside]
        assert similarity.min() > minimum, (dtype, similarity.min())
        assert (patches.abs().sum(1) > 0).eq(inside).all()
        image = torch.cosine_similarity(features.image.float().cpu(), expected_image, dim=1)
        assert image.min() > minimum, (dtype, image.min())
    tower.to("cpu", torch.float32)


@pytest.mark.parametrize("kind", ["none", "gate", "affinity"])
@torch.no_grad()
def test_compiled_tower(tower, kind):
    severance = Severance(kind)
    expected = run(tower, severance, "cuda", torch.bfloat16).patches.float()
    patches = run(tower, severance, "cuda", torch.bfloat16, compiled=True).patches.float()
    inside = expected.abs().sum(1) > 0
    assert torch.cosine_similarity(patches, expected, dim=1)[inside].min() > 0.98
    tower.to("cpu", torch.float32)


@torch.no_grad()
def test_proposals_and_anchors():
    from deop.images.canvas import Canvas
    from deop.labelling.assembly import semantic

    torch.manual_seed(0)
    proposer = MaskFormer(MaskFormerConfig(depth=50)).eval()
    pixels = torch.randn(1, 3, 192, 256)
    expected = proposer(pixels)[0].logits
    encoder = CLIPVision(B16).eval()
    decoder = AnchorDecoder(AnchorConfig()).eval()
    settings = Settings(severance=Severance("gate-normalized"), anchors="decoder")
    canvas = Canvas((400, 500), (190, 250), (192, 256))
    results = {}
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.float32), ("cuda", torch.bfloat16)):
        for part in (proposer, encoder, decoder):
            part.to(device, dtype)
        converted = pixels.to(device, dtype)
        proposals = proposer(converted)[0]
        logits = proposals.logits.float().cpu()
        assert torch.corrcoef(torch.stack([logits.flatten(), expected.flatten()]))[0, 1] > 0.99
        # The following steps get the same masks on all devices, so that they are compared separately.
        same = Proposals(expected.to(device), proposals.slots)
        encoded = encode_one_pass(encoder, decoder, settings, converted, [canvas], [same], settings.severance)[0]
        votes = (100 * encoded.regions.float() @ torch.eye(512, device=device)[:7].T).softmax(1)
        results[device, dtype] = (
            encoded.regions.float().cpu(),
            semantic(votes.cpu().numpy(), photo_masks(same), canvas).labels,
        )
    regions, labels = results["cpu", torch.float32]
    for key, minimum, share in ((("cuda", torch.float32), 0.9999, 0.999), (("cuda", torch.bfloat16), 0.97, 0.9)):
        assert torch.cosine_similarity(results[key][0], regions).min() > minimum, key
        assert (results[key][1] == labels).mean() > share, key


def test_photos_of_one_size_are_copied_together():
    photos = [np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8) for seed in range(3)]
    expected = to_batch(photos, CLIP, 32, torch.device("cpu"))
    torch.testing.assert_close(to_batch(photos, CLIP, 32, torch.device("cuda")).cpu(), expected)


@pytest.fixture
def forbid_waits():
    """A function after whose call everything that waits for the device raises, until the test ends."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def test_from_photos_to_maps_without_waiting(forbid_waits):
    """The second time: the first time, names and constants are copied to the device."""
    torch.manual_seed(0)
    model = DeOP(
        CLIPVision(B16),
        RandomText(512),
        MaskFormer(MaskFormerConfig(depth=50)),
        anchors=AnchorDecoder(AnchorConfig()),
        settings=Settings(resize=Resize(192), severance=Severance("gate"), anchors="decoder"),
    )
    model = model.to("cuda", torch.bfloat16).eval()
    model.cache = None
    photos = [np.random.default_rng(seed).integers(0, 255, (192, 256, 3), np.uint8) for seed in range(2)]
    vocabulary = model.vocabulary(["cat", "dog", "sofa"])

    @torch.inference_mode()
    def compute_maps():
        encoded = model.encode(photos)
        votes = [model.class_probabilities(photo, vocabulary)[:, :-1].contiguous() for photo in encoded]
        return [
            label_without_waiting(vote, photo.proposals, photo.canvas, names=3)[0]
            for vote, photo in zip(votes, encoded, strict=True)
        ]

    compute_maps()
    forbid_waits()
    maps = compute_maps()
    torch.cuda.set_sync_debug_mode("default")
    assert [tuple(labels.shape) for labels in maps] == [(192, 256)] * 2
    for photo, labels in zip(model.encode(photos), maps, strict=True):
        assert (model.label(photo, vocabulary).label_map == labels.cpu().numpy()).mean() > 0.99

"""The two-stream baseline: parity of crops and ensembles with the original, and edge cases."""

import pytest
import torch

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.errors import SettingError
from deop.images.preprocessing import CLIP
from deop.regions.two_stream import TwoStream, crop_probabilities, crop_proposals, cut, encode_crops, ensemble
from tests.conftest import assert_parity


def normalised(image):
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP.mean, CLIP.std))
    return (image.float() - mean) / std


def test_parity_crops(parity):
    file = parity("two_stream")
    crops = crop_proposals(file["image"], file["mask_probabilities"], side=file.info["resize"])
    assert torch.equal(crops.valid, file["valid"].bool())
    assert torch.equal(crops.boxes, file["boxes_xyxy_exclusive"].long())
    file.check("crops_224", crops.pixels)
    inside = file["mask_probabilities"][crops.valid] > file.info["threshold"]
    for prefix, expand in [("crop_before_resize_", 1.0), ("crop_expand1.5_before_resize_", 1.5)]:
        for index, (mask, box) in enumerate(zip(inside, crops.boxes.tolist(), strict=True)):
            file.check(f"{prefix}{index}", cut(normalised(file["image"]), mask, box, expand)[None])


def test_parity_ensemble(parity):
    file = parity("two_stream")
    valid, masks = file["ensemble.valid"].bool(), file["ensemble.mask_logits"].sigmoid()
    proposal_scores = file["ensemble.mask_cls_logits"].softmax(-1)[:, :-1]
    crops = crop_probabilities(file["ensemble.clip_logits_valid_only"][:, :-1], valid)  # without "no object"
    seen = file["ensemble.seen_flag"].bool()
    scores = {
        "w0.8": ensemble(proposal_scores, crops, seen, 0.8),
        "w0.7": ensemble(proposal_scores, crops, seen, 0.7),
        "w0.8_noflag": ensemble(proposal_scores, crops, None, 0.8),
        "off": proposal_scores,
        "clip_only": crops * valid[:, None],
    }
    stored = file.below("ensemble.semantic.")
    assert set(stored) == set(scores)
    for name, expected in stored.items():
        assert_parity(torch.einsum("nk,nhw->khw", scores[name], masks), expected)


def test_no_proposals_and_empty_proposals():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    none = crop_proposals(image, torch.zeros(0, 20, 30))
    assert none.pixels.shape == (0, 3, 224, 224)
    assert none.boxes.shape == (0, 4)
    masks = torch.zeros(3, 20, 30)
    masks[1, 4:9, 10:12] = 1
    crops = crop_proposals(image, masks, side=64)
    assert crops.valid.tolist() == [False, True, False]
    assert crops.boxes.tolist() == [[10, 4, 12, 9]]
    assert crops.pixels.shape == (1, 3, 64, 64)


@torch.no_grad()
def test_batches_of_crops_equal_single_crops():
    torch.manual_seed(0)
    encoder = CLIPVision(VisionConfig(32, 2, 4, 64, 16, 4, 16)).eval()
    pixels = torch.randn(5, 3, 64, 64)
    together = encode_crops(encoder, pixels, batch=2)
    alone = torch.cat([encode_crops(encoder, one[None]) for one in pixels])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    assert encode_crops(encoder, pixels[:0]).shape == (0, 16)


@pytest.mark.parametrize(
    "values", [{"ensemble": 1.2}, {"ensemble": float("nan")}, {"expand": 0}, {"batch": 0}, {"side": 0}]
)
def test_wrong_settings_raise(values):
    with pytest.raises(SettingError, match=next(iter(values))):
        TwoStream(**values)

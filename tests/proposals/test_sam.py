"""Segment-anything proposers: the common suite, equality with transformers, and filters by hand."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from deop.errors import CheckpointError, MissingDependencyError, SettingError
from deop.images.preprocessing import IMAGENET, Normalization
from deop.proposals import sam
from deop.proposals.sam import SamProposer, SamSettings, box_iou, mask_boxes, stability
from tests.proposals import tiny_networks
from tests.proposals.suite import Part, ProposerSuite

EVERYTHING = SamSettings(
    points_per_side=3, points_per_batch=4, min_iou=-9, min_stability=-1, box_iou=1, min_region_area=0
)


@pytest.fixture(scope="module", params=["sam", "sam2", "sam3"])
def network(request):
    network = getattr(tiny_networks, request.param)()
    with torch.no_grad():  # untrained heads predict almost 0 everywhere
        for parameter in network.mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network


class TestSamProposer(ProposerSuite):
    fixed_number = False
    differentiable = False

    @pytest.fixture
    def proposer(self, network):
        return SamProposer(network, IMAGENET, EVERYTHING)

    def exportable(self, proposer):
        return Part(proposer, lambda module, pixels: module.network.vision_encoder(pixels).last_hidden_state)


def predict(network, framed, points):
    """Mask logits and predicted IoU of transformers' own forward."""
    with torch.no_grad():
        output = network(pixel_values=framed, input_points=points)
    logits, ious = output.pred_masks.flatten(0, 2), output.iou_scores.flatten()
    return logits, ious


def grid(width, height, side=3):
    points = [[(x + 0.5) * width / side, (y + 0.5) * height / side] for y in range(side) for x in range(side)]
    return torch.tensor(points)[None, :, None]


def assert_same_masks(proposals, logits, ious):
    order = ious.argsort(descending=True, stable=True)
    order = order[(logits[order] > 0).flatten(1).any(1)]
    logits = logits[order]
    assert len(logits) > 3
    assert proposals.slots is None
    torch.testing.assert_close(proposals.logits, logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(proposals.scores, ious[order].clamp(0, 1), rtol=1e-3, atol=1e-4)


def test_all_masks_of_all_points(network):
    pixels = torch.randn(2, 3, 64, 64)
    result = SamProposer(network, IMAGENET, EVERYTHING)(pixels)
    for image, proposals in zip(pixels, result, strict=True):
        assert_same_masks(proposals, *predict(network, image[None], grid(64, 64)))


def test_a_wide_photo_is_padded_for_sam_and_stretched_for_its_successors(network):
    pixels = torch.randn(1, 3, 64, 128)
    proposals = SamProposer(network, IMAGENET, EVERYTHING)(pixels)[0]
    size = (32, 64) if network.config.model_type == "sam" else (64, 64)
    framed = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    framed = F.pad(framed, (0, 0, 0, 64 - size[0]))
    logits, ious = predict(network, framed, grid(size[1], size[0]))
    assert_same_masks(proposals, logits[:, : size[0] // 4], ious)


def test_filters(network):
    pixels = torch.randn(1, 3, 64, 64)
    logits, ious = predict(network, pixels, grid(64, 64))
    median = ious.median().item()
    keep = (ious > median) & (stability(logits) > 0.5)
    settings = SamSettings(3, min_iou=median, min_stability=0.5, box_iou=1, min_region_area=0)
    proposals = SamProposer(network, IMAGENET, settings)(pixels)[0]
    assert len(proposals) == (keep & (logits > 0).flatten(1).any(1)).sum()
    distinct = SamProposer(network, IMAGENET, SamSettings(3, min_iou=-9, min_stability=-1, min_region_area=100))(
        pixels
    )[0]
    overlap = box_iou(mask_boxes(distinct.logits > 0)).fill_diagonal_(0)
    assert len(distinct) > 0
    assert overlap.max() <= 0.7


def test_no_masks(network):
    proposals = SamProposer(network, IMAGENET, SamSettings(2, min_iou=1e9))(torch.randn(1, 3, 64, 96))[0]
    assert len(proposals) == 0
    assert proposals.logits.ndim == 3


def test_small_regions_are_flipped(network):
    proposer = SamProposer(network, IMAGENET)
    logits = torch.full((1, 8, 8), -2.0)
    logits[0, :6, :6] = 3.0
    logits[0, 2, 2], logits[0, 7, 7] = -1.5, 0.5
    cleaned, ious = proposer._without_small_regions(logits, torch.tensor([0.9]), 2)
    assert ious.tolist() == pytest.approx([0.9])
    assert cleaned[0, 2, 2] == 1.5
    assert cleaned[0, 7, 7] == -0.5
    assert int((cleaned > 0).sum()) == 36


def test_folder(network, tmp_path):
    network.save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 64, 64)
    first = SamProposer(network, IMAGENET, EVERYTHING)
    loaded = SamProposer.from_folder(tmp_path, settings=EVERYTHING)
    expected = first(pixels)[0].logits
    # Not bit-identical: the order of summation depends on the memory layout of the weights.
    torch.testing.assert_close(loaded(pixels)[0].logits, expected, rtol=1e-3, atol=1e-4)
    config = json.loads(json.dumps(loaded.config_dict()))
    assert SamProposer.from_config(config).settings == EVERYTHING
    with pytest.raises(CheckpointError, match="colour"):
        SamProposer.from_config(config | {"settings": {"colour": 1}})


def test_old_versions_of_transformers_raise(network, tmp_path, monkeypatch):
    network.save_pretrained(tmp_path)
    monkeypatch.setitem(sam.CLASSES, network.config.model_type, "SamOfTheFuture")
    with pytest.raises(MissingDependencyError, match="pip install -U"):
        SamProposer.from_folder(tmp_path)


def test_folder_of_a_sam2_video_model(tmp_path):
    network = tiny_networks.sam2()
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "sam2_video"}))
    proposer = SamProposer.from_folder(tmp_path, settings=EVERYTHING)
    assert not proposer.keeps_shape
    assert torch.equal(proposer.network.no_memory_embedding, network.no_memory_embedding)


def test_folder_of_a_sam3_video_model(tmp_path):
    """Published folders have the detector and the tracker, which share a backbone; the tracker segments images."""
    network = tiny_networks.sam3()
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    tracker = config | {"model_type": "sam3_tracker_video"}
    video = {"model_type": "sam3_video", "tracker_config": tracker, "detector_config": {"model_type": "sam3"}}
    (tmp_path / "config.json").write_text(json.dumps(video))
    state = {"detector_model.text_encoder.weight": torch.zeros(2), "tracker_model.memory_attention.x": torch.zeros(2)}
    for key, value in network.state_dict().items():
        if key.startswith("vision_encoder.neck."):
            key = key.replace("vision_encoder.neck.", "tracker_neck.")
        elif key.startswith("vision_encoder."):
            key = "detector_model." + key
        else:
            key = "tracker_model." + key
        state[key] = value.clone()
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    proposer = SamProposer.from_folder(tmp_path, settings=EVERYTHING)
    for key, value in network.state_dict().items():
        assert torch.equal(proposer.network.state_dict()[key], value), key
    assert proposer.normalization == Normalization((127.5,) * 3, (127.5,) * 3)
    again = SamProposer.from_config(json.loads(json.dumps(proposer.config_dict())))
    again.load_state_dict(proposer.state_dict())
    assert again.frame == 64
    del state["tracker_model.no_memory_embedding"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="no_memory_embedding"):
        SamProposer.from_folder(tmp_path)


def test_settings_without_points_raise():
    with pytest.raises(SettingError, match="point"):
        SamSettings(points_per_side=0)


def test_stability_by_hand():
    logits = torch.tensor([[[2.0, 0.0, -0.5, -3.0]], [[-5.0, -5.0, -5.0, -5.0]], [[2.0, 2.0, 2.0, 2.0]]])
    assert stability(logits).tolist() == pytest.approx([1 / 3, 0, 1])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_boxes_are_tight(seed, height, width):
    masks = np.random.default_rng(seed).random((3, height, width)) > 0.8
    for mask, box in zip(masks, mask_boxes(torch.from_numpy(masks)).tolist(), strict=True):
        y, x = np.nonzero(mask)
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert box == expected


def test_box_iou_by_hand():
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 0, 0]])
    assert box_iou(boxes)[0].tolist() == pytest.approx([1, 1 / 7, 0, 0])

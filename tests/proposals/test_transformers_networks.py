"""Proposers of the hub: the common suite, equality with transformers, and loading errors."""

import json

import instant_clip_tokenizer
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from deop.errors import CheckpointError, MissingDependencyError
from deop.images.preprocessing import IMAGENET, Normalization
from deop.proposals import transformers_networks
from deop.proposals.sam import SamProposer
from deop.proposals.transformers_networks import TransformersProposer
from tests.proposals import tiny_networks
from tests.proposals.suite import Part, ProposerSuite


@pytest.fixture(scope="module", params=["maskformer", "mask2former", "oneformer", "eomt", "eomt_dinov3"])
def network(request):
    return getattr(tiny_networks, request.param)()


class TestTransformersProposer(ProposerSuite):
    @pytest.fixture
    def proposer(self, network):
        return TransformersProposer(network, IMAGENET)

    def exportable(self, proposer):
        return Part(proposer, lambda module, pixels: module._run(pixels)[0])


@pytest.fixture
def folder(network, tmp_path):
    network.save_pretrained(tmp_path)
    statistics = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    return tmp_path


def task_of(network, count):
    """The input that OneFormer's processor makes of the task "panoptic"."""
    if network.config.model_type != "oneformer":
        return {}
    ids = [49406, *instant_clip_tokenizer.Tokenizer().encode("the task is panoptic"), 49407]
    return {"task_inputs": torch.tensor([ids + [0] * (network.config.task_seq_len - len(ids))] * count)}


def test_masks_equal_those_of_transformers(network, folder):
    pixels = torch.randn(2, 3, 64, 64 if network.config.model_type.startswith("eomt") else 96)
    proposer = TransformersProposer.from_folder(folder)
    with torch.no_grad():
        expected = network(pixel_values=pixels, **task_of(network, 2))
        proposals = proposer(pixels)
    assert proposer.class_names == tuple(network.config.id2label.values())
    classes = expected.class_queries_logits.softmax(-1)
    for image, logits, scores in zip(proposals, expected.masks_queries_logits, classes, strict=True):
        assert torch.equal(image.logits, logits)
        torch.testing.assert_close(image.class_scores, scores[:, :-1])
        torch.testing.assert_close(image.scores, 1 - scores[:, -1])
        assert image.class_names == proposer.class_names
        assert image.slots.tolist() == list(range(logits.shape[0]))
    assert not proposer.training


@pytest.mark.parametrize("kind", ["eomt", "eomt_dinov3"])
@torch.no_grad()
def test_a_wide_photo_is_placed_in_the_frame_of_eomt(kind):
    network = getattr(tiny_networks, kind)()
    pixels = torch.randn(2, 3, 64, 128)
    frame = torch.zeros(2, 3, 64, 64)
    for channel, (mean, std) in enumerate(zip([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], strict=True)):
        frame[:, channel] = -mean / std  # black
    frame[:, :, :32] = F.interpolate(pixels, (32, 64), mode="bilinear", antialias=True)
    expected = network(pixel_values=frame).masks_queries_logits
    assert expected.shape == (2, 7, 16, 16)
    for image, proposals in zip(expected, TransformersProposer(network, IMAGENET)(pixels), strict=True):
        torch.testing.assert_close(proposals.logits, image[:, :8], rtol=1e-4, atol=1e-5)


def test_normalization_comes_from_the_folder(folder):
    assert TransformersProposer.from_folder(folder).normalization == Normalization(
        (127.5, 0.4 * 255, 0.3 * 255), (51.0, 63.75, 0.3 * 255)
    )
    (folder / "preprocessor_config.json").unlink()
    assert TransformersProposer.from_folder(folder).normalization == IMAGENET
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json.*three"):
        TransformersProposer.from_folder(folder)


def test_other_types_of_model_raise(folder):
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"'bert'.*mask2former"):
        TransformersProposer.from_folder(folder)
    with pytest.raises(CheckpointError, match=r"'bert'.*sam2"):
        SamProposer.from_folder(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        TransformersProposer.from_folder(folder)


def test_pickled_weights_raise_with_a_remedy(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin.*deop convert \S+ FOLDER"):
        TransformersProposer.from_folder(folder)


def test_incomplete_weights_raise(folder):
    state = load_file(folder / "model.safetensors")
    removed = next(
        key for key in state if key.endswith("queries_embedder.weight") or "mask_embedder" in key or "mask_head" in key
    )
    del state[removed]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=removed):
        TransformersProposer.from_folder(folder)


def test_damaged_weights_raise(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match=str(folder)):
        TransformersProposer.from_folder(folder)


def test_old_versions_of_transformers_raise(folder, monkeypatch):
    for kind in transformers_networks.CLASSES:
        monkeypatch.setitem(transformers_networks.CLASSES, kind, "MaskFormerOfTheFuture")
    with pytest.raises(MissingDependencyError, match="pip install -U"):
        TransformersProposer.from_folder(folder)

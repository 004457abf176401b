"""MaskFormer: parity with the original, export, precisions, and errors."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F

from deop.errors import CheckpointError, SettingError
from deop.networks.loading import load_strictly
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig, config_of_original, from_original_state
from deop.proposals.resnet import FrozenBatchNorm
from tests.conftest import assert_parity, checkpoint_keys
from tests.proposals.suite import Part, ProposerSuite

TINY = MaskFormerConfig(
    depth=50,
    stem_width=4,
    width=4,
    hidden=16,
    heads=2,
    ffn=32,
    decoder_layers=2,
    queries=5,
    conv_dim=32,
    mask_dim=8,
    class_mlp=(16, 12),
)


class TestMaskFormer(ProposerSuite):
    @pytest.fixture
    def proposer(self):
        torch.manual_seed(0)
        return MaskFormer(TINY).eval()

    def exportable(self, proposer):
        return Part(proposer, lambda module, pixels: module.predict(pixels).mask_logits)


@pytest.fixture(scope="module")
def original(parity):
    file = parity("proposal_network")
    state = file.below("state.")
    model = MaskFormer(config_of_original(state, heads=file.info["heads"])).eval()
    load_strictly(model, from_original_state(state), "the parity file")
    use_stored_features(model, file)
    return file, model.requires_grad_(False)


def use_stored_features(model, file):
    """Of backbone stages whose weights a cut file does not have, take the stored features."""
    stages = {key.split(".")[2] for key in file.info.get("zeroed", ())}

    def replace(module, inputs, features):
        return features._replace(**{name: file[f"feature.{name}"].to(features.res2.dtype) for name in stages})

    if stages:
        model.network.backbone.register_forward_hook(replace)


def test_parity_sizes_are_read_from_the_shapes(original):
    file, model = original
    config, info = model.config, file.info
    for name in ("depth", "hidden", "ffn", "decoder_layers", "queries", "conv_dim", "mask_dim"):
        assert getattr(config, name) == info[name], name
    assert list(config.class_mlp) == info["class_mlp"]
    assert dict(zip(info["channels"], model.network.backbone.channels, strict=True)) == info["channels"]


def test_parity_features_and_per_pixel_embedding(original):
    file, model = original
    features = model.network.backbone(file["image_normalised"])
    for name, value in features._asdict().items():
        assert_parity(value, file[f"feature.{name}"])
    assert_parity(model.network.pixel_decoder(features), file["per_pixel_embedding"])


def test_parity_masks_and_class_embeddings_of_every_layer(original):
    file, model = original
    # In float64, so that only the original's rounding errors remain: the layers amplify them.
    output = copy.deepcopy(model).double().predict(file["image_normalised"].double(), auxiliary=True)
    assert_parity(output.mask_logits, file["mask_logits"])
    assert_parity(output.class_embeddings, file["class_embedding"])
    assert len(output.auxiliary) == model.config.decoder_layers - 1
    for level, layer in enumerate(output.auxiliary):
        assert_parity(layer.mask_logits, file[f"aux{level}.mask_logits"])
        assert_parity(layer.class_embeddings, file[f"aux{level}.class_embedding"])


def test_parity_as_a_proposer(original):
    file, model = original
    proposals = model(file["image_normalised"])
    assert_parity(torch.stack([p.logits for p in proposals]), file["mask_logits"])
    assert_parity(torch.stack([p.embeddings for p in proposals]), file["class_embedding"])
    assert all(p.slots.tolist() == list(range(model.config.queries)) for p in proposals)


def test_parity_when_exported_and_channels_last(original):
    file, model = original
    pixels = file["image_normalised"]
    exported = torch.export.export(model.network, (pixels,)).module()
    assert_parity(exported(pixels).mask_logits, file["mask_logits"])
    last = MaskFormer(model.config).eval()
    last.load_state_dict(model.state_dict())
    use_stored_features(last, file)
    last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        masks = last.predict(pixels.contiguous(memory_format=torch.channels_last)).mask_logits
    assert_parity(masks, file["mask_logits"])


@pytest.mark.slow
def test_parity_when_compiled(original):
    file, model = original
    assert_parity(torch.compile(model.network)(file["image_normalised"]).mask_logits, file["mask_logits"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parity_roughly_in_half_precision(original, dtype):
    file, model = original
    half = MaskFormer(model.config).eval()
    half.load_state_dict(model.state_dict())
    use_stored_features(half, file)
    half.to(dtype)
    with torch.no_grad():
        raw = half.predict(file["image_normalised"]).mask_logits
        proposals = half(file["image_normalised"])
    assert raw.dtype == dtype
    assert proposals[0].logits.dtype == torch.float32
    expected = file["mask_logits"]
    assert (raw.float() - expected).abs().mean() / expected.abs().mean() < (0.1 if dtype == torch.bfloat16 else 0.02)


def published_keys() -> dict[str, torch.Tensor]:
    """The published keys of the proposal network, with meta tensors of their shapes."""
    lines = re.findall(r"^[fbT]  ((?:backbone|sem_seg_head)\.\S+)  \[(.*)\]$", checkpoint_keys(), re.M)
    return {key: torch.empty([int(n) for n in shape.split(",")], device="meta") for key, shape in lines}


def test_parity_all_published_keys_are_known():
    keys = published_keys()
    assert config_of_original(keys) == MaskFormerConfig()
    with torch.device("meta"):
        model = MaskFormer()
    shapes = {key: value.shape for key, value in from_original_state(keys).items()}
    assert shapes == {key: value.shape for key, value in model.state_dict().items()}
    assert len(shapes) == len(keys)


def test_unknown_keys_raise():
    with pytest.raises(CheckpointError, match="clip_adapter"):
        from_original_state({"clip_adapter.logit_scale": torch.zeros(())})
    model = MaskFormer(TINY)
    surplus = from_original_state({"backbone.res2.0.conv9.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="conv9"):
        load_strictly(model, model.state_dict() | surplus, "test")


@pytest.mark.parametrize(
    "wrong", [{"depth": 18}, {"hidden": 30}, {"conv_dim": 48}, {"class_mlp": (1, 2)}, {"heads": 3}]
)
def test_invalid_sizes_raise(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong)) if "heads" not in wrong else "heads"):
        MaskFormerConfig(**wrong)


def test_dropout_is_active_in_training_only():
    model, pixels = MaskFormer(TINY), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(pixels)[0].logits, model(pixels)[0].logits)
        assert not torch.equal(model.train()(pixels)[0].logits, model(pixels)[0].logits)


def test_frozen_batch_norm_formula():
    norm = FrozenBatchNorm(6)
    for name, buffer in norm.named_buffers():
        buffer.copy_(torch.rand(6) + (0.5 if "var" in name else -0.5))
    x = torch.randn(2, 6, 3, 3)
    shape = (1, 6, 1, 1)
    mean, deviation = norm.running_mean.view(shape), (norm.running_var.view(shape) + 1e-5).sqrt()
    by_hand = (x - mean) / deviation * norm.weight.view(shape) + norm.bias.view(shape)
    torch.testing.assert_close(norm.train()(x), by_hand)
    assert not list(norm.parameters())


def test_frozen_statistics_stay_in_float32():
    norm = FrozenBatchNorm(2)
    norm.running_var.fill_(1e6)  # exceeds the range of float16
    x = torch.full((1, 2, 1, 1), 1000.0)
    expected = norm(x)
    torch.testing.assert_close(norm.half()(x.half()).float(), expected, rtol=1e-3, atol=0)
    assert norm.double().running_var.dtype == torch.float64


def test_all_parameters_receive_gradients():
    model = MaskFormer(TINY).train()
    output = model.predict(torch.randn(1, 3, 64, 64), auxiliary=True)
    layers = (output, *output.auxiliary)
    sum(F.softplus(o.mask_logits).mean() + o.class_embeddings.square().mean() for o in layers).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []

"""Tests that every vision encoder and every text encoder must pass. Subclass a suite and define its fixture."""

import copy
import json

import numpy as np
import pytest
import torch

from deop.encoders.severance import KINDS, Severance
from deop.errors import CheckpointError, SettingError
from deop.images.preprocessing import Normalization
from deop.networks.resampling import grid_of
from deop.text.embedding import embed_vocabulary
from deop.text.vocabulary import Vocabulary

QUICK = KINDS[:2]
"""Kinds of severance that every encoder is exported with; tests/encoders/test_clip.py exports with all."""


def scene(size=(64, 96), batch=2, proposals=3):
    """Pixels (B, 3, H, W) and mask logits (B, N, H/4, W/4)."""
    torch.manual_seed(1)
    masks = 4 * torch.randn(batch, proposals, -(-size[0] // 4), -(-size[1] // 4))
    return torch.randn(batch, 3, *size), masks


class SeveredPatches(torch.nn.Module):
    """An encoder with fixed severance, to export."""

    def __init__(self, encoder, severance):
        super().__init__()
        self.encoder, self.severance = encoder, severance

    def forward(self, pixels, masks):
        return self.encoder(pixels, masks, severance=self.severance).patches


def check_exported(encoder, kind):
    module = SeveredPatches(encoder, Severance(kind)).eval()
    pixels, masks = scene(batch=1)
    exported = torch.export.export(module, (pixels, masks)).module()
    torch.testing.assert_close(exported(pixels, masks), module(pixels, masks), atol=1e-4, rtol=1e-3)


def check_compiled(encoder, kind):
    module = SeveredPatches(encoder, Severance(kind)).eval()
    pixels, masks = scene(batch=1)
    torch.testing.assert_close(torch.compile(module)(pixels, masks), module(pixels, masks), atol=1e-4, rtol=1e-3)


class EncoderSuite:
    """Tests of a vision encoder. Define a fixture ``encoder``: small, with random weights, in evaluation mode.

    Attributes:
        half_dtypes: half-precision dtypes to test; convolutions in float16 are very slow on CPUs.
    """

    half_dtypes = (torch.bfloat16,)

    def test_properties(self, encoder):
        assert isinstance(encoder.normalization, Normalization)
        assert min(encoder.width, encoder.patch, encoder.crop_side) > 0

    @pytest.mark.parametrize("size", [(64, 64), (50, 71), (97, 33)])
    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_any_size(self, encoder, size, kind):
        pixels, masks = scene(size)
        features = encoder(pixels, masks, severance=Severance(kind, (-2, -1), 0.2))
        assert features.patches.shape == (2, encoder.width, *grid_of(size, encoder.patch))
        assert features.image.shape == (2, encoder.width)
        assert features.patches.isfinite().all()
        assert features.image.isfinite().all()

    @pytest.mark.parametrize("proposals", [0, 1, 40])
    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_any_number_of_proposals(self, encoder, proposals, kind):
        pixels, masks = scene(proposals=proposals)
        assert encoder(pixels, masks, severance=Severance(kind)).patches.isfinite().all()

    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_batch_equals_single(self, encoder, kind):
        pixels, masks = scene(batch=3)
        severance = Severance(kind, (-2, -1))
        together = encoder(pixels, masks, severance=severance)
        for index in range(3):
            part = slice(index, index + 1)
            alone = encoder(pixels[part], masks[part], severance=severance)
            torch.testing.assert_close(together.patches[part], alone.patches, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(together.image[part], alone.image, atol=1e-4, rtol=1e-3)

    @torch.no_grad()
    def test_features_are_zero_outside_an_image(self, encoder):
        pixels, _ = scene((64, 64))
        patches = encoder(pixels, sizes=[(64, 64), (32, 40)]).patches
        rows, columns = grid_of((32, 40), encoder.patch)
        assert patches[1, :, rows:].abs().sum() == patches[1, :, :, columns:].abs().sum() == 0
        assert (patches[1, :, :rows, :columns].abs().sum(0) > 0).all()
        assert (patches[0].abs().sum(0) > 0).all()

    @pytest.mark.parametrize("kind", KINDS[1:])
    @torch.no_grad()
    def test_severance_changes_patches_but_not_the_image(self, encoder, kind):
        pixels, masks = scene()
        plain, severed = encoder(pixels), encoder(pixels, masks, severance=Severance(kind, residual=0.2))
        torch.testing.assert_close(severed.image, plain.image, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(severed.patches, plain.patches, atol=1e-3, rtol=1e-3)

    @torch.no_grad()
    def test_repeatable(self, encoder):
        pixels, masks = scene()
        first, second = (encoder(pixels, masks, severance=Severance("gate")) for _ in range(2))
        assert torch.equal(first.patches, second.patches)
        assert torch.equal(first.image, second.image)

    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_half_precision(self, encoder, kind):
        pixels, masks = scene(proposals=20)
        severance = Severance(kind)
        expected = encoder(pixels, masks - 4, severance=severance)
        for dtype in self.half_dtypes:
            features = copy.deepcopy(encoder).to(dtype)(pixels.to(dtype), (masks - 4).to(dtype), severance=severance)
            assert torch.cosine_similarity(features.patches.float(), expected.patches, dim=1).min() > 0.98
            assert torch.cosine_similarity(features.image.float(), expected.image, dim=1).min() > 0.98

    @torch.no_grad()
    def test_save_and_load(self, encoder):
        config = json.loads(json.dumps(encoder.config_dict()))
        loaded = type(encoder).from_config(config)
        loaded.load_state_dict(encoder.state_dict())
        assert not loaded.training
        assert loaded.config == encoder.config
        pixels, _ = scene()
        torch.testing.assert_close(loaded(pixels).patches, encoder(pixels).patches)
        with pytest.raises(CheckpointError, match="colour"):
            type(encoder).from_config(config | {"colour": 1})

    @pytest.mark.parametrize("kind", QUICK)
    @torch.no_grad()
    def test_export(self, encoder, kind):
        check_exported(encoder, kind)

    @pytest.mark.slow
    @torch.no_grad()
    def test_compile(self, encoder):
        check_compiled(encoder, "gate")

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_after_inference(self, encoder, kind):
        pixels, masks = scene(batch=1)
        severance = Severance(kind, (-2, -1))
        with torch.inference_mode():
            encoder(pixels, masks, severance=severance)
        pixels.requires_grad_(True)
        features = encoder(pixels, masks, severance=severance)
        (features.patches.square().sum() + features.image.sum()).backward()
        assert pixels.grad.abs().sum() > 0
        missing = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
        encoder.zero_grad()
        assert not missing

    def test_wrong_severance_raises(self, encoder):
        pixels, _ = scene()
        with pytest.raises(SettingError, match="cannot sever layer 12"):
            encoder(pixels, severance=Severance("self", (12,)))
        with pytest.raises(SettingError, match="needs masks"):
            encoder(pixels, severance=Severance("gate"))


class TextEncoderSuite:
    """Tests of a text encoder. Define a fixture ``text`` that knows ``TEXTS``, new for each test."""

    TEXTS = ("cat", "dog", "a sofa", "cat and dog")

    @torch.no_grad()
    def test_embeddings(self, text):
        embeddings = text.embed(self.TEXTS)
        assert embeddings.shape == (4, text.width)
        assert embeddings.dtype == torch.float32
        assert embeddings.isfinite().all()
        assert (embeddings.norm(dim=1) > 0).all()
        assert len({tuple(row.tolist()) for row in embeddings}) == 4
        assert text.embed([]).shape == (0, text.width)

    @torch.no_grad()
    def test_batch_equals_single(self, text):
        together = text.embed(self.TEXTS)
        alone = torch.cat([text.embed([one]) for one in self.TEXTS])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(text.embed(self.TEXTS[::-1]), together.flip(0), rtol=1e-5, atol=1e-5)

    def test_tokens(self, text):
        counts = [text.count_tokens(one) for one in ("cat", "cat and dog")]
        assert 0 < counts[0] < counts[1] <= text.context_length
        assert text.uses_templates in (True, False)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @torch.no_grad()
    def test_half_precision(self, text, dtype):
        expected = text.embed(self.TEXTS)
        embeddings = text.to(dtype).embed(self.TEXTS)
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings, expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))

    @torch.no_grad()
    def test_save_and_load(self, text, tmp_path):
        text.save_tokenizer(tmp_path)
        config = json.loads(json.dumps(text.config_dict()))
        loaded = type(text).from_config(config, tmp_path)
        loaded.load_state_dict(text.state_dict())
        assert torch.equal(loaded.embed(self.TEXTS), text.embed(self.TEXTS))
        assert loaded.identity == text.identity
        with pytest.raises(CheckpointError, match="colour"):
            type(text).from_config(config | {"colour": 1}, tmp_path)

    @pytest.mark.parametrize("change", ["in place", "through data", "in inference mode", "load", "half", "bfloat16"])
    def test_identity_follows_the_weights(self, text, change):
        before = text.identity
        assert text.identity == before == copy.deepcopy(text).identity
        assert before.replace("-", "").isalnum()  # usable as a file name
        tensor = next(value for value in text.state_dict().values() if value.is_floating_point())
        if change == "in place":
            with torch.no_grad():
                tensor.mul_(2)
        elif change == "through data":
            tensor.data.mul_(2)
        elif change == "in inference mode":
            with torch.inference_mode():
                tensor.view(-1)[0] += 1
        elif change == "load":
            text.load_state_dict({key: value + 1 for key, value in text.state_dict().items()})
        else:
            text.to(getattr(torch, change))
        assert text.identity != before

    def test_embedding_in_inference_mode_leaves_nothing_behind(self, text):
        with torch.inference_mode():
            rows = embed_vocabulary(Vocabulary.parse(["cat", "dog"]), text).rows
        assert rows.dtype == np.float32
        assert not text.embed(["cat"]).is_inference()

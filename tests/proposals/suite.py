"""Tests that every proposer must pass. Subclass ``ProposerSuite`` and define its fixture."""

import copy
import json

import pytest
import torch

from deop.errors import CheckpointError
from deop.images.preprocessing import Normalization
from deop.proposals.types import Proposals


class ProposerSuite:
    """Tests of a proposer. Define a fixture ``proposer``: small, with random weights, in evaluation mode.

    Attributes:
        sizes: image sizes to test; by default multiples of 32, as ``DeOP`` pads.
        fixed_number: whether the number of proposals depends on neither the image nor rounding.
        differentiable: whether gradients reach the pixels.
    """

    sizes = ((64, 64), (64, 96), (128, 32))
    fixed_number = True
    differentiable = True

    def exportable(self, proposer):
        """A module from pixels to the tensor that masks are computed from."""
        raise NotImplementedError

    def pixels(self, batch=2, size=(64, 96)):
        torch.manual_seed(1)
        return torch.randn(batch, 3, *size)

    def test_properties(self, proposer):
        assert isinstance(proposer.normalization, Normalization)
        assert isinstance(proposer.kind, str)
        assert not proposer.training

    @torch.no_grad()
    def test_any_size(self, proposer):
        for size in self.sizes:
            result = proposer(self.pixels(size=size))
            assert len(result) == 2
            for proposals in result:
                assert isinstance(proposals, Proposals)
                assert proposals.logits.dtype == torch.float32
                assert proposals.logits.isfinite().all()
                assert proposals.exact is None
                if proposals.slots is not None:
                    assert proposals.slots.dtype == torch.int64
                    assert proposals.slots.device.type == "cpu"
                    assert len(proposals.slots) == len(proposals)
                if self.fixed_number:
                    assert len(proposals) == len(result[0]) > 0

    @torch.no_grad()
    def test_batch_equals_single(self, proposer):
        pixels = self.pixels(3)
        for index, together in enumerate(proposer(pixels)):
            (alone,) = proposer(pixels[index : index + 1])
            torch.testing.assert_close(together.logits, alone.logits, atol=1e-3, rtol=1e-3)

    @torch.no_grad()
    def test_repeatable(self, proposer):
        first, second = proposer(self.pixels()), proposer(self.pixels())
        assert all(torch.equal(a.logits, b.logits) for a, b in zip(first, second, strict=True))

    @torch.no_grad()
    def test_half_precision(self, proposer):
        pixels = self.pixels(1)
        expected = proposer(pixels)[0].logits
        (half,) = copy.deepcopy(proposer).to(torch.bfloat16)(pixels.to(torch.bfloat16))
        assert half.logits.dtype == torch.float32
        assert half.logits.isfinite().all()
        if self.fixed_number:
            assert (half.logits - expected).abs().mean() < 0.2 * expected.abs().mean()

    @torch.no_grad()
    def test_save_and_load(self, proposer):
        config = json.loads(json.dumps(proposer.config_dict()))
        loaded = type(proposer).from_config(config)
        loaded.load_state_dict(proposer.state_dict())
        assert loaded.normalization == proposer.normalization
        loaded.eval()
        pixels = self.pixels(1)
        # Not bit-identical: the order of summation depends on the memory layout of the weights.
        torch.testing.assert_close(loaded(pixels)[0].logits, proposer(pixels)[0].logits, atol=1e-3, rtol=1e-3)
        with pytest.raises(CheckpointError, match="colour"):
            type(proposer).from_config(config | {"colour": 1})

    @torch.no_grad()
    def test_export(self, proposer):
        module, pixels = self.exportable(proposer).eval(), self.pixels(1, (64, 64))
        exported = torch.export.export(module, (pixels,)).module()
        torch.testing.assert_close(exported(pixels), module(pixels), atol=1e-3, rtol=1e-3)

    def test_gradients_after_inference(self, proposer):
        """Position codes that a network caches in inference mode must not break a later backward pass."""
        pixels = self.pixels(1)
        with torch.inference_mode():
            proposer(pixels)
        pixels.requires_grad_(True)
        logits = proposer(pixels)[0].logits
        assert logits.requires_grad == self.differentiable
        if self.differentiable:
            logits.square().mean().backward()
            proposer.zero_grad()
            assert pixels.grad.abs().sum() > 0


class Part(torch.nn.Module):
    """A function of pixels and a module's parameters, as a module."""

    def __init__(self, module, function):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, pixels):
        return self.function(self.module, pixels)

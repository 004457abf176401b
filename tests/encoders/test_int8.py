"""int8 encoders: close to float32 for every kind of severance, CPU only, and never saved."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deop import load
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.int8 import is_int8, some_outputs, to_int8
from deop.encoders.severance import KINDS, Severance
from deop.errors import SettingError

SMALL = VisionConfig(width=64, layers=3, heads=4, hidden=128, patch=16, grid=4, output=32)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_are_close_to_float32(kind):
    torch.manual_seed(0)
    encoder = CLIPVision(SMALL).eval()
    severance, pixels, masks = Severance(kind, (-2, -1)), torch.randn(2, 3, 64, 96), 8 * torch.randn(2, 4, 16, 24)
    exact = encoder(pixels, masks, severance=severance)
    assert not is_int8(encoder)
    to_int8(encoder)
    assert is_int8(encoder)
    quantised = encoder(pixels, masks, severance=severance)
    assert not torch.equal(quantised.patches, exact.patches)
    assert F.cosine_similarity(quantised.patches, exact.patches, dim=1).min() > 0.99
    assert F.cosine_similarity(quantised.image, exact.image, dim=1).min() > 0.99


def test_some_outputs_equals_a_slice_of_all_outputs():
    torch.manual_seed(0)
    both = nn.Sequential(nn.Linear(8, 12)).eval()
    x = torch.randn(3, 8)
    torch.testing.assert_close(some_outputs(both[0], x, 5, 8), both(x)[:, 5:8])
    to_int8(both)
    torch.testing.assert_close(some_outputs(both[0], x, 5, 8), both(x)[:, 5:8])


def test_linear_layer_is_within_one_quantisation_step():
    """Weights in steps of max / 127, inputs in steps of their range / 127."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 4))
    x, weight = torch.rand(5, 16) * 4 - 1, layer[0].weight.detach().clone()
    exact = layer(x)
    to_int8(layer)
    weight_step = weight.abs().max() / 127
    input_step = (x.max() - x.min()) / 127  # 7 bits, so that sums of two products do not overflow
    bound = 16 * (x.abs().max() * weight_step + weight.abs().max() * input_step) / 2
    error = (layer(x) - exact).abs().max()
    assert 0 < error < bound


def test_nano_loads_in_int8_but_cannot_be_saved(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    exact, model = (
        load("nano", engine="torch", device="cpu"),
        load("nano", engine="torch", device="cpu", dtype=torch.int8),
    )
    assert is_int8(model.encoder)
    assert not is_int8(exact)
    # Encoder and proposer still share one trunk.
    assert model.encoder.trunk is model.proposer.trunk
    first, second = (variant.encode([photo])[0].regions for variant in (exact, model))
    assert F.cosine_similarity(first, second, dim=-1).mean() > 0.98
    assert set(np.unique(model.segment(photo, ["cat", "wall"]).label_map)) <= {-1, 0, 1, 255}
    with pytest.raises(SettingError, match="int8 cannot be saved"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_int8_on_a_gpu_raises(monkeypatch):
    monkeypatch.setattr("deop.zoo.choose_device", lambda choice: torch.device("meta"))
    with pytest.raises(SettingError, match="needs a CPU"):
        load("nano", engine="torch", dtype="int8")


def test_processor_without_int8_kernels_raises(monkeypatch):
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(engine="none"))
    with pytest.raises(SettingError, match="no int8 kernels"):
        to_int8(nn.Linear(2, 2))

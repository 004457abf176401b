"""int8 encoders: near the float32 ones, whatever is severed; refused where they cannot be had; never saved."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deop import load
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.int8 import is_int8, last_outputs, to_int8
from deop.encoders.severance import KINDS, Severance
from deop.errors import SettingError

SMALL = VisionConfig(width=64, layers=3, heads=4, hidden=128, patch=16, grid=4, output=32)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_stay_near_those_of_float32(kind):
    torch.manual_seed(0)
    encoder = CLIPVision(SMALL).eval()
    severance, pixels, masks = Severance(kind, (-2, -1)), torch.randn(2, 3, 64, 96), 8 * torch.randn(2, 4, 16, 24)
    exact = encoder(pixels, masks, severance=severance).patches
    assert not is_int8(encoder)
    to_int8(encoder)
    assert is_int8(encoder)
    found = encoder(pixels, masks, severance=severance).patches
    assert not torch.equal(found, exact)
    assert F.cosine_similarity(found, exact, dim=1).min() > 0.99


def test_the_last_outputs_are_the_end_of_all_outputs():
    torch.manual_seed(0)
    both = nn.Sequential(nn.Linear(8, 12)).eval()
    x = torch.randn(3, 8)
    torch.testing.assert_close(last_outputs(both[0], x, 5), both(x)[:, 5:])
    to_int8(both)
    torch.testing.assert_close(last_outputs(both[0], x, 5), both(x)[:, 5:])


def test_a_linear_layer_by_hand():
    """Symmetric weights of 1/127ths of the largest; what comes in by its own range: within a step of either."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 4))
    x, weight = torch.rand(5, 16) * 4 - 1, layer[0].weight.detach().clone()
    exact = layer(x)
    to_int8(layer)
    weight_step = weight.abs().max() / 127
    input_step = (x.max() - x.min()) / 127  # seven bits come in, so that sums of two products cannot overflow
    bound = 16 * (x.abs().max() * weight_step + weight.abs().max() * input_step) / 2
    error = (layer(x) - exact).abs().max()
    assert 0 < error < bound


def test_the_small_model_loads_in_int8_and_cannot_be_saved(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    exact, model = load("nano", device="cpu"), load("nano", device="cpu", dtype=torch.int8)
    assert is_int8(model.encoder)
    assert not is_int8(exact)
    # The trunk that encoder and proposer share is still one.
    assert model.encoder.trunk is model.proposer.trunk
    looks = [one.encode([photo])[0].regions for one in (exact, model)]
    assert F.cosine_similarity(looks[0], looks[1], dim=-1).mean() > 0.98
    assert set(np.unique(model.segment(photo, ["cat", "wall"]).label_map)) <= {-1, 0, 1, 255}
    with pytest.raises(SettingError, match="int8 cannot be saved"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_int8_is_for_cpus(monkeypatch):
    monkeypatch.setattr("deop.zoo.choose_device", lambda choice: torch.device("meta"))
    with pytest.raises(SettingError, match="for CPUs"):
        load("nano", dtype="int8")


def test_no_int8_products_on_this_processor(monkeypatch):
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(engine="none"))
    with pytest.raises(SettingError, match="no int8 products"):
        to_int8(nn.Linear(2, 2))

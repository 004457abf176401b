"""Packed weights lose little, and what parts of a model share is stored once."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deop.errors import CheckpointError
from deop.images.preprocessing import IMAGENET
from deop.networks.loading import load_strictly, pack, read_normalization, read_weights, stored_once


def test_packed_weights_come_back_within_half_a_step(tmp_path):
    torch.manual_seed(0)
    state = {
        "matrix": torch.randn(64, 50) * torch.logspace(-4, 2, 64)[:, None],
        "convolution": torch.randn(32, 8, 3, 3),
        "bias": torch.randn(64),
        "count": torch.tensor(7),
        "zero": torch.zeros(64, 64),
    }
    packed = pack(state)
    assert packed["matrix"].dtype == packed["convolution"].dtype == torch.int8
    save_file(packed, tmp_path / "model.safetensors")
    actual = read_weights(tmp_path)
    assert actual.keys() == state.keys()
    for key in ("matrix", "convolution", "zero"):
        step = state[key].flatten(1).abs().amax(1) / 127
        assert ((actual[key] - state[key]).flatten(1).abs() <= 0.501 * step[:, None] + 1e-12).all()
    torch.testing.assert_close(actual["bias"].float(), state["bias"], atol=1e-3, rtol=1e-3)
    assert actual["count"] == 7


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.other = nn.Linear(3, 3)


def test_shared_weights_are_stored_once_and_found_under_both_keys():
    model, again = Twins(), Twins()
    state = stored_once(model.state_dict())
    assert set(state) == {"first.weight", "first.bias", "other.weight", "other.bias"}
    load_strictly(again, state, "a test")
    assert torch.equal(again.second.weight, model.first.weight)
    assert again.second is again.first
    with pytest.raises(CheckpointError, match=r"other\.bias is missing"):
        load_strictly(again, {key: value for key, value in state.items() if key != "other.bias"}, "a test")


def write_index(folder, index):
    folder.mkdir()
    save_file({"weight": torch.zeros(2)}, folder / "model-1-of-1.safetensors")
    save_file({"weight": torch.zeros(2)}, folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    return folder


def test_shards_are_read_through_their_index(tmp_path):
    folder = write_index(tmp_path / "model", '{"weight_map": {"weight": "model-1-of-1.safetensors"}}')
    assert list(read_weights(folder)) == ["weight"]


@pytest.mark.parametrize(
    "index",
    [
        "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"weight": 3}}',
        '{"weight_map": {"weight": "../outside.safetensors"}}', '{"weight_map": {"weight": "config.json"}}',
        '{"weight_map": {"weight": "/etc/outside.safetensors"}}', '{"weight_map": {"weight": "missing.safetensors"}}',
    ],
)  # fmt: skip
def test_a_damaged_index_is_reported(tmp_path, index):
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        read_weights(write_index(tmp_path / "model", index))


def test_a_scale_without_its_weights_is_reported(tmp_path):
    for state in ({"a::scale": torch.ones(3)}, {"a": torch.ones(2, 2), "a::scale": torch.ones(3)}):
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match="a::scale"):
            read_weights(tmp_path)


@pytest.mark.parametrize("content", ['{"image_processor": 3}', '{"image_mean": 3, "image_std": 3}', "[]", "\x00"])
def test_damaged_channel_statistics_are_reported(tmp_path, content):
    (tmp_path / "preprocessor_config.json").write_text(content, encoding="utf-8")
    if content == '{"image_processor": 3}':
        assert read_normalization(tmp_path, IMAGENET) == IMAGENET
    else:
        with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
            read_normalization(tmp_path, IMAGENET)

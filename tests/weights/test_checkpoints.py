"""Checkpoint files: in several files, damaged, or with more than tensors in them."""

import argparse
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import deop
from deop.errors import CheckpointError, DeopError
from deop.weights.checkpoints import read_checkpoint
from deop.weights.conversion import convert


@pytest.fixture
def sharded(tiny_clip, tmp_path):
    """The tiny CLIP as large hub repos had it before safetensors: two pickles and their index."""
    folder = tmp_path / "my shards"
    shutil.copytree(tiny_clip, folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(state)
    weight_map = {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({key: state[key] for key in part}, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("given", ["", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"])
def test_shards_are_joined(sharded, given, tiny_clip, tmp_path):
    folder = convert(sharded / given, tmp_path / "out")
    expected, actual = (load_file(place / "model.safetensors") for place in (tiny_clip, folder))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)
    photo, masks = np.zeros((40, 50, 3), np.uint8), np.ones((1, 40, 50), bool)
    assert deop.load(folder, device="cpu").segment(photo, "cat", masks=masks).segments


def test_the_command_that_is_suggested_for_shards_works(sharded, tmp_path):
    """The folder is named, not its first shard, and quoted, since it has a space."""
    with pytest.raises(CheckpointError) as caught:
        deop.load(sharded)
    assert str(caught.value).endswith(f"deop convert '{sharded}' FOLDER")


def damage(folder, how):
    """Damage a sharded checkpoint; returns what to convert."""
    index, first = folder / "pytorch_model.bin.index.json", folder / "pytorch_model-00001-of-00002.bin"
    if how == "no index":
        index.unlink()
    elif how == "shard without index":
        index.unlink()
        return first
    elif how == "no shard":
        first.unlink()
    elif how == "lost key":
        state = torch.load(first, weights_only=True)
        state.pop(sorted(state)[0])
        torch.save(state, first)
    elif how == "unlisted key":
        content = json.loads(index.read_text())
        content["weight_map"].pop("visual_projection.weight")
        index.write_text(json.dumps(content))
        for file in folder.glob("*.bin"):
            state = torch.load(file, weights_only=True)
            state.pop("visual_projection.weight", None)
            torch.save(state, file)
    elif how == "outside":
        content = json.loads(index.read_text())
        content["weight_map"]["logit_scale"] = "../secret.bin"
        index.write_text(json.dumps(content))
    elif how == "renamed shard":
        other = folder.parent / first.name.replace("pytorch_model", "weights")
        shutil.copy(first, other)
        return other
    return folder


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("no index", "one of several files of a checkpoint.*bin.index.json.*is missing.*deop convert '"),
        ("shard without index", "00001-of-00002.bin is one of several files of a checkpoint.*deop convert '"),
        ("renamed shard", "one of several files of a checkpoint"),
        ("no shard", "lacks pytorch_model-00001-of-00002.bin"),
        ("lost key", "00001-of-00002.bin lacks logit_scale"),
        ("unlisted key", "was not converted.*projection is missing"),
        ("outside", "expected the name of a .bin file"),
    ],
)
def test_an_incomplete_checkpoint_is_not_written(sharded, how, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        convert(damage(sharded, how), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_incomplete_weights_of_a_mask_model_are_not_written(tmp_path):
    from tests.proposals.tiny_networks import mask2former

    source = tmp_path / "masks"
    mask2former().save_pretrained(source)
    state = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(state, source / "pytorch_model.bin")
    assert convert(source, tmp_path / "out")
    removed = next(key for key in state if key.endswith("queries_embedder.weight"))
    torch.save({key: value for key, value in state.items() if key != removed}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=f"was not converted.*{removed}"):
        convert(source, tmp_path / "again")
    (source / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="'bert', which does not propose masks"):
        convert(source, tmp_path / "again")
    assert not (tmp_path / "again").exists()


class Foreign:
    """A class that no tensor file needs."""


@pytest.mark.parametrize("how", ["class", "namespace", "protocol", "text", "empty", "cut", "list"])
def test_torchs_advice_to_run_the_code_in_a_file_is_never_shown(how, tmp_path):
    path = tmp_path / "weights.pth"
    content = {
        "class": {"model": {"a": torch.zeros(2)}, "other": Foreign()},
        "namespace": {"args": argparse.Namespace(lr=1), "model": {"a": torch.zeros(2)}},
        "protocol": {"a": Foreign()},
        "list": [torch.zeros(1)],
    }.get(how, {"a": torch.zeros(2000)})
    if how == "protocol":
        path.write_bytes(pickle.dumps(content, protocol=5))
    else:
        torch.save(content, path)
    if how == "text":
        path.write_text("not weights")
    elif how in ("empty", "cut"):
        path.write_bytes(path.read_bytes()[: 0 if how == "empty" else 3000])
    with pytest.raises(DeopError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    for advice in ("weights_only", "safe_globals", "allowlist", "torch.load", "\x1b", "pytorch.org"):
        assert advice not in message
    if how in ("class", "namespace"):
        assert ("Foreign" if how == "class" else "argparse.Namespace") in message
        assert "save the state dict alone" in message

"""Severances on the command line: every published method, values after a name, and the list of them."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from deop.severance import KINDS, PRESETS, Severance
from tests.cli.conftest import write_photo


@pytest.fixture
def inputs(here):
    """The arguments of ``deop segment`` for a photo and its masks."""
    masks = np.zeros((2, 64, 96), bool)
    masks[0, :, :40] = masks[1, 20:, 40:] = True
    np.save(here / "masks.npy", masks)
    photo = write_photo(here / "photo.png")
    return [photo, "--classes", "cat, dog, sofa", "--masks", here / "masks.npy", "--device", "cpu", "--json", "-"]


@pytest.mark.parametrize("name", [*KINDS, *PRESETS, "affinity-normalized", "region:similarity=qk:neighbours=3"])
def test_every_severance(deop, inputs, tiny_clip, tiny_dino, name):
    done = deop("segment", *inputs, "--model", tiny_clip, "--proxy", tiny_dino, "--severance", name)
    assert done.code == 0, done.err
    assert json.loads(done.out)["settings"]["severance"] == Severance.parse(name).kind


def test_windows(deop, inputs, tiny_clip):
    done = deop("segment", *inputs, "--model", tiny_clip, "--windows", "64:32")
    assert done.code == 0, done.err
    assert json.loads(done.out)["settings"]["windows"] == [64, 32]
    for value, message in (("64", "expected two numbers of pixels"), ("32:64", "at most the side")):
        done = deop("segment", *inputs, "--model", tiny_clip, "--windows", value)
        assert done.code
        assert message in " ".join(done.err.split())


@pytest.mark.parametrize("anchors", ["tokens", "patch"])
def test_anchors(deop, inputs, tiny_clip, anchors):
    done = deop("segment", *inputs, "--model", tiny_clip, "--anchors", anchors)
    assert done.code == 0, done.err
    assert json.loads(done.out)["settings"]["anchors"] == anchors


def test_what_is_missing_is_named(deop, inputs, tiny_clip):
    done = deop("segment", *inputs, "--model", tiny_clip, "--severance", "proxyclip")
    assert done.code
    assert "features of a second network" in " ".join(done.err.split())
    done = deop("segment", *inputs, "--model", tiny_clip, "--severance", "naclipp")
    assert done.code
    assert "unknown severance 'naclipp'" in " ".join(done.err.split())


def test_the_list_of_severances(deop):
    shown = deop("models", "--severances").out
    for name in (*KINDS, *PRESETS, "affinity-normalized"):
        assert any(line.split()[:1] == [name] for line in shown.splitlines())
    lines = {
        entry["name"]: entry for entry in map(json.loads, deop("models", "--severances", "--json").out.splitlines())
    }
    assert set(lines) == {*KINDS, *PRESETS, "affinity-normalized"}
    for name, preset in PRESETS.items():
        assert lines[name]["values"] == json.loads(json.dumps(asdict(preset.severance)))
        assert lines[name]["reference"] == preset.reference

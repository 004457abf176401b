"""Guessing things and stuff from names."""

import json
from importlib.resources import files

import pytest

from deop.text.things import is_thing


@pytest.mark.parametrize(
    "name",
    ["cat", "snow leopard", "water bottle", "wall clock", "mountain bike", "paper cup", "stop sign", "Potted plant"],
)
def test_things(name):
    assert is_thing(name)


@pytest.mark.parametrize("name", ["wall", "wall-concrete", "sky-other", "green grass", "Building", "brick wall", "sea"])
def test_stuff(name):
    assert not is_thing(name)


def test_against_coco_stuff():
    """The flags of 171 classes, from which the list was not derived name by name."""
    entries = json.loads(files("deop").joinpath("text/classes/coco-stuff.json").read_text(encoding="utf-8"))["classes"]
    right = [is_thing(entry["name"]) == entry["isthing"] for entry in entries]
    assert len(entries) == 171
    assert sum(right) / len(right) > 0.9

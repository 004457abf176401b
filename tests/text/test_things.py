"""Things and stuff by their names."""

import json

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


def test_against_a_data_set(data_folder):
    """COCO's own division, which the list was not made from name by name."""
    entries = json.loads((data_folder / "coco-mini" / "classes.json").read_text())
    right = [is_thing(entry["name"]) == entry["isthing"] for entry in entries]
    assert sum(right) / len(right) > 0.9

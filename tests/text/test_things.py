"""Guessing things and stuff from names."""

import pytest

from deop.text.class_lists import official_classes
from deop.text.things import is_thing

THINGS = """
    cat; snow leopard; water bottle; wall clock; mountain bike; paper cup; stop sign; Potted plant; glass of water;
    a person on the street; man in the water; water-bottle; wall-clock; t-shirt; boat (on a lake); dog, on grass; buses;
    glasses; knives; cup with snow
"""
STUFF = """
    wall; wall-concrete; sky-other; green grass; Building; brick wall; sea; roads; shelves; bushes; skies; trees;
    snow-covered mountain; floor-other-merged; window-blind; body of water; field of flowers; sky, with clouds;
    wall (painted)
"""


@pytest.mark.parametrize("name", [name.strip() for name in THINGS.split(";")])
def test_things(name):
    assert is_thing(name)


@pytest.mark.parametrize("name", [name.strip() for name in STUFF.split(";")])
def test_stuff(name):
    assert not is_thing(name)


@pytest.mark.parametrize("name", ["", " ", "-", "of", "in the sky"])
def test_names_without_a_head_word_are_things(name):
    assert is_thing(name)


@pytest.mark.parametrize(
    ("data", "classes", "share"), [("coco-stuff", 171, 0.9), ("ade20k-150", 150, 0.8), ("cityscapes", 19, 0.8)]
)
def test_against_the_flags_of_data_sets(data, classes, share):
    """The data sets contradict each other: a curtain is a thing in ADE20K, a traffic light is stuff in Cityscapes."""
    flagged = [entry for entry in official_classes(data) if entry.isthing is not None]
    right = [is_thing((entry.plain or entry.name).split("|")[0]) == entry.isthing for entry in flagged]
    assert len(flagged) == classes
    assert sum(right) / len(right) > share

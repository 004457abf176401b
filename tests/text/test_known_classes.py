"""Which classes of a network mean a requested name."""

import pytest

from deop.text.known_classes import known_classes

COCO = ["person", "potted plant", "dining table", "wall-brick", "wall-other-merged", "window-blind", "sky-other-merged",
        "floor-wood", "glass", "knife"]  # fmt: skip
ADE = ["door, double door", "people;crowd", "Café", "shelf", "traffic_light"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Person"], [0]),
        (["people"], [0]),
        (["plant", "potted plants"], [1]),
        (["table"], []),
        (["wall"], [3, 4]),
        (["brick wall"], [3]),
        (["window"], []),
        (["window blind"], [5]),
        (["sky"], [6]),
        (["skies"], [6]),
        (["wooden floor"], []),
        (["floor"], [7]),
        (["glasses"], [8]),
        (["knives"], [9]),
        ([" "], []),
    ],
)
def test_classes_of_coco(texts, expected):
    assert known_classes([texts], COCO) == [tuple(expected)]


def test_lists_of_synonyms_accents_and_underscores():
    names = [["double-door"], ["crowds"], ["cafe"], ["shelves"], ["traffic light"]]
    assert known_classes(names, ADE) == [(0,), (1,), (2,), (3,), (4,)]
    assert known_classes([], ADE) == []
    assert known_classes([["cup"]], []) == [()]

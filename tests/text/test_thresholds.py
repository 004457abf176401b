"""Minimum scores: one for all names, or one for each."""

import math

import numpy as np
import pytest

import deop
from deop.errors import SettingError
from deop.text.thresholds import Thresholds
from deop.text.vocabulary import Vocabulary

NAMES = Vocabulary.parse("cat, Dog|puppy, wall")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0.05, 0.05, 0.05)),
        (0.3, (0.3, 0.3, 0.3)),
        (np.float32(0.5), (0.5, 0.5, 0.5)),
        (1, (1, 1, 1)),
        ("0.3", (0.3, 0.3, 0.3)),
        ("0.3, dog=0.6", (0.3, 0.6, 0.3)),
        ("dog=0.6", (0.05, 0.6, 0.05)),
        ("PUPPY = 0.6; 0.2", (0.2, 0.6, 0.2)),  # a synonym stands for its name
        ("wall=0, cat=1", (1, 0.05, 0)),
        ({"*": 0.3, "dog": 0.6}, (0.3, 0.6, 0.3)),
        ({"dog": 0.6}, (0.05, 0.6, 0.05)),
        ({}, (0.05, 0.05, 0.05)),
    ],
)
def test_values_by_hand(value, expected):
    assert Thresholds.parse(value).values(NAMES, 0.05) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.3, "0.3, dog=0.6", {"cat": 0.1}, None])
def test_what_is_recorded_can_be_read_back(value):
    thresholds = Thresholds.parse(value)
    assert Thresholds.parse(thresholds.record(0.05)).values(NAMES, 0.9) == thresholds.values(NAMES, 0.05)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.2, "threshold 1.2 is not in"),
        (-0.1, "not in"),
        (math.nan, "not in"),
        (True, "must be a number"),
        ([0.3], "must be a number"),
        ("", "empty"),
        ("dog", "'dog' is not a threshold"),
        ("dog=high", "'dog=high' is not a threshold"),
        ("0.3, 0.4", "two numbers without a name"),
        ("dog=0.3, Dog=0.4", "'Dog' is listed twice"),
        ({"dog": 2}, "threshold of 'dog' 2 is not in"),
        ({3: 0.5}, "by name, not by 3"),
    ],
)
def test_values_that_cannot_be_used(value, message):
    with pytest.raises(SettingError, match=message):
        Thresholds.parse(value)


def test_a_name_that_the_vocabulary_does_not_have():
    with pytest.raises(SettingError, match=r"threshold for 'cow', which is not among the names \(cat, Dog, wall\)"):
        Thresholds.parse("cow=0.3").values(NAMES, 0)


def test_pixels_below_the_threshold_of_their_name_get_none():
    """Compared with a map without threshold, and its confidences."""
    model = deop.load("nano")
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    encoded = model.encode([photo])[0]
    names = "tree, wall, sky, carpet, water"
    whole = model.label(encoded, names, threshold=0)
    common = max(whole.segments, key=lambda segment: segment.area).name
    index = whole.names.index(common)
    part = model.label(encoded, names, threshold={common: 1.0, "*": 0.0})
    assert (part.label_map[whole.label_map == index] == -1).mean() > 0.9
    assert not (part.label_map == index).any()
    spared = model.label(encoded, names, threshold={common: 0.0, "*": 1.0})
    assert set(np.unique(spared.label_map)) <= {-1, index}

"""``smallest_region`` as an argument of ``label``: small regions vanish without encoding the photo again."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import deop
from deop.errors import SettingError

PHOTO = Path(__file__).parents[2] / "examples" / "rocket.jpg"
NAMES = ["sky", "tower", "fire", "light"]


@pytest.fixture(scope="module")
def nano():
    return deop.load("nano", engine="onnx")


@pytest.fixture(scope="module")
def encoded(nano):
    return nano.encode([PHOTO])[0]


def smallest_area(labels):
    """The area of the smallest connected region, in pixels, according to SciPy."""
    areas = []
    for label in np.unique(labels):
        pieces, _ = ndimage.label(labels == label)
        areas += np.bincount(pieces.ravel())[1:].tolist()
    return min(areas)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_no_region_is_smaller(nano, encoded, share):
    every = nano.label(encoded, NAMES, smallest_region=0)
    result = nano.label(encoded, NAMES, smallest_region=share)
    assert smallest_area(every.label_map) < share * every.label_map.size <= smallest_area(result.label_map)
    assert result.settings["smallest_region"] == share
    # Regions that stay are as before, but for the small ones that they contain.
    pieces, count = ndimage.label(every.label_map == 0)
    for piece in range(1, count + 1):
        inside = pieces == piece
        if inside.sum() >= share * every.label_map.size:
            assert (result.label_map[inside] == 0).all()


def test_the_default_is_the_models_setting(nano, encoded):
    default = nano.settings.smallest_region
    plain = nano.label(encoded, NAMES)
    assert np.array_equal(plain.label_map, nano.label(encoded, NAMES, smallest_region=default).label_map)
    assert plain.settings["smallest_region"] == default
    again = nano.segment(PHOTO, NAMES, smallest_region=0.02)
    assert np.array_equal(again.label_map, nano.label(encoded, NAMES, smallest_region=0.02).label_map)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_a_share_out_of_range_is_refused_before_photos_are_read(nano, share):
    with pytest.raises(SettingError, match="smallest_region"):
        nano.segment("no such photo.jpg", NAMES, smallest_region=share)

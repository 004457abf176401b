"""Colours: the same for the same names, distinct for all eyes, expected for common names; and Oklab itself."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.results.colours import shades, vocabulary_colours
from deop.results.expected_colours import GREY, expected_colour
from deop.results.oklab import fit_gamut, lab_to_linear, lab_to_rgb, rgb_to_lab, seen

COMMON = ["person", "car", "sky", "road", "tree", "building", "grass", "wall", "dog", "sofa", "table", "bus"]


def numbered(count: int) -> list[str]:
    return [f"thing number {k}" for k in range(count)]


def least_distances(lab: np.ndarray) -> np.ndarray:
    """The least distance between two of n colours, for each of several spaces (..., n, 3)."""
    first, second = np.triu_indices(lab.shape[-2], 1)
    return np.linalg.norm(lab[..., first, :] - lab[..., second, :], axis=-1).min(axis=-1)


@settings(max_examples=20, deadline=None)
@given(st.permutations(COMMON))
def test_colours_do_not_depend_on_the_order(names):
    expected = dict(zip(COMMON, vocabulary_colours(COMMON).tolist(), strict=True))
    assert dict(zip(names, vocabulary_colours(names).tolist(), strict=True)) == expected


def test_colours_are_the_same_in_every_process():
    """Also with other seeds of Python's hashes, which order sets and strings."""
    code = (
        "from deop.results.colours import vocabulary_colours as c; print(c([f'name {k}' for k in range(70)]).tolist())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("count", "distance", "blind"),
    [(2, 0.15, 0.12), (6, 0.12, 0.08), (12, 0.08, 0.05), (24, 0.055, 0.04), (32, 0.05, 0.035), (60, 0.035, 0.025),
     (150, 0.015, 0.011)],
)  # fmt: skip
def test_colours_are_distinct_for_all_eyes(count, distance, blind):
    normal, *others = least_distances(seen(vocabulary_colours(numbered(count))))
    assert normal > distance
    assert min(others) > blind


@pytest.mark.parametrize("names", [numbered(30), [*COMMON, *numbered(18)]])
def test_lightness_is_never_the_only_difference(names):
    lab = rgb_to_lab(vocabulary_colours(names))
    assert least_distances(lab * [0, 1, 1]) > 0.03


def test_common_names_have_expected_colours():
    names = ["sky", "grass", "tree", "water", "person", "wall", "umbrella"]
    lab = dict(zip(names, rgb_to_lab(vocabulary_colours(names)), strict=True))
    assert lab["sky"][2] < -0.05  # blue
    assert lab["water"][2] < -0.05
    assert lab["grass"][1] < -0.05  # green
    assert lab["tree"][1] < -0.05
    assert lab["tree"][0] < lab["grass"][0]
    for first, second in itertools.pairwise(("SKY", "sky", " Sky", "blue  sky")):
        np.testing.assert_array_equal(vocabulary_colours([first]), vocabulary_colours(["sky"]), err_msg=second)


def test_a_name_keeps_its_expected_colour_in_other_vocabularies():
    colours = [vocabulary_colours(["sky", *others])[0].tolist() for others in ([], ["cat"], COMMON[3:], numbered(150))]
    assert colours == colours[:1] * 4


def test_names_that_expect_the_same_colour_get_different_ones():
    lab = rgb_to_lab(vocabulary_colours(["man", "woman", "child", "police car", "car"]))
    assert least_distances(lab) > 0.1
    np.testing.assert_array_equal(vocabulary_colours(["police car", "car"])[1], expected_colour("car").colour)


def test_everything_else_is_grey():
    names = ["Background", "cat", "mountain", *numbered(40)]
    colours = vocabulary_colours(names)
    np.testing.assert_array_equal(colours[0], GREY)
    assert (np.linalg.norm(rgb_to_lab(colours[1:]) - rgb_to_lab(np.array(GREY)), axis=-1) > 0.04).all()


def test_many_names():
    assert len(np.unique(vocabulary_colours(numbered(500)), axis=0)) == 500
    many = vocabulary_colours(numbered(3000))
    assert many.shape == (3000, 3)
    assert len(np.unique(many, axis=0)) >= 700
    assert vocabulary_colours([]).shape == (0, 3)
    assert vocabulary_colours(["cat", "cat"]).tolist() == vocabulary_colours(["cat"]).tolist() * 2


def test_shades_are_almost_the_colour():
    colour = vocabulary_colours(["person"])[0]
    many = shades(colour, 10)
    assert many[0].tolist() == colour.tolist()
    assert (np.linalg.norm(rgb_to_lab(many) - rgb_to_lab(colour), axis=-1) < 0.03).all()
    assert (many[:-1] != many[1:]).any(axis=-1).all()  # neighbours in the order differ


def test_oklab_round_trip():
    rgb = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    np.testing.assert_array_equal(lab_to_rgb(rgb_to_lab(rgb)), rgb)
    np.testing.assert_allclose(rgb_to_lab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rgb_to_lab(np.array([255, 0, 0])), [0.6279554, 0.2248631, 0.1258463], atol=1e-5)


def test_colours_are_fitted_into_srgb_by_chroma_alone():
    lab = np.random.default_rng(0).uniform([0.1, -0.4, -0.4], [0.95, 0.4, 0.4], (300, 3))
    fitted = fit_gamut(lab)
    linear = lab_to_linear(fitted)
    assert linear.min() > -1e-3
    assert linear.max() < 1 + 1e-3
    np.testing.assert_allclose(fitted[:, 0], lab[:, 0])
    np.testing.assert_allclose(fitted[:, 1] * lab[:, 2], fitted[:, 2] * lab[:, 1], atol=1e-9)  # the same hue
    inside = rgb_to_lab(np.array([[120, 80, 200]], np.uint8))
    np.testing.assert_allclose(fit_gamut(inside), inside)


def test_colour_blind_eyes():
    """Grey stays grey, and the confused colours of each kind come together."""
    grey = seen(np.array([[90, 90, 90]], np.uint8))
    np.testing.assert_allclose(grey, grey[:1].repeat(4, axis=0), atol=2e-3)
    red, green = (np.array(rgb, np.uint8) for rgb in ([200, 60, 50], [120, 130, 40]))
    distance = np.linalg.norm(seen(red) - seen(green), axis=-1)  # normal, protanopia, deuteranopia, tritanopia
    assert distance[0] > 0.2
    assert distance[2] < 0.1
    assert distance[3] > 0.2

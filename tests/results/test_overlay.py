"""Overlays: sizes, colours, unchanged pixels, any number of names, any script."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from deop.errors import SettingError
from deop.results.colours import lab_to_rgb, name_colours, rgb_to_lab, shades
from deop.results.fonts import choose_font, fit_text
from deop.results.legend import percent, text_size
from deop.results.overlay import paint
from deop.results.segmentation import Segmentation
from tests.results.test_segmentation import NAMES, overlapping, photo_of

COMMON = ["person", "car", "sky", "road", "tree", "building", "grass", "wall", "dog", "sofa", "table", "bus"]


def stripes(count: int, shape: tuple[int, int] = (120, 200)) -> Segmentation:
    labels = np.broadcast_to(np.arange(shape[1]) * count // shape[1], shape).astype(np.int32)
    return Segmentation.from_semantic(photo_of(shape), [f"name {k}" for k in range(count)], labels)


@settings(max_examples=20, deadline=None)
@given(st.permutations(COMMON))
def test_colours_do_not_depend_on_the_order(names):
    expected = dict(zip(COMMON, name_colours(COMMON).tolist(), strict=True))
    assert dict(zip(names, name_colours(names).tolist(), strict=True)) == expected


@pytest.mark.parametrize(("count", "distance"), [(2, 0.12), (12, 0.11), (24, 0.07), (60, 0.045), (150, 0.025)])
def test_colours_are_distinct(count, distance):
    lab = rgb_to_lab(name_colours([f"thing number {k}" for k in range(count)]))
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.eye(count)
    assert distances.min() > distance


def test_few_names_have_very_different_colours():
    """Among few names, distinct colours matter more than the same colour among other names."""
    for first in range(len(COMMON) - 4):
        lab = rgb_to_lab(name_colours(COMMON[first : first + 4]))
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(4, 1)]
        assert distance.min() > 0.18, COMMON[first : first + 4]
    np.testing.assert_array_equal(name_colours(["Sky"]), name_colours(["sky"]))


def test_oklab_round_trip():
    rgb = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    np.testing.assert_array_equal(lab_to_rgb(rgb_to_lab(rgb)), rgb)
    np.testing.assert_allclose(rgb_to_lab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rgb_to_lab(np.array([255, 0, 0])), [0.6279554, 0.2248631, 0.1258463], atol=1e-5)


def test_shades_differ_and_start_with_the_colour():
    colour = name_colours(["person"])[0]
    many = shades(colour, 10)
    assert many[0].tolist() == colour.tolist()
    assert len({tuple(shade) for shade in many.tolist()}) == 10


def test_paint_by_hand():
    photo = np.full((4, 6, 3), 100, np.uint8)  # grey: not changed by desaturation
    values = np.array([[0, 0, 0, -1, -1, -1]] * 4, np.int32)
    colours = np.array([[200, 0, 50]], np.uint8)
    plain = np.asarray(paint(photo, values, colours, 0.5, borders=False))
    assert np.abs(plain[:, :3].astype(int) - [150, 50, 75]).max() <= 1
    np.testing.assert_array_equal(plain[:, 3:], photo[:, 3:])
    nothing = np.asarray(paint(photo, values, colours, 0.0, borders=False))
    np.testing.assert_array_equal(nothing, photo)
    full = np.asarray(paint(photo, values, colours, 1.0, borders=False))
    assert (full[:, :3] == [200, 0, 50]).all()
    lined = np.asarray(paint(photo, values, colours, 0.5))
    assert (lined[:, 2] > 200).any()  # the outline


def test_pixels_without_a_name_are_unchanged():
    result = overlapping()
    picture = np.asarray(result.overlay(legend=False, labels=False, borders=False))
    outside = result.segment_map < 0
    np.testing.assert_array_equal(picture[outside], result.photo[outside])
    assert (picture[~outside] != result.photo[~outside]).any()


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (21, 32), (1, 400), (400, 1), (480, 640), (640, 480)])
@pytest.mark.parametrize("count", [1, 3, 130])
def test_any_size_and_number(shape, count):
    result = stripes(min(count, shape[1]), shape)
    assert result.overlay(legend=False).size == (shape[1], shape[0])
    picture = result.overlay()
    times = max(1, -(-320 // max(shape)))
    assert picture.width >= shape[1] * times
    assert picture.height >= shape[0] * times
    assert (picture.width > shape[1] * times) != (picture.height > shape[0] * times) or count == 130
    body = np.asarray(result.overlay(labels=False))[: shape[0] * times, : shape[1] * times]
    if times == 1:  # the legend does not cover the photo
        np.testing.assert_array_equal(body, np.asarray(result.overlay(legend=False)))


@pytest.mark.slow
def test_a_large_photo():
    result = stripes(40, (3000, 4096))
    assert result.overlay().width == 4096


def test_the_font_size_grows_with_the_photo():
    assert text_size((640, 480)) == 14
    assert text_size((4096, 3072)) > 80
    assert text_size((32, 32)) == 12


def test_the_number_of_lines_can_be_limited():
    result = stripes(12)
    assert result.overlay(max_names=3).height < result.overlay().height
    assert result.overlay(max_names=1).size >= result.overlay(legend=False).size


@pytest.mark.parametrize(
    "name",
    ["猫", "chaise d'été", "стол", "🐱", "a\nb\tc", "x" * 500, "مقعد", "\u0000", " ", "e\u0301", "\ud800"],
)
def test_any_name(name):
    result = Segmentation.from_instances(photo_of((60, 80)), [name, "b"], [((0, 0.5, True), np.ones((60, 80), bool))])
    assert result.overlay().mode == "RGB"


def test_text_is_truncated_and_accents_removed():
    font = ImageFont.load_default(16)
    assert fit_text("short", font, 500) == "short"
    cut = fit_text("a rather long name of a thing", font, 100)
    assert cut.endswith("...")
    assert font.getlength(cut) <= 100
    assert fit_text("two\nlines", font, 500) == "two lines"
    assert fit_text("ĚŠ", font, 500) == "ES"  # Pillow's built-in font lacks these characters


def test_fonts():
    assert choose_font(["cat"], 14).getname() == ImageFont.load_default(14).getname()
    with pytest.raises(SettingError, match=r"none\.ttf"):
        choose_font(["cat"], 14, "/none.ttf")


def test_options_are_checked():
    result = overlapping()
    for options in ({"alpha": 1.5}, {"alpha": -0.1}, {"max_names": 0}, {"font": "/none.ttf"}):
        with pytest.raises(SettingError):
            result.overlay(**options)


def test_only_things_have_labels():
    shape = (300, 400)
    values = np.zeros(shape, np.int32)
    values[:, 200:] = 1
    photo = photo_of(shape)
    result = Segmentation.from_panoptic(photo, NAMES, values, [(0, 0.9, True), (2, 0.8, False)])
    with_labels, without = (np.asarray(result.overlay(labels=on, legend=False)).astype(int) for on in (True, False))
    changed = (with_labels != without).any(axis=-1)
    assert changed[:, :200].any()
    assert not changed[:, 200:].any()


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_saved_pictures(ending, tmp_path):
    result = stripes(3)
    path = result.save(tmp_path / "new" / f"a{ending}", alpha=0.3)
    with Image.open(path) as image:
        assert image.size == result.overlay().size
        if ending.lower() == ".png":
            np.testing.assert_array_equal(np.asarray(image), np.asarray(result.overlay(alpha=0.3)))


def test_percent():
    assert [percent(share) for share in (0, 0.0001, 0.001, 0.042, 0.0996, 0.42, 1)] == [
        "0%",
        "<0.1%",
        "0.1%",
        "4.2%",
        "10%",
        "42%",
        "100%",
    ]

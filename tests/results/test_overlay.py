"""Overlays: sizes, colours, unchanged pixels, any number of names, any script."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageFont

from deop.errors import SettingError
from deop.results import fonts
from deop.results.blending import dilate, paint, swatches
from deop.results.colours import vocabulary_colours
from deop.results.fonts import FontWarning, choose_font, fit_text
from deop.results.legend import percent, text_size
from deop.results.name_labels import _Label, _Places
from deop.results.oklab import decode, linear_to_lab, rgb_to_lab
from deop.results.overlay import _lines_not_found
from deop.results.segmentation import Segmentation
from tests.results.test_segmentation import overlapping, photo_of


def stripes(count: int, shape: tuple[int, int] = (120, 200)) -> Segmentation:
    labels = np.broadcast_to(np.arange(shape[1]) * count // shape[1], shape).astype(np.int32)
    return Segmentation.from_semantic(photo_of(shape), [f"name {k}" for k in range(count)], labels)


def test_paint_by_hand():
    photo = np.full((4, 6, 3), 100, np.uint8)
    values = np.array([[0, 0, 0, -1, -1, -1]] * 4, np.int32)
    colours = np.array([[200, 0, 50]], np.uint8)
    plain = np.asarray(paint(photo, values, colours, 0.5, borders=False)).astype(int)
    # A photo without any detail: the colour, of which 0.5^6 is the photo. Grey is not changed.
    assert np.abs(plain[:, :3] - (63 * np.array([200, 0, 50]) + 100) / 64).max() <= 1
    assert np.abs(plain[:, 3:] - 100).max() <= 1
    nothing = np.asarray(paint(photo, values, colours, 0.0, borders=False))
    np.testing.assert_array_equal(nothing, photo)
    full = np.asarray(paint(photo, values, colours, 1.0, borders=False))
    assert (full[:, :3] == [200, 0, 50]).all()
    lined = np.asarray(paint(photo, values, colours, 0.5))
    assert (lined[:, 2] > plain[:, 2]).all()  # the outline


def test_regions_have_the_mean_colour_of_their_swatch():
    """On dark, bright and contrasty photos; measured in linear light, independently of how it is blended."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)[None].repeat(60, axis=0).astype(np.int32)
    colours = vocabulary_colours(["sky", "grass", "person", "one", "two", "three"])
    for low, high in ((0, 60), (180, 256), (0, 256), (100, 130)):
        photo = random.integers(low, high, (60, 120, 3)).astype(np.uint8)
        picture = decode(np.asarray(paint(photo, labels, colours, 0.5, borders=False)))
        means = np.stack([picture[labels == index].mean(axis=0) for index in range(6)])
        error = np.linalg.norm(linear_to_lab(means) - rgb_to_lab(swatches(colours, 0.5)), axis=-1)
        assert error.max() < 0.02, (low, high)


def test_regions_keep_the_details_of_the_photo():
    photo = np.random.default_rng(0).integers(60, 200, (60, 120, 1)).astype(np.uint8).repeat(3, axis=2)
    labels = np.zeros((60, 120), np.int32)
    picture = np.asarray(paint(photo, labels, vocabulary_colours(["sky"]), 0.5, borders=False)).astype(float)
    correlation = np.corrcoef(picture.mean(axis=-1).ravel(), photo[..., 0].ravel())[0, 1]
    assert correlation > 0.98


def test_pixels_without_a_name_are_grey():
    result = overlapping()
    picture = np.asarray(result.overlay(legend=False, labels=False, borders=False)).astype(int)
    outside = result.segment_map < 0
    spread = picture.max(axis=-1) - picture.min(axis=-1)
    assert spread[outside].max() <= 8
    assert (picture[~outside] != result.photo[~outside]).any()


def test_dilation_against_pillow():
    mask = np.random.default_rng(0).random((40, 57)) < 0.02
    for radius in (0, 1, 2, 3, 7):
        expected = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * radius + 1))
        np.testing.assert_array_equal(dilate(mask, radius), np.asarray(expected).astype(bool), err_msg=str(radius))


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
        np.testing.assert_array_equal(body, np.asarray(result.overlay(legend=False, labels=False)))


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
@pytest.mark.filterwarnings("ignore::deop.results.fonts.FontWarning")
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


def test_a_warning_names_characters_that_no_font_has(monkeypatch):
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ())
    fonts._best_font.cache_clear()
    with pytest.warns(FontWarning, match="no installed font has the characters '猫'"):
        choose_font(["猫"], 14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_font(["猫"], 14)  # once for the same characters
        choose_font(["Ě and 🐱"], 14)  # drawn as E, and as the name of the symbol
    fonts._best_font.cache_clear()


def test_symbols_without_a_glyph_are_named():
    assert fit_text("a 🐱!", ImageFont.load_default(16), 500) == "a cat face !"


def test_options_are_checked():
    result = overlapping()
    for options in (
        {"alpha": 1.5},
        {"alpha": -0.1},
        {"alpha": float("nan")},
        {"max_names": 0},
        {"font": "/none.ttf"},
        {"style": "paint"},
        {"names": "cat"},
        {"style": "heatmap"},
    ):
        with pytest.raises(SettingError):
            result.overlay(**options)


def changed_by_labels(result: Segmentation) -> np.ndarray:
    """The pixels (H, W) bool that the labels cover."""
    pictures = [np.asarray(result.overlay(labels=on, legend=False)).astype(int) for on in (True, False)]
    return (pictures[0] != pictures[1]).any(axis=-1)


@pytest.mark.parametrize("mode", ["semantic", "panoptic"])
def test_large_regions_have_labels(mode):
    shape = (300, 400)
    values = np.zeros(shape, np.int32)
    values[:, 200:] = 1
    values[140:146, 300:306] = 2  # too small for a label
    if mode == "semantic":
        result = Segmentation.from_semantic(photo_of(shape), ["cat", "sky", "bird"], values)
    else:
        pieces = [(0, 0.9, True), (1, 0.8, False), (2, 0.7, True)]
        result = Segmentation.from_panoptic(photo_of(shape), ["cat", "sky", "bird"], values, pieces)
    changed = changed_by_labels(result)
    assert changed[:, :200].any()
    assert changed[:, 200:].any()
    assert not changed[130:156, 290:316].all()
    columns = np.nonzero(changed[:, :200])[1]
    assert abs(columns.mean() - 100) < 40  # near the middle of the region


def test_labels_lie_on_their_regions_and_do_not_overlap():
    """In a picture of 40 regions, from the places that are taken."""
    random = np.random.default_rng(0)
    values = np.kron(random.permutation(40).reshape(5, 8), np.ones((80, 90), np.int32)).astype(np.int32)
    places = _Places(values)
    font = ImageFont.load_default(14)
    taken = {index: places.take(index, _Label("name", font, 60, 20), 0.7) for index in range(40)}
    boxes = {index: corner for index, corner in taken.items() if corner is not None}
    assert len(boxes) == 40
    for index, (left, top) in boxes.items():
        assert (values[top : top + 20, left : left + 60] == index).mean() > 0.7
    corners = list(boxes.values())
    for first, (left, top) in enumerate(corners):
        for other_left, other_top in corners[:first]:
            assert abs(left - other_left) >= 59 or abs(top - other_top) >= 19


def test_a_label_that_does_not_fit_is_omitted():
    values = np.zeros((60, 300), np.int32)
    values[:, 100:110] = 1
    font = ImageFont.load_default(14)
    assert _Places(values).take(1, _Label("name", font, 60, 20), 0.7) is None
    assert _Places(values).take(2, _Label("name", font, 60, 20), 0.7) is None  # no pixel at all
    assert _Places(values).take(0, _Label("a long name", font, 400, 20), 0.7) is None
    places = _Places(values)
    taken = [places.take(0, _Label("name", font, 200, 60), 0.5) for _ in range(2)]
    assert taken[0] is not None
    assert taken[1] is None


def styled(style: str, **options) -> np.ndarray:
    return np.asarray(overlapping().overlay(style=style, legend=False, labels=False, **options))


def test_style_outline():
    result = overlapping()
    picture = styled("outline")
    changed = (picture != result.photo).any(axis=-1)
    edge = np.zeros(result.shape, bool)
    edge[:-1] |= result.segment_map[:-1] != result.segment_map[1:]
    edge[:, :-1] |= result.segment_map[:, :-1] != result.segment_map[:, 1:]
    assert changed[edge].all()
    assert not changed[~dilate(edge, 4)].any()


def test_style_labels():
    result = stripes(3, (120, 300))
    picture = np.asarray(result.overlay(style="labels", legend=False, labels=False, borders=False))
    np.testing.assert_array_equal(picture, result.colours[result.label_map])


def test_style_side_by_side():
    result = stripes(3, (120, 400))
    picture = np.asarray(result.overlay(style="side-by-side", legend=False))
    assert picture.shape[0] == 120
    np.testing.assert_array_equal(picture[:, :400], result.photo)
    np.testing.assert_array_equal(picture[:, -400:], np.asarray(result.overlay(legend=False)))


def test_the_legend_lists_names_that_were_not_found():
    names = ["a", "b", *(f"missing {k}" for k in range(30))]
    lines = _lines_not_found(names, {"a": [0], "b": [1]}, vocabulary_colours(names))
    assert [line.text for line in lines] == [*(f"missing {k}" for k in range(12)), "+ 18 more not found"]
    assert [line.share for line in lines] == [0.0] * 12 + [None]
    values = np.zeros((400, 400), np.int32)
    results = [
        Segmentation.from_semantic(photo_of((400, 400)), ["a", *rest], values, settings=settings)
        for rest, settings in (([], {}), (["b", "c"], {}), (["b", "c"], {"vocabulary": "everyday"}))
    ]
    pictures = [np.asarray(result.overlay())[:, 400:] for result in results]
    assert (pictures[1][35:] != 255).sum() > (pictures[0][35:] != 255).sum()
    assert pictures[2].shape == pictures[0].shape


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

"""Cut-outs and pictures of heatmaps, and the names that they are asked for."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deop.errors import NotFoundInPhotoError, OutputError, SettingError
from deop.results.cutout import cut_out
from deop.results.heatmap import draw_heatmap
from deop.results.name_lookup import find_names
from deop.results.oklab import rgb_to_lab
from deop.results.segmentation import Segmentation

RANDOM = np.random.default_rng(0)
SHAPE = (120, 200)
PHOTO = RANDOM.integers(1, 256, (*SHAPE, 3)).astype(np.uint8)


def result() -> Segmentation:
    labels = np.full(SHAPE, -1, np.int32)
    labels[20:80, 30:90] = 0
    labels[20:80, 120:200] = 1
    names = ["cat", "sofa", "dog"]
    settings = {"synonyms": [["cat"], ["sofa", "couch"], ["dog"]]}
    return Segmentation.from_semantic(PHOTO, names, labels, settings=settings, source="photos/room.jpg")


def test_an_exact_cutout_is_the_mask():
    picture = result().cutout("cat", soft_edge=False)
    pixels = np.asarray(picture)
    assert picture.mode == "RGBA"
    inside = result().label_map == 0
    np.testing.assert_array_equal(pixels[..., 3], np.where(inside, 255, 0))
    np.testing.assert_array_equal(pixels[inside][:, :3], PHOTO[inside])
    assert not pixels[~inside].any()  # the file does not contain the background


def test_a_soft_edge_lies_inside_and_is_one_pixel_wide():
    opacity = np.asarray(result().cutout("cat"))[..., 3]
    inside = result().label_map == 0
    assert not opacity[~inside].any()
    assert (opacity[21:79, 31:89] == 255).all()
    assert opacity[50, 30] == 170  # two thirds of the pixels around it
    assert opacity[20, 30] == round(255 * 4 / 9)


def test_the_border_of_the_photo_is_no_edge():
    opacity = np.asarray(result().cutout("sofa"))[..., 3]
    assert opacity[50, 199] == 255
    assert opacity[50, 120] == 170


@pytest.mark.parametrize("soft_edge", [True, False])
def test_a_cropped_cutout_is_a_part_of_the_whole(soft_edge):
    whole, cropped = (np.asarray(result().cutout("cat", soft_edge=soft_edge, crop=crop)) for crop in (False, True))
    np.testing.assert_array_equal(cropped, whole[20:80, 30:90])
    thin = np.zeros(SHAPE, bool)
    thin[7, 9] = True
    assert cut_out(PHOTO, thin, crop=True).size == (1, 1)


def test_several_names_and_synonyms():
    opacity = np.asarray(result().cutout(["CAT", "couch"], soft_edge=False))[..., 3]
    np.testing.assert_array_equal(opacity > 0, result().label_map >= 0)
    np.testing.assert_array_equal(np.asarray(result().cutout(soft_edge=False))[..., 3], opacity)


def test_overlapping_instances_are_cut_out_whole():
    first, second = np.zeros((2, *SHAPE), bool)
    first[:, :120], second[:, 80:] = True, True
    overlapping = Segmentation.from_instances(
        PHOTO, ["cat", "dog"], [((0, 0.5, True), first), ((1, 0.9, True), second)]
    )
    np.testing.assert_array_equal(np.asarray(overlapping.cutout("cat", soft_edge=False))[..., 3] > 0, first)


def test_names_that_cannot_be_cut_out():
    with pytest.raises(SettingError, match="'bird' is not one of the requested names, which are: cat, sofa, dog"):
        result().cutout("bird")
    with pytest.raises(NotFoundInPhotoError, match=r"no pixel of photos/room\.jpg is 'dog'"):
        result().cutout("dog")
    empty = Segmentation.from_semantic(PHOTO, ["cat"], np.full(SHAPE, -1))
    with pytest.raises(NotFoundInPhotoError, match="any of the names"):
        empty.cutout()
    with pytest.raises(SettingError, match="no name is given"):
        result().cutout([])


def test_saved_cutouts(tmp_path):
    for suffix in (".png", ".webp"):
        path = result().save(tmp_path / f"cat{suffix}", style="cutout", names="cat")
        with Image.open(path) as image:
            assert image.mode == "RGBA"
            opacity = np.asarray(image)[..., 3]
            np.testing.assert_array_equal(opacity > 0, result().label_map == 0)
    with pytest.raises(OutputError, match=r"JPEG has no transparency; use \.png or \.webp"):
        result().save(tmp_path / "cat.jpg", style="cutout", names="cat")
    assert not (tmp_path / "cat.jpg").exists()


def with_heatmap() -> Segmentation:
    values = np.linspace(0, 1, SHAPE[1], dtype=np.float32)[None].repeat(SHAPE[0], axis=0)
    return replace(result(), heatmaps={"sofa": values})


def test_a_heatmap_is_lighter_where_the_score_is_higher():
    grey = np.full((50, 400, 3), 120, np.uint8)
    values = np.linspace(0, 1, 400, dtype=np.float32)[None].repeat(50, axis=0)
    picture = np.asarray(draw_heatmap(grey, values, "cat", legend=False))
    lightness = rgb_to_lab(picture[0])[:, 0]
    assert lightness[-1] - lightness[0] > 0.5
    assert np.diff(lightness[::8]).min() > 0  # always, also in grey and for colour-blind eyes
    half = np.asarray(draw_heatmap(grey, values, "cat", legend=False, maximum=0.5))
    np.testing.assert_array_equal(half[0, 200:], picture[0, -1:].repeat(200, axis=0))


def test_pictures_of_heatmaps(tmp_path):
    picture = with_heatmap().heatmap("couch")
    assert picture.mode == "RGB"
    assert picture.height > 2 * SHAPE[0]  # the photo is enlarged, and there is a scale
    assert with_heatmap().heatmap("sofa", legend=False).size == (SHAPE[1], SHAPE[0])
    path = with_heatmap().save(tmp_path / "sofa.png", style="heatmap", names="sofa")
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture))


def test_heatmaps_are_checked():
    with pytest.raises(SettingError, match="no heatmap of 'cat': segment the photo with heatmaps='cat'"):
        with_heatmap().heatmap("cat")
    for options in ({"alpha": 2}, {"maximum": 0}, {"maximum": 1.5}):
        with pytest.raises(SettingError):
            with_heatmap().heatmap("sofa", **options)
    with pytest.raises(SettingError, match="a heatmap is of one name"):
        with_heatmap().overlay(style="heatmap", names="cat, sofa")


@pytest.mark.parametrize("name", ["x" * 300, "猫", "", "a\nb"])
@pytest.mark.filterwarnings("ignore::deop.results.fonts.FontWarning")
def test_any_name_and_size_of_heatmaps(name):
    for shape in ((1, 1), (3, 500), (500, 3)):
        picture = draw_heatmap(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.float32), name)
        assert picture.mode == "RGB"


def test_finding_names():
    names = ["cat", "a red car, parked", "sofa"]
    synonyms = [["cat"], ["a red car, parked"], ["sofa", "couch"]]
    assert find_names("a red car, parked", names) == [1]
    assert find_names("a red car, parked; CAT", names) == [1, 0]
    assert find_names("couch, cat, sofa", names, synonyms) == [2, 0]
    assert find_names(["sofa|couch"], names) == [2]
    assert find_names("", names) == find_names([], names) == []
    with pytest.raises(SettingError, match="which are: n0, n1, n2, n3, n4, n5, n6, n7 and 4 more"):
        find_names("cat", [f"n{k}" for k in range(12)])
    with pytest.raises(SettingError, match="give strings"):
        find_names([3], names)  # type: ignore[list-item]

"""Augmentation: each step against a formula or another library, and samples that depend on the generator only."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deop.data.augment import STAGE_2, STAGE_3, Augmentation, augment, change_colours, short_sides
from deop.errors import SettingError


def numbered(height, width):
    """A photo and a class map that encode the position of every pixel."""
    rows, columns = np.mgrid[:height, :width]
    photo = np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], 2).astype(np.uint8)
    return photo, (rows * width + columns).astype(np.int32)


def draw(seed=0):
    return np.random.default_rng(seed)


PLAIN = Augmentation(short_sides=None, crop=None, colour=False, flip=0, pad=None)


def test_without_any_step_nothing_changes():
    photo, classes = numbered(30, 50)
    pixels, labels, size = augment(photo, classes, PLAIN, draw())
    np.testing.assert_array_equal(pixels, photo)
    np.testing.assert_array_equal(labels, classes)
    assert size == (30, 50)


def test_the_sizes_are_the_papers():
    # docs/method.md §1 and §9
    assert short_sides(512) == STAGE_3.short_sides == (256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768)
    assert (min(STAGE_2.short_sides), max(STAGE_2.short_sides), STAGE_2.crop, STAGE_2.pad) == (320, 960, 640, 640)


def test_all_sizes_are_drawn_and_the_longer_side_is_limited():
    photo, classes = numbered(20, 40)
    how = Augmentation(short_sides=(10, 20, 30), long_side=44, crop=None, colour=False, flip=0, pad=None)
    source = draw()
    sizes = {augment(photo, classes, how, source)[2] for _ in range(50)}
    assert sizes == {(10, 20), (20, 40), (22, 44)}


def test_photo_and_classes_are_resized_as_by_pillow():
    photo, classes = numbered(20, 40)
    how = Augmentation(short_sides=(13,), crop=None, colour=False, flip=0, pad=None)
    pixels, labels, _ = augment(photo, classes, how, draw())
    np.testing.assert_array_equal(
        pixels, np.asarray(Image.fromarray(photo).resize((26, 13), Image.Resampling.BILINEAR))
    )
    rows = ((np.arange(13) + 0.5) * 20 / 13).astype(int)
    columns = ((np.arange(26) + 0.5) * 40 / 26).astype(int)
    np.testing.assert_array_equal(labels, classes[rows][:, columns])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_photo_and_classes_are_cropped_alike(height, width, side, seed):
    photo, classes = numbered(height, width)
    how = Augmentation(short_sides=None, crop=side, colour=False, flip=0.5, pad=None)
    pixels, labels, size = augment(photo, classes, how, draw(seed))
    assert size == labels.shape == (min(side, height), min(side, width))
    rows, columns = np.divmod(labels, width)
    np.testing.assert_array_equal(pixels, photo[rows, columns])


def test_every_position_of_a_crop_is_drawn():
    photo, classes = numbered(6, 5)
    how = Augmentation(short_sides=None, crop=4, colour=False, flip=0, pad=None)
    source = draw()
    corners = {augment(photo, classes, how, source)[1][0, 0] for _ in range(200)}
    assert corners == {row * 5 + column for row in range(3) for column in range(2)}


def test_a_crop_of_one_class_is_drawn_again():
    photo = np.zeros((8, 64, 3), np.uint8)
    classes = np.zeros((8, 64), np.int32)
    classes[:, 32:] = 1
    classes[:, :4] = -1

    def shares(limit):
        how = Augmentation(short_sides=None, crop=8, largest_share=limit, colour=False, flip=0, pad=None)
        return [len(np.unique(augment(photo, classes, how, draw(seed))[1])) for seed in range(200)]

    once = np.mean(np.array(shares(1.0)) > 1)
    assert once == pytest.approx(
        7 / 57 + 4 / 57, abs=0.1
    )  # crops with the border between the classes, or with that of the void
    often = np.mean(np.array(shares(0.9)) > 1)
    assert often > 0.6  # 1 - (1 - 7/57)^10 = 0.73


def test_half_of_the_samples_are_flipped():
    photo, classes = numbered(6, 5)
    how = Augmentation(short_sides=None, crop=None, colour=False, flip=0.5, pad=None)
    flipped = 0
    for seed in range(400):
        pixels, labels, _ = augment(photo, classes, how, draw(seed))
        mirrored = labels[0, 0] == 4
        flipped += mirrored
        np.testing.assert_array_equal(pixels, photo[:, ::-1] if mirrored else photo)
    assert 150 < flipped < 250


def test_padding_is_grey_and_void_at_the_bottom_and_on_the_right():
    photo, classes = numbered(30, 50)
    pixels, labels, size = augment(photo, classes, Augmentation(None, crop=None, colour=False, flip=0, pad=40), draw())
    assert (size, pixels.shape, labels.shape) == ((30, 50), (40, 50, 3), (40, 50))
    np.testing.assert_array_equal(pixels[:30], photo)
    assert (pixels[30:] == 128).all()
    assert (labels[30:] == -1).all()


def test_only_the_padding_of_the_original_cuts():
    # docs/method.md §13.12: a crop of 640 on a canvas of 512 keeps its top left corner only
    photo, classes = numbered(700, 660)
    default = Augmentation(short_sides=None, colour=False, flip=0)
    faithful = Augmentation(short_sides=None, colour=False, flip=0, padding="original")
    assert (default.padding, default.canvas, faithful.canvas) == ("whole", 640, 512)
    for seed in range(5):
        whole, labels, size = augment(photo, classes, default, draw(seed))
        cut, cut_labels, cut_size = augment(photo, classes, faithful, draw(seed))
        assert (whole.shape[:2], size, cut.shape[:2], cut_size) == ((640, 640), (640, 640), (512, 512), (512, 512))
        np.testing.assert_array_equal(cut, whole[:512, :512])
        np.testing.assert_array_equal(cut_labels, labels[:512, :512])
    small, small_classes = numbered(300, 700)
    cut, cut_labels, size = augment(small, small_classes, faithful, draw())
    assert (cut.shape[:2], size) == ((512, 512), (300, 512))
    assert (cut_labels[300:] == -1).all()


def test_colours_equal_the_formulas():
    photo = np.random.default_rng(5).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    kinds = set()
    for seed in range(40):
        source = draw(seed)
        used = source.random(4) < 0.5
        shift = source.uniform(-32, 32)
        contrast, saturation = source.uniform(0.5, 1.5, 2)
        turn = source.uniform(-0.1, 0.1)  # of the circle: 18 of OpenCV's 180 either way
        first = source.random() < 0.5
        kinds.add((*used.tolist(), bool(first)))
        expected = photo / 255
        if used[0]:
            expected = np.clip(expected + shift / 255, 0, 1)
        if used[1] and first:
            expected = np.clip(expected * contrast, 0, 1)
        for place in np.ndindex(4, 5):
            hue, chroma, value = colorsys.rgb_to_hsv(*expected[place])
            chroma = min(chroma * saturation, 1) if used[2] else chroma
            hue = (hue + turn) % 1 if used[3] else hue
            expected[place] = colorsys.hsv_to_rgb(hue, chroma, value)
        if used[1] and not first:
            expected = np.clip(expected * contrast, 0, 1)
        actual = change_colours(photo, draw(seed))
        assert np.abs(actual - expected * 255).max() <= 1
    assert len(kinds) > 15


def test_later_random_numbers_do_not_depend_on_the_colours():
    photo, _ = numbered(16, 16)
    left = []
    for seed in range(20):
        source = draw(seed)
        before = source.bit_generator.state["state"]["state"]
        change_colours(photo, source)
        step = draw(seed)
        step.random(4), step.uniform(size=1), step.uniform(size=2), step.uniform(size=1), step.random()
        assert source.bit_generator.state == step.bit_generator.state
        assert source.bit_generator.state["state"]["state"] != before
        left.append(source.random())
    assert len(set(left)) == 20


def test_the_number_of_threads_does_not_change_a_sample():
    photo, classes = numbered(90, 120)
    how = Augmentation(short_sides=(60, 80), crop=50, pad=64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = augment(photo, classes, how, draw(7))
        torch.set_num_threads(4)
        torch.manual_seed(99)
        four = augment(photo, classes, how, draw(7))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one[0], four[0])
    np.testing.assert_array_equal(one[1], four[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_sides": ()}, "short_sides must be"),
        ({"short_sides": (3000,)}, "short_sides must be"),
        ({"crop": 0}, "crop must be"),
        ({"pad": -1}, "pad must be"),
        ({"flip": 1.5}, "flip must be"),
        ({"fill": 256}, "fill must be"),
        ({"largest_share": -0.1}, "largest_share"),
        ({"padding": "negative"}, "whole or original"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(SettingError, match=message):
        Augmentation(**options)


def test_a_list_from_a_recipe_becomes_a_tuple():
    assert Augmentation(short_sides=[256, 512]).short_sides == (256, 512)

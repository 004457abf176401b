"""Reading photos in every form, compared with Pillow and with small arrays; resizing and padding."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from deop.errors import ImageError, SettingError
from deop.images.preprocessing import (
    CLIP,
    IMAGENET,
    Normalization,
    Resize,
    normalize,
    pixel_array,
    resize_photo,
    resized_shape,
    to_batch,
    to_pixels,
)
from deop.images.reading import count_pixels, read_photo


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth image, which JPEG keeps, with four different corners."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_path_string_bytes_image_and_array_agree(photo, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(photo).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(photo), photo):
        result = read_photo(source)
        assert result.dtype == np.uint8
        assert result.flags.writeable
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, photo)


def test_the_result_is_a_copy(photo):
    result = read_photo(photo)
    photo[:] = 0
    assert result.max() > 0


def test_an_array_that_cannot_change_is_not_copied(photo):
    view = photo[:]
    view.setflags(write=False)
    assert not np.shares_memory(read_photo(view), photo)  # its base can change
    photo = photo.copy()
    photo.setflags(write=False)
    assert read_photo(photo) is photo


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_pixels_are_counted_from_the_header(photo, form, tmp_path):
    data = encoded(Image.fromarray(photo), form)
    path = tmp_path / "photo.img"
    path.write_bytes(data)
    for source in (path, str(path), data, Image.open(path), photo):
        assert count_pixels(source) == 40 * 60
    path.write_bytes(data[:300])
    if form in ("PNG", "BMP"):
        assert count_pixels(path) == 40 * 60  # not decoded


@pytest.mark.parametrize("source", ["missing.png", b"", b"a text", None, np.zeros(3), b"\x89PNG\r\n\x1a\nbroken"])
def test_sources_that_cannot_be_opened_count_no_pixels(source):
    assert count_pixels(source) == 0


def test_the_pixels_of_a_large_scan_are_counted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_pixels(encoded(Image.new("1", (20_000, 9_500)), "PNG")) == 190_000_000


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_as_by_pillow(photo, orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read_photo(data), expected)
    np.testing.assert_array_equal(read_photo(Image.open(io.BytesIO(data))), expected)
    if form != "JPEG":
        assert np.array_equal(expected, photo) == (orientation == 1)


def test_damaged_exif_is_ignored(photo):
    data = encoded(Image.fromarray(photo), "JPEG", exif=b"Exif\x00\x00not a TIFF header")
    assert read_photo(data).shape == photo.shape


def test_transparency_is_composited_over_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, 0, 3], rgba[0, 1, 3], rgba[1, 0, 3] = 255, 0, 128
    expected = np.array([[[200, 0, 0], [255] * 3], [[227, 127, 127], [255] * 3]])
    assert np.abs(read_photo(rgba).astype(int) - expected).max() <= 1
    assert np.abs(read_photo(encoded(Image.fromarray(rgba), "PNG")).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBa"])
def test_other_modes_with_alpha(mode):
    alpha = Image.new("RGBA", (3, 2), (255, 255, 255, 0))
    if mode == "PA":
        image = Image.new("PA", (3, 2), 0)  # every pixel transparent
    elif mode in ("La",):
        image = alpha.convert("LA").convert("La")
    else:
        image = alpha.convert(mode)
    assert (read_photo(image) == 255).all()


def test_palette_with_a_transparent_colour(photo):
    image = Image.fromarray(photo).quantize(4)
    image.info["transparency"] = 2
    index = np.asarray(image)
    result = read_photo(encoded(image, "PNG", transparency=2))
    assert (result[index == 2] == 255).all()
    np.testing.assert_array_equal(result[index != 2], np.asarray(image.convert("RGB"))[index != 2])


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_modes_that_pillow_converts(photo, mode):
    image = Image.fromarray(photo).convert(mode)
    np.testing.assert_array_equal(read_photo(image), np.asarray(image.convert("RGB")))


def test_lab():
    image = Image.new("LAB", (2, 2), (255, 128, 128))  # L* = 100, no colour
    assert (read_photo(image) >= 250).all()


def test_cmyk_jpeg(photo):
    data = encoded(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(read_photo(data).astype(int) - photo).mean() < 3


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(form):
    values = np.array([[0, 128, 129, 257], [32768, 40000, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(read_photo(encoded(Image.fromarray(values), form)), expected)
    np.testing.assert_array_equal(read_photo(values), expected)


def test_every_16_bit_value_rounds_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(read_photo(values)[..., 0], np.rint(values / 257).astype(np.uint8))


def test_32_bit_values_outside_16_bits_are_rejected():
    with pytest.raises(ImageError, match="scale them"):
        read_photo(Image.fromarray(np.full((2, 2), 70_000, np.int32)))
    with pytest.raises(ImageError, match="scale them"):
        read_photo(Image.fromarray(np.full((2, 2), -1, np.int32)))


def test_float_arrays_and_float_tiff():
    grey = np.array([[0.0, 0.5, 1.0]], np.float32)
    expected = np.array([0, 128, 255])
    for source in (grey, grey.astype(np.float64), grey.astype(np.float16), encoded(Image.fromarray(grey), "TIFF")):
        np.testing.assert_array_equal(read_photo(source)[0, :, 0], expected)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint32])
def test_wide_integers_that_hold_8_bit(photo, dtype):
    np.testing.assert_array_equal(read_photo(photo.astype(dtype)), photo)


def test_bool_grey_and_single_channel():
    mask = np.array([[True, False]])
    np.testing.assert_array_equal(read_photo(mask)[0, :, 1], [255, 0])
    assert read_photo(mask[..., None]).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 30), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((20, 30, 2), np.uint8), "pass"),
        (np.zeros((2, 20, 30, 3), np.uint8), "as a list"),
        (np.zeros(5, np.uint8), "pass"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.full((2, 2, 3), 255.0), "divide by 255"),
        (np.full((2, 2, 3), np.nan), "not from 0 to 1"),
        (np.full((2, 2, 3), np.inf), "tone-map"),
        (np.full((2, 2, 3), -0.5), "not from 0 to 1"),
        (np.full((2, 2, 3), 256), "uint16"),
        (np.full((2, 2, 3), "a"), "uint8"),
        (np.full((2, 2, 3), 1j), "uint8"),
    ],
)
def test_arrays_of_unsupported_form(array, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_photo(array)
    assert str(array.dtype) in str(caught.value)


def test_unsupported_types_are_rejected():
    with pytest.raises(ImageError, match="a list: pass a path"):
        read_photo([1, 2])
    with pytest.raises(ImageError, match="a set has no order"):
        read_photo({"a.png", "b.png"})


def test_first_frame_of_an_animation(photo):
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_photo(data), photo)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_truncated_files_are_named_with_the_cause(form, share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    path = tmp_path / "broken.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"broken\.img") as caught:
        read_photo(path)
    assert "again" in str(caught.value)
    if form in ("WEBP", "BMP"):
        assert f"of {len(data) / 1000:.0f} kB" in str(caught.value)
    if form == "JPEG" and share > 0.1:
        assert "truncated JPEG" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"just a text", "Pillow cannot identify its format"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"%PDF-1.7", "a PDF: export"),
        (b"#?RADIANCE\n", "tone-map"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
    ],
)
def test_files_that_are_not_photos(data, message, tmp_path):
    path = tmp_path / "thing.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        read_photo(path)
    assert "thing.jpg" in str(caught.value)
    with pytest.raises(ImageError, match="from bytes"):
        read_photo(data)


def test_missing_files_folders_and_web_addresses(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_photo(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="folder"):
        read_photo(tmp_path)
    with pytest.raises(ImageError, match="pass it as a string"):
        read_photo(Path("https://example.org/a.jpg"))
    with pytest.raises(ImageError, match="cannot read"):
        read_photo("a\0b")
    with pytest.raises(ImageError, match="no pixels"):
        read_photo(Image.new("RGB", (0, 3)))


def test_large_scans_are_accepted_and_bombs_rejected():
    big = encoded(Image.new("1", (20_000, 9_500)), "PNG")  # 190 million pixels: Pillow alone refuses
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="max_pixels"):
            read_photo(big, max_pixels=100_000_000)
        bomb = encoded(Image.new("1", (60_000, 10)), "PNG")
        bomb = bomb[:16] + struct.pack(">II", 60_000, 60_000) + bomb[24:]
        with pytest.raises(ImageError):
            read_photo(bomb)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.slow
def test_a_scan_above_pillows_limit_is_read():
    big = encoded(Image.new("1", (20_000, 9_500)), "PNG")
    assert read_photo(big).shape == (9_500, 20_000, 3)


@pytest.mark.parametrize(
    ("shape", "rule", "expected"),
    [
        ((480, 640), Resize(512), (512, 683)),  # 682.67 rounds to the nearest
        ((640, 480), Resize(512), (683, 512)),
        ((100, 1000), Resize(512), (256, 2560)),  # the limit on the longer side
        ((512, 512), Resize(512), (512, 512)),
        ((1, 10_000), Resize(512), (1, 2560)),  # never below one pixel
        ((7, 9), Resize(None), (7, 9)),
        ((375, 500), Resize(640), (640, 853)),
        ((2, 3), Resize(3), (3, 5)),  # 4.5 rounds up
    ],
)
def test_resized_shape_by_hand(shape, rule, expected):
    assert resized_shape(shape[0], shape[1], rule) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1000), st.integers(0, 2000))
def test_resized_shape_obeys_the_rule(height, width, short, more):
    rule = Resize(short, short + more)
    new = resized_shape(height, width, rule)
    assert min(new) >= 1
    assert max(new) <= rule.long_side
    assert min(new) == short or max(new) == rule.long_side
    assert resized_shape(width, height, rule) == new[::-1]


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
def test_resize_equals_pillow(photo, name):
    filters = {"nearest": 0, "bilinear": 2, "bicubic": 3}
    result = resize_photo(photo, Resize(23, interpolation=name))
    expected = Image.fromarray(photo).resize((35, 23), filters[name])
    np.testing.assert_array_equal(result, np.asarray(expected))
    np.testing.assert_array_equal(resize_photo(photo[::-1], Resize(None)), photo[::-1])


@pytest.mark.parametrize("norm", [IMAGENET, CLIP])
def test_pixels_are_normalised_then_padded(photo, norm):
    pixels = to_pixels(photo, norm, divisor=32)
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == torch.float32
    expected = (photo.transpose(2, 0, 1) - np.reshape(norm.mean, (3, 1, 1))) / np.reshape(norm.std, (3, 1, 1))
    np.testing.assert_allclose(pixels[:, :40, :60].numpy(), expected, atol=1e-5)
    assert not pixels[:, 40:].any()
    assert not pixels[:, :, 60:].any()
    assert to_pixels(photo, norm).shape == (3, 40, 60)
    half = to_pixels(photo, norm, dtype=torch.bfloat16)
    assert torch.equal(half, to_pixels(photo, norm).bfloat16())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.integers(0, 99))
def test_pixels_on_the_cpu_and_on_other_devices_are_equal(height, width, divisor, seed):
    """``pixel_array`` computes them in numpy, ``normalize`` in torch; every bit is the same."""
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    [expected] = normalize(torch.from_numpy(photo)[None], CLIP, divisor)
    np.testing.assert_array_equal(pixel_array(photo, CLIP, divisor), expected.numpy())
    assert torch.equal(to_pixels(photo, CLIP, divisor), expected)


def test_a_batch_holds_the_pixels_of_each_photo(photo):
    photos = [photo, 255 - photo, photo[:33, :50]]
    batch = to_batch(photos, CLIP, 32, torch.device("cpu"), torch.bfloat16)
    assert batch.shape == (3, 3, 64, 64)
    for pixels, one in zip(batch, photos, strict=True):
        assert torch.equal(pixels, to_pixels(one, CLIP, 32, dtype=torch.bfloat16))


def test_read_only_photos_raise_no_warning(photo):
    photo.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_pixels(photo, CLIP)


def test_settings_are_checked(photo):
    for bad in ({"short_side": 0}, {"short_side": 1.5}, {"short_side": True}, {"long_side": 10}, {"divisor": 0}):
        with pytest.raises(SettingError):
            Resize(**bad)
    with pytest.raises(SettingError, match="bicubic"):
        Resize(interpolation="lanczos")
    with pytest.raises(SettingError):
        Normalization((0, 0, 0), (1, 0, 1))
    with pytest.raises(SettingError):
        Normalization((0, 0), (1, 1, 1))
    with pytest.raises(SettingError):
        to_pixels(photo, CLIP, divisor=0)
    with pytest.raises(ImageError, match="read_photo"):
        to_pixels(photo.astype(np.float32), CLIP)
    assert Normalization([0, 0, 0], [1, 1, 1]) == Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert hash(Resize()) == hash(Resize())

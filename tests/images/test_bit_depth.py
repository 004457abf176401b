"""Photos of 10, 12 and 14 bits in files of 16: read at their true brightness, in every format that stores them."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from deop.images.reading import read_photo


def saved(values, form, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_16_bits(values):
    """A PNG with 16-bit channels, which Pillow cannot write."""
    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits(values, order="<", tags=(), compressed=False):
    """A TIFF with three 16-bit channels, which Pillow cannot write."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if compressed else pixels
    pixels += bytes(len(pixels) % 2)
    form = 8 if compressed else 1
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8 + len(pixels)), (259, 3, 1, form),
               (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(pixels)),
               *tags]  # fmt: skip
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(pixels) + len(bits))
    data += pixels + bits + struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in sorted(entries):
        data += struct.pack(f"{order}HHI", tag, kind, count)
        data += struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
    return data + struct.pack(f"{order}I", 0)


def ramp(greatest, shape=(8, 64)):
    return np.linspace(0, greatest, int(np.prod(shape))).round().astype(np.uint16).reshape(shape)


def read_quietly(source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_photo(source)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_grey_files_with_few_bits_are_stretched_with_a_warning(form, bits):
    values = ramp((1 << bits) - 1)
    with pytest.warns(UserWarning, match=rf"values of {bits} bits"):
        result = read_photo(saved(values, form))
    np.testing.assert_array_equal(result[..., 1], np.rint(values * 255.0 / values.max()).astype(np.uint8))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_files_that_use_16_bits_are_read_as_before(form):
    values = ramp(65535)
    np.testing.assert_array_equal(read_quietly(saved(values, form))[..., 0], np.rint(values / 257).astype(np.uint8))
    assert not read_quietly(saved(np.zeros((4, 5), np.uint16), form)).any()


@pytest.mark.parametrize("tag", [341, 281], ids=["SMaxSampleValue", "MaxSampleValue"])
def test_the_maximum_that_a_tiff_states_is_white(tag):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[tag] = 4095
    info.tagtype[tag] = 3
    values = ramp(3000)
    result = read_quietly(saved(values, "TIFF", tiffinfo=info))
    np.testing.assert_array_equal(result[..., 0], np.rint(values * 255.0 / 4095).astype(np.uint8))


def test_the_minimum_that_a_tiff_states_is_black():
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in ((340, 1000), (341, 5000)):
        info[tag], info.tagtype[tag] = value, 3
    values = ramp(4000) + np.uint16(1000)
    result = read_quietly(saved(values, "TIFF", tiffinfo=info))
    np.testing.assert_array_equal(result[..., 0], np.rint((values - 1000) * 255.0 / 4000).astype(np.uint8))


def test_a_stated_maximum_below_the_values_is_ignored():
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[281], info.tagtype[281] = 255, 3
    values = ramp(65535)
    np.testing.assert_array_equal(
        read_quietly(saved(values, "TIFF", tiffinfo=info))[..., 0], np.rint(values / 257).astype(np.uint8)
    )


COLOURS = {
    "PNG": png_of_16_bits,
    "TIFF": tiff_of_16_bits,
    "big-endian TIFF": lambda values: tiff_of_16_bits(values, ">"),
    "compressed TIFF": lambda values: tiff_of_16_bits(values, compressed=True),
    "compressed big-endian TIFF": lambda values: tiff_of_16_bits(values, ">", compressed=True),
}


@pytest.mark.parametrize("form", COLOURS)
def test_colours_of_12_bits_keep_all_their_bits(form):
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    values[0, 0] = 4095
    with pytest.warns(UserWarning, match="values of 12 bits"):
        result = read_photo(COLOURS[form](values))
    np.testing.assert_array_equal(result, np.rint(values * 255.0 / 4095).astype(np.uint8))


@pytest.mark.parametrize("form", COLOURS)
def test_colours_of_16_bits_are_read_without_a_warning(form):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    result = read_quietly(COLOURS[form](values))
    np.testing.assert_array_equal(result, values >> 8)  # as Pillow reads them


def test_colours_with_a_stated_maximum():
    values = np.random.default_rng(0).integers(0, 4000, (20, 30, 3)).astype(np.uint16)
    result = read_quietly(tiff_of_16_bits(values, tags=[(281, 3, 1, 4095)]))
    np.testing.assert_array_equal(result, np.rint(values * 255.0 / 4095).astype(np.uint8))


@pytest.mark.parametrize("channels", [2, 4], ids=["grey", "colour"])
def test_transparency_of_dark_values_is_kept(channels):
    values = np.full((4, 6, channels), 2000, np.uint16)
    values[..., -1] = 65535
    values[:, :3, -1] = 0
    with pytest.warns(UserWarning, match="values of 12 bits"):
        result = read_photo(png_of_16_bits(values))
    assert (result[:, :3] == 255).all(), "transparent pixels are white"
    step = 0 if channels == 4 else 16  # Pillow gives only the upper 8 bits of grey with transparency
    assert (np.abs(result[:, 3:].astype(int) - np.rint(2000 * 255.0 / 4095)) <= step).all()


def test_arrays_keep_their_scale_and_dark_ones_are_reported():
    values = ramp(4095)
    with pytest.warns(UserWarning, match="nearly black.*multiply them by 16"):
        result = read_photo(values)
    np.testing.assert_array_equal(result[..., 0], np.rint(values / 257).astype(np.uint8))
    with pytest.warns(UserWarning, match="nearly black"):
        read_photo(Image.fromarray(values))
    read_quietly(ramp(20_000))
    read_quietly(np.zeros((3, 4), np.uint16))


def test_the_warning_names_the_file(tmp_path):
    path = tmp_path / "scan.tif"
    path.write_bytes(saved(ramp(4000), "TIFF"))
    with pytest.warns(UserWarning, match=r"scan\.tif"):
        read_photo(path)

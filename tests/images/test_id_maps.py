"""Masks as images: the ids as stored, for every number of bits and every format that keeps them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from deop.errors import ImageError
from deop.images.id_maps import UNLISTED_COLOUR, read_id_map

SHAPE = (5, 13)  # rows that do not end with a byte


def ids_of(bits, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << bits, SHAPE)


def pack(values, bits):
    """Rows of values, packed into bytes from the highest bit; by hand."""
    rows = []
    for row in values:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)))
    return rows


def png(values, bits, kind=0, channels=1):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", values.shape[1] // channels, values.shape[0], bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row for row in pack(values, bits))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values, bits, photometric=1):
    pixels = b"".join(pack(values, bits))
    height, width = values.shape
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
               (278, height), (279, len(pixels))]  # fmt: skip
    pixels += b"\0" * (len(pixels) % 2)
    data = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries))
    return data + b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries) + struct.pack("<I", 0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_pngs_of_every_depth(tmp_path, bits):
    ids = ids_of(bits)
    (tmp_path / "m.png").write_bytes(png(ids, bits))
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_tiffs_of_every_depth(tmp_path, bits):
    ids = ids_of(bits)
    (tmp_path / "m.tif").write_bytes(tiff(ids, bits))
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.tif"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("form", ["png", "tif", "bmp", "gif"])
def test_palettes_of_every_depth(tmp_path, bits, form):
    ids = ids_of(bits)
    image = Image.fromarray(ids.astype(np.uint8)).convert("P")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 3 << bits).astype(np.uint8).tobytes())
    options = {"bits": bits} if form == "png" else {"optimize": False} if form == "gif" else {}
    image.save(tmp_path / f"m.{form}", **options)
    np.testing.assert_array_equal(read_id_map(tmp_path / f"m.{form}"), ids)


@pytest.mark.parametrize("form", ["png", "tif", "bmp"])
def test_binary_masks(tmp_path, form):
    ids = ids_of(1)
    Image.fromarray(ids.astype(bool)).save(tmp_path / f"m.{form}")
    np.testing.assert_array_equal(read_id_map(tmp_path / f"m.{form}"), ids)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_wide_tiffs(tmp_path, dtype):
    ids = ids_of(16).astype(dtype)
    Image.fromarray(ids).save(tmp_path / "m.tif")
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.tif"), ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_channels_that_agree_are_ids(tmp_path, mode):
    ids = ids_of(8).astype(np.uint8)
    Image.fromarray(ids).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png"), ids)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_have_id_0(tmp_path, mode):
    ids = ids_of(8).astype(np.uint8)
    image = Image.fromarray(ids).convert(mode)
    alpha = np.full(SHAPE, 255, np.uint8)
    alpha[:2] = 0
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png"), np.where(alpha > 0, ids, 0))
    alpha[3, 3] = 100
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="half-transparent"):
        read_id_map(tmp_path / "m.png")


TABLE = {3: (255, 0, 0), 7: (0, 128, 0), 300: (1, 2, 3)}


def colour_picture(ids, table=TABLE):
    rgb = np.zeros((*ids.shape, 3), np.uint8)
    for label, colour in table.items():
        rgb[ids == label] = colour
    return rgb


def test_colours_are_read_through_a_table(tmp_path):
    ids = np.random.default_rng(0).choice([0, 3, 7, 300], SHAPE)
    Image.fromarray(colour_picture(ids)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png", TABLE), ids)
    with pytest.raises(ImageError, match=r"in colour.*classes\.json"):
        read_id_map(tmp_path / "m.png")


def test_colours_that_are_not_listed_have_no_id(tmp_path):
    rgb = colour_picture(np.full(SHAPE, 3))
    rgb[0, :4] = 9, 9, 10
    Image.fromarray(rgb).save(tmp_path / "m.png")
    result = read_id_map(tmp_path / "m.png", TABLE)
    assert (result[0, :4] == UNLISTED_COLOUR).all()
    assert (result[1:] == 3).all()


def test_black_is_id_0_unless_the_table_says_otherwise(tmp_path):
    Image.new("RGB", SHAPE[::-1]).save(tmp_path / "m.png")
    assert (read_id_map(tmp_path / "m.png", TABLE) == 0).all()
    assert (read_id_map(tmp_path / "m.png", {5: (0, 0, 0)}) == 5).all()


def test_palettes_are_read_by_colour_only_if_all_their_colours_are_listed(tmp_path):
    """Programs that make PNG files smaller turn colours into a palette of their own order."""
    ids = np.random.default_rng(0).choice([0, 3, 7], SHAPE)
    quantised = Image.fromarray(colour_picture(ids)).quantize(4)
    quantised.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png", TABLE), ids)
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png"), np.asarray(quantised))
    other = {label: (label, 99, 98) for label in TABLE}
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png", other), np.asarray(quantised))


def test_grey_ids_are_read_although_there_is_a_table(tmp_path):
    ids = ids_of(8).astype(np.uint8)
    for mode in ("L", "RGB"):
        Image.fromarray(ids).convert(mode).save(tmp_path / "m.png")
        np.testing.assert_array_equal(read_id_map(tmp_path / "m.png", TABLE), ids)


def test_the_orientation_of_the_file_is_applied(tmp_path):
    ids = ids_of(8).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed after a turn by 90 degrees to the right
    Image.fromarray(ids).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_id_map(tmp_path / "m.png"), np.rot90(ids, -1))


def test_files_that_do_not_keep_ids_are_refused(tmp_path):
    grey = Image.fromarray(ids_of(8).astype(np.uint8))
    for form, message in (("jpg", "compression changes ids"), ("webp", "compression changes ids")):
        grey.save(tmp_path / f"m.{form}")
        with pytest.raises(ImageError, match=message):
            read_id_map(tmp_path / f"m.{form}")
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey])
    with pytest.raises(ImageError, match="2 pages"):
        read_id_map(tmp_path / "pages.tif")
    (tmp_path / "inverted.tif").write_bytes(tiff(ids_of(8), 8, photometric=0))
    with pytest.raises(ImageError, match="inverted"):
        read_id_map(tmp_path / "inverted.tif")
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match="mode F"):
        read_id_map(tmp_path / "float.tif")
    (tmp_path / "wide.png").write_bytes(png(np.repeat(ids_of(16), 3, axis=1), 16, kind=2, channels=3))
    with pytest.raises(ImageError, match="16 bits per channel"):
        read_id_map(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="no such file"):
        read_id_map(tmp_path / "gone.png")


def test_values_above_16_bits_are_refused(tmp_path):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for value in (-1, 70_000):
        Image.fromarray(np.full((4, 6), value, np.int32)).save(tmp_path / "m.tif", tiffinfo=info)
        with pytest.raises(ImageError, match="expected 0 to 65535"):
            read_id_map(tmp_path / "m.tif")

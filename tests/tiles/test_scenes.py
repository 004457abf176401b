"""Regions of images compared with the image decoded as a whole."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.errors import ImageError, MissingDependencyError, SettingError
from deop.images.file_types import FileWarning
from deop.images.reading import read_photo
from deop.tiles import opening, scenes
from deop.tiles.opening import open_scene
from deop.tiles.scenes import ArrayScene, average, shrunk_shape, to_uint8

tifffile = pytest.importorskip("tifffile")
try:
    import rasterio
except ImportError:
    rasterio = None
needs_rasterio = pytest.mark.skipif(rasterio is None, reason="rasterio is not installed")


@pytest.fixture(params=["rasterio", "tifffile"])
def library(request, monkeypatch):
    """Opens TIFF files with one of both libraries."""
    if request.param == "rasterio":
        if rasterio is None:
            pytest.skip("rasterio is not installed")
    else:
        real = opening.find_spec
        monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "rasterio" else real(name))
    return request.param


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def check(path, expected, **options):
    """Every region of a scene is that of the whole image."""
    height, width = expected.shape[:2]
    with open_scene(path, **options) as scene:
        assert scene.shape == (height, width)
        for top, left, bottom, right in [(0, 0, height, width), (3, 5, 40, 60), (height - 7, width - 9, height, width)]:
            region = scene.region(slice(top, bottom), slice(left, right))
            np.testing.assert_array_equal(region.pixels, expected[top:bottom, left:right])
        return scene


# --- TIFF


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib"},
        {"tile": (32, 48), "compression": "zlib", "predictor": True},
        {"rowsperstrip": 1},
        {"rowsperstrip": 13, "compression": "zlib"},
        {"rowsperstrip": 1000, "compression": "zlib"},
        {"bigtiff": True, "tile": (64, 64)},
        {"byteorder": ">", "tile": (64, 64)},
        {"planarconfig": "separate", "tile": (32, 32)},
        {"planarconfig": "separate", "rowsperstrip": 7},
    ],
    ids=lambda options: ", ".join(f"{key}={value}" for key, value in options.items()) or "plain",
)
def test_regions_of_tiff_files(tmp_path, library, options):
    pixels = noise((90, 131, 3))
    options = dict(options)
    kind = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    separate = options.get("planarconfig") == "separate"
    data = pixels.transpose(2, 0, 1) if separate else pixels
    with tifffile.TiffWriter(tmp_path / "image.tif", **kind) as writer:
        writer.write(data, photometric="rgb", metadata=None, **options)
    check(tmp_path / "image.tif", pixels)


def test_grey_and_palette_tiff(tmp_path, library):
    grey = noise((60, 70))
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="minisblack", metadata=None)
    check(tmp_path / "grey.tif", np.repeat(grey[..., None], 3, 2))
    colormap = noise((3, 256), np.uint8, 1).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "palette.tif", grey, photometric="palette", colormap=colormap, metadata=None)
    check(tmp_path / "palette.tif", (colormap.T[grey] // 257).astype(np.uint8))


def test_16_bits_are_scaled_by_percentiles_or_by_a_stated_range(tmp_path, library):
    values = noise((80, 90, 3), np.uint16) // 8
    tifffile.imwrite(tmp_path / "image.tif", values, photometric="rgb", metadata=None)
    check(tmp_path / "image.tif", to_uint8(values, (100, 5000)), value_range=(100, 5000))
    with pytest.warns(FileWarning, match="--value-range"), open_scene(tmp_path / "image.tif") as scene:
        pixels = scene.region(slice(0, 80), slice(0, 90)).pixels
    low, high = np.percentile(values, (2, 98))
    assert np.abs(pixels.astype(int) - to_uint8(values, (low, high))).max() <= 8
    with pytest.raises(SettingError, match="ascending"):
        open_scene(tmp_path / "image.tif", value_range=(5, 5))


def test_bands_can_be_chosen(tmp_path, library):
    values = noise((60, 70, 5))
    with tifffile.TiffWriter(tmp_path / "image.tif") as writer:
        writer.write(values, photometric="minisblack", planarconfig="contig", metadata=None)
    check(tmp_path / "image.tif", values[..., [3, 2, 0]], bands=(4, 3, 1))
    check(tmp_path / "image.tif", np.repeat(values[..., 4:], 3, 2), bands=(5,))
    for bands in [(1, 2), (1, 2, 6), (0, 1, 2)]:
        with pytest.raises(SettingError, match="from 1 to 5"):
            open_scene(tmp_path / "image.tif", bands=bands)


def test_transparent_pixels_have_no_data(tmp_path, library):
    pixels = noise((60, 70, 4))
    pixels[..., 3] = 255
    pixels[:20, :30, 3] = 0
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    with open_scene(tmp_path / "image.tif") as scene:
        region = scene.region(slice(0, 60), slice(0, 70))
        assert scene.has_gaps
        np.testing.assert_array_equal(region.valid, pixels[..., 3] > 0)
        np.testing.assert_array_equal(region.pixels[30:], pixels[30:, :, :3])
        assert (region.pixels[:20, :30] == 255).all()
        assert scene.region(slice(30, 60), slice(0, 70)).valid is None


def test_nan_is_no_data(tmp_path, library):
    values = np.random.default_rng(0).random((60, 70, 3), np.float32)
    values[10:20, 10:20] = np.nan
    tifffile.imwrite(tmp_path / "image.tif", values, photometric="rgb", metadata=None)
    with open_scene(tmp_path / "image.tif", value_range=(0, 1)) as scene:
        valid = scene.region(slice(0, 60), slice(0, 70)).valid
    np.testing.assert_array_equal(valid, np.isfinite(values).all(-1))


@pytest.mark.parametrize("keep", [0.5, 0.95])
@pytest.mark.parametrize("options", [{"tile": (32, 32), "compression": "zlib"}, {"rowsperstrip": 4}])
def test_truncated_tiff_is_reported(tmp_path, library, options, keep):
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(noise((200, 200, 3)), photometric="rgb", metadata=None, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ImageError, match=r"image\.tif: truncated or damaged"), open_scene(path) as scene:
        scene.region(slice(0, 200), slice(0, 200))


@pytest.mark.parametrize("data", [b"II*\0", b"II*\0" + bytes(100), b"MM\0+" + bytes(50)])
def test_damaged_headers_are_reported(tmp_path, library, data):
    (tmp_path / "image.tif").write_bytes(data)
    with pytest.raises(ImageError, match=r"image\.tif"):
        open_scene(tmp_path / "image.tif")


def test_a_tiff_that_lies_on_its_side_is_turned(tmp_path, library):
    pixels = noise((40, 60, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "image.tif", exif=exif)
    expected = read_photo(tmp_path / "image.tif")
    assert expected.shape == (60, 40, 3)
    with open_scene(tmp_path / "image.tif") as scene:
        np.testing.assert_array_equal(scene.region(slice(0, 60), slice(0, 40)).pixels, expected)


def test_a_strip_that_is_too_large_is_decoded_once(tmp_path, monkeypatch):
    from deop.tiles import tiff

    pixels = noise((90, 131, 3))
    tifffile.imwrite(
        tmp_path / "image.tif", pixels, photometric="rgb", compression="zlib", rowsperstrip=90, metadata=None
    )
    monkeypatch.setattr(tiff, "MAX_SEGMENT", 1000)
    scene = tiff.open_tiff(tmp_path / "image.tif", None, None, tmp_path / "work")
    np.testing.assert_array_equal(scene.region(slice(5, 50), slice(7, 90)).pixels, pixels[5:50, 7:90])
    assert list((tmp_path / "work").iterdir())
    scene.close()
    assert not list((tmp_path / "work").iterdir())


def test_few_decoded_segments_are_kept(tmp_path, monkeypatch):
    from deop.tiles import tiff

    pixels = noise((200, 200, 3))
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb", tile=(32, 32), metadata=None)
    monkeypatch.setattr(tiff, "CACHE_BYTES", 10_000)
    scene = tiff.open_tiff(tmp_path / "image.tif", None, None, None)
    np.testing.assert_array_equal(scene.region(slice(0, 200), slice(0, 200)).pixels, pixels)
    assert scene._bytes <= 10_000
    scene.close()


def test_without_libraries_small_tiffs_are_read_and_large_ones_name_them(tmp_path, monkeypatch):
    pixels = noise((50, 60, 3))
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb", metadata=None)
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    check(tmp_path / "image.tif", pixels)
    monkeypatch.setattr(opening, "MAX_DECODED", 1000)
    with pytest.raises(MissingDependencyError, match=r"deop\[geo\]"):
        open_scene(tmp_path / "image.tif")


@pytest.mark.parametrize(
    ("shape", "dtype", "photometric"),
    [((5, 6, 4), np.uint16, "minisblack"), ((5, 6, 3), np.float32, "rgb"), ((5, 6, 5), np.uint8, "minisblack")],
)
def test_a_raster_that_is_no_photo_names_tiles_where_it_is_read_as_one(tmp_path, shape, dtype, photometric):
    tifffile.imwrite(
        tmp_path / "image.tif", np.zeros(shape, dtype), photometric=photometric, planarconfig="contig", metadata=None
    )
    with pytest.raises(ImageError, match=r"image\.tif: a TIFF with bands.*--tiles auto"):
        read_photo(tmp_path / "image.tif")
    with open_scene(tmp_path / "image.tif", value_range=(0, 1)) as scene:
        assert scene.shape == (5, 6)
    (tmp_path / "short.tif").write_bytes((tmp_path / "image.tif").read_bytes()[:60])
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_photo(tmp_path / "short.tif")


# --- Georeferences


@needs_rasterio
def test_georeference_and_nodata_are_read(tmp_path):
    from rasterio.transform import from_origin

    pixels = noise((60, 70, 3))
    pixels[pixels == 0] = 1
    pixels[:10] = 0
    profile = {"driver": "GTiff", "height": 60, "width": 70, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        tmp_path / "image.tif", "w", crs="EPSG:32633", transform=from_origin(5e5, 5e6, 0.5, 0.25), **profile
    ) as file:
        file.write(pixels.transpose(2, 0, 1))
    with open_scene(tmp_path / "image.tif") as scene:
        assert rasterio.crs.CRS.from_wkt(scene.georeference.crs).to_epsg() == 32633
        assert scene.georeference.transform == (0.5, 0, 5e5, 0, -0.25, 5e6)
        region = scene.region(slice(0, 60), slice(0, 70))
        np.testing.assert_array_equal(region.valid, (np.arange(60) >= 10)[:, None].repeat(70, 1))


@needs_rasterio
def test_a_file_without_a_georeference_has_none(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", noise((50, 60, 3)), photometric="rgb", metadata=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_scene(tmp_path / "image.tif").georeference is None


def test_tifffile_does_not_lose_a_georeference_silently(tmp_path, monkeypatch):
    pytest.importorskip("rasterio")
    from deop.tiles import tiff

    with rasterio.open(
        tmp_path / "image.tif", "w", driver="GTiff", height=50, width=60, count=3, dtype="uint8", crs="EPSG:3857",
        transform=rasterio.transform.from_origin(0, 0, 1, 1),
    ) as file:  # fmt: skip
        file.write(noise((3, 50, 60)))
    with pytest.raises(MissingDependencyError, match="georeferenced"):
        tiff.open_tiff(tmp_path / "image.tif", None, None, None)


# --- Other formats


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("large", [False, True])
def test_other_formats_are_read_as_photos(tmp_path, monkeypatch, mode, large):
    if large:
        monkeypatch.setattr(opening, "IN_MEMORY", 100)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(noise((45, 70), np.uint16)).save(path)
    else:
        Image.fromarray(noise((45, 70, 3))).convert(mode).save(path)
    check(path, read_photo(path), folder=tmp_path / "work")
    assert not list((tmp_path / "work").glob("*"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("large", [False, True])
def test_exif_orientations_are_applied(tmp_path, monkeypatch, orientation, large):
    if large:
        monkeypatch.setattr(opening, "IN_MEMORY", 100)
        monkeypatch.setattr(opening, "_ROWS", 7)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise((45, 70, 3))).save(tmp_path / "image.jpg", exif=exif)
    expected = read_photo(tmp_path / "image.jpg")
    with open_scene(tmp_path / "image.jpg", folder=tmp_path) as scene:
        assert scene.shape == expected.shape[:2]
        np.testing.assert_array_equal(scene.region(slice(0, None), slice(0, None)).pixels, expected)


def test_formats_that_are_decoded_as_a_whole_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_DECODED", 1000)
    Image.fromarray(noise((45, 70, 3))).save(tmp_path / "image.jpg")
    with pytest.raises(ImageError, match="convert it to a tiled TIFF"):
        open_scene(tmp_path / "image.jpg")


def test_a_truncated_large_jpeg_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "IN_MEMORY", 100)
    path = tmp_path / "image.jpg"
    Image.fromarray(noise((145, 170, 3))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"image\.jpg: truncated or damaged JPEG"):
        open_scene(path, folder=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.jpg"]


def test_too_little_space_for_the_pixels_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "IN_MEMORY", 100)
    monkeypatch.setattr(scenes.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    Image.fromarray(noise((145, 170, 3))).save(tmp_path / "image.jpg")
    with pytest.raises(ImageError, match="free some space"):
        open_scene(tmp_path / "image.jpg", folder=tmp_path)


def test_what_is_not_an_image_is_reported(tmp_path):
    for name, data, message in [
        ("a.txt", b"text", "cannot identify"),
        ("b.pdf", b"%PDF-1.7", "PDF"),
        ("c", b"", "empty"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=message):
            open_scene(tmp_path / name)
    with pytest.raises(ImageError, match=r"folder|directory"):
        open_scene(tmp_path)


# --- Regions


def test_regions_beyond_the_image_are_reflected():
    pixels = noise((20, 30, 3))
    valid = noise((20, 30)) > 30
    scene = ArrayScene(pixels, "image", valid=valid)
    region = scene.padded(-5, 10, 50, 40)
    np.testing.assert_array_equal(region.pixels[5:25, :20], pixels[:, 10:])
    np.testing.assert_array_equal(region.pixels[4::-1], region.pixels[5:10])
    np.testing.assert_array_equal(region.pixels[:, 20:40], region.pixels[:, 19::-1])
    assert region.pixels.shape == (50, 40, 3)
    assert region.valid.shape == (50, 40)


@pytest.mark.parametrize("shape", [(7, 9), (20, 30), (1, 1)])
def test_averaging_equals_a_mean_of_each_cell(shape, monkeypatch):
    monkeypatch.setattr(scenes, "_ROWS", 5)
    pixels = noise((40, 63, 3))
    valid = noise((40, 63)) > 100
    region = average(ArrayScene(pixels, "image", valid=valid), shape)
    edges = [np.linspace(0, side, count + 1).round().astype(int) for side, count in zip((40, 63), shape, strict=True)]
    for row in range(shape[0]):
        for column in range(shape[1]):
            part = slice(*edges[0][row : row + 2]), slice(*edges[1][column : column + 2])
            np.testing.assert_allclose(region.pixels[row, column], pixels[part].mean((0, 1)), atol=0.5001)
            assert region.valid[row, column] == (valid[part].mean() >= 0.5)


@needs_rasterio
def test_overviews_are_near_the_average(tmp_path):
    random = np.random.default_rng(0)
    pixels = np.kron(random.integers(0, 255, (20, 30, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb", metadata=None)
    with open_scene(tmp_path / "image.tif") as scene:
        small = scene.shrunk(30)
    np.testing.assert_allclose(small.pixels, pixels[::16, ::16], atol=1)


def test_a_small_image_is_not_shrunk():
    scene = ArrayScene(noise((20, 30, 3)), "image")
    assert scene.shrunk(100).pixels.shape == (20, 30, 3)
    assert shrunk_shape((10_000, 3), 100) == (100, 1)


def test_a_path_may_be_a_string(tmp_path):
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "image.png")
    assert open_scene(str(tmp_path / "image.png")).shape == (20, 30)
    assert open_scene(Path(tmp_path / "image.png")).name.endswith("image.png")

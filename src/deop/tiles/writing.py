"""Label maps as tiled, compressed TIFF files with overviews; cloud-optimised GeoTIFF where there is a georeference."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deop._version import __version__
from deop.dependencies import missing
from deop.errors import OutputError
from deop.tiles.blending import BLOCK
from deop.tiles.rasters import reporting
from deop.tiles.scenes import Georeference, in_bytes, mapped_array

SUFFIXES = (".tif", ".tiff")
"""Suffixes of label maps."""
_BIG = 3 << 30  # bytes of labels above which a file is BigTIFF, since a TIFF ends at 4 GiB
_MAX_PALETTE = 255


@dataclass(frozen=True)
class LabelMap:
    """A finished label map, read band by band.

    Attributes:
        shape: (H, W).
        names: the K names; the id of name k is k + 1, and 0 is no name.
        colours: (K, 3) uint8.
        blocks: gives the blocks (h, w) of a band of ``BLOCK`` rows, from left to right.
        georeference: where the image lies, or None.
        description: what is known about the map, as JSON values; stored in the file.
    """

    shape: tuple[int, int]
    names: tuple[str, ...]
    colours: np.ndarray
    blocks: Callable[[int], Iterator[np.ndarray]]
    georeference: Georeference | None
    description: dict[str, Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the ids."""
        return id_type(len(self.names))

    @property
    def bands(self) -> int:
        """Number of bands."""
        return -(-self.shape[0] // BLOCK)

    def rows(self, band: int) -> np.ndarray:
        """A whole band, (h, W)."""
        return np.concatenate(list(self.blocks(band)), axis=1)


def id_type(names: int) -> np.dtype[Any]:
    """The smallest type of unsigned integers for the ids of K names and 0.

    >>> id_type(255), id_type(256), id_type(65536)
    (dtype('uint8'), dtype('uint16'), dtype('uint32'))
    """
    return np.dtype(np.uint8 if names < 1 << 8 else np.uint16 if names < 1 << 16 else np.uint32)


def check_output(out: Path, georeferenced: bool) -> None:
    """Check that a label map can be written, before anything slow starts.

    Raises:
        OutputError: the suffix is not that of a TIFF file, or the path is a folder.
        MissingDependencyError: the library that writes it is not installed.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write {out}: label maps of tiled images are TIFF files; use the suffix .tif")
    if out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder; give a file name in it")
    if not georeferenced and not find_spec("tifffile"):
        raise missing("writing a label map", "tifffile")


def write_label_map(labels: LabelMap, out: Path, folder: Path) -> None:
    """Write a label map.

    Args:
        labels: the map.
        out: the file; it must not be the final one, since it is incomplete until this function returns.
        folder: for temporary files, on the same disk.
    """
    if labels.georeference is None:
        _write_tiff(labels, out, folder)
    else:
        _write_cog(labels, out, folder)


def _write_tiff(labels: LabelMap, out: Path, folder: Path) -> None:
    """A TIFF file with tiles and overviews, by tifffile."""
    import tifffile

    dtype = labels.dtype
    common: dict[str, Any] = {
        "tile": (BLOCK, BLOCK), "compression": "zlib", "metadata": None, "dtype": dtype, "maxworkers": 1,
        "photometric": "minisblack",
    }  # fmt: skip
    if len(labels.names) <= _MAX_PALETTE:
        common |= {"photometric": "palette", "colormap": _colormap(labels.colours)}
    big = labels.shape[0] * labels.shape[1] * dtype.itemsize > _BIG
    shapes = overview_shapes(labels.shape)
    files = [folder / f"overview-{number}.raw" for number in range(len(shapes))]
    maps: list[np.ndarray] = []
    try:
        for file, level_shape in zip(files, shapes, strict=True):
            maps.append(mapped_array(file, dtype, level_shape))
        with tifffile.TiffWriter(out, bigtiff=big) as writer:
            text = json.dumps(labels.description)
            software = f"deop {__version__}"
            halved = maps[0] if maps else None
            writer.write(_base_tiles(labels, halved), shape=labels.shape, description=text, software=software, **common)
            for number, level in enumerate(maps):
                following = maps[number + 1] if number + 1 < len(maps) else None
                tiles = _level_tiles(level, following)
                writer.write(tiles, shape=level.shape, subfiletype=1, **common)
    finally:
        del maps
        for file in files:
            file.unlink(missing_ok=True)


def overview_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of the overviews: each half of the one before, until the image fits one block.

    >>> overview_shapes((1025, 2000))
    [(513, 1000), (257, 500)]
    """
    shapes = []
    while max(shape) > BLOCK:
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
        shapes.append(shape)
    return shapes


def _base_tiles(labels: LabelMap, halved: np.ndarray | None) -> Iterator[np.ndarray]:
    """The tiles of a map in reading order; they are also written at half the size."""
    for band in range(labels.bands):
        for number, block in enumerate(labels.blocks(band)):
            if halved is not None:
                _put_half(halved, block, band, number)
            yield _whole_tile(block)


def _level_tiles(level: np.ndarray, halved: np.ndarray | None) -> Iterator[np.ndarray]:
    for band, top in enumerate(range(0, level.shape[0], BLOCK)):
        for number, left in enumerate(range(0, level.shape[1], BLOCK)):
            block = np.asarray(level[top : top + BLOCK, left : left + BLOCK])
            if halved is not None:
                _put_half(halved, block, band, number)
            yield _whole_tile(block)


def _put_half(halved: np.ndarray, block: np.ndarray, band: int, number: int) -> None:
    half = half_by_mode(block)
    top, left = band * BLOCK // 2, number * BLOCK // 2
    halved[top : top + half.shape[0], left : left + half.shape[1]] = half


def _whole_tile(block: np.ndarray) -> np.ndarray:
    if block.shape == (BLOCK, BLOCK):
        return block
    return np.pad(block, ((0, BLOCK - block.shape[0]), (0, BLOCK - block.shape[1])))


def half_by_mode(labels: np.ndarray) -> np.ndarray:
    """Labels at half the size: of each 2 x 2 pixels the most frequent label, or the first of several.

    >>> half_by_mode(np.array([[1, 2, 3], [2, 0, 3]], np.uint8))
    array([[2, 3]], dtype=uint8)
    """
    padded = np.pad(labels, [(0, side % 2) for side in labels.shape], mode="edge")
    a, b, c, d = padded[::2, ::2], padded[::2, 1::2], padded[1::2, ::2], padded[1::2, 1::2]
    most = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, most)


def _colormap(colours: np.ndarray) -> np.ndarray:
    """The palette of an 8-bit TIFF: (3, 256) uint16."""
    table = np.zeros((3, 256), np.uint16)
    table[:, 1 : len(colours) + 1] = colours.T.astype(np.uint16) * 257
    return table


def _write_cog(labels: LabelMap, out: Path, folder: Path) -> None:
    """A cloud-optimised GeoTIFF, by GDAL: first a plain tiled file, since a cloud-optimised one can only be copied."""
    import rasterio
    import rasterio.shutil
    from rasterio.control import GroundControlPoint
    from rasterio.crs import CRS
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.rpc import RPC
    from rasterio.transform import Affine
    from rasterio.windows import Window

    place = labels.georeference
    assert place is not None
    crs = CRS.from_wkt(place.crs) if place.crs else None
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": labels.shape[0], "width": labels.shape[1], "count": 1, "dtype": labels.dtype.name,
        "nodata": 0, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1,
        "bigtiff": "if_safer", "crs": crs,
    }  # fmt: skip
    if place.transform is not None:
        profile["transform"] = Affine(*place.transform)
    elif place.points:
        profile["gcps"] = [GroundControlPoint(row, column, x, y, z) for row, column, x, y, z in place.points]
    if place.sensor is not None:
        profile["rpcs"] = RPC.from_gdal(place.sensor)
    plain = folder / "plain.tif"

    def unwritten(reason: str) -> OutputError:
        free = in_bytes(shutil.disk_usage(folder).free)
        return OutputError(
            f"cannot write {out}: {reason}; the disk has {free} left. What is finished is kept: free space, and repeat "
            "the command to resume"
        )

    try:
        with reporting(unwritten), rasterio.Env(GDAL_CACHEMAX=128), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **profile) as target:
                if len(labels.names) <= _MAX_PALETTE:
                    table = {number + 1: (*map(int, colour), 255) for number, colour in enumerate(labels.colours)}
                    target.write_colormap(1, {0: (0, 0, 0, 0), **table})
                target.update_tags(TIFFTAG_SOFTWARE=f"deop {__version__}", deop=json.dumps(labels.description))
                for band in range(labels.bands):
                    for number, block in enumerate(labels.blocks(band)):
                        window = Window(number * BLOCK, band * BLOCK, block.shape[1], block.shape[0])
                        target.write(block, 1, window=window)
            rasterio.shutil.copy(
                plain, out, driver="COG", compress="DEFLATE", blocksize=BLOCK, overview_resampling="MODE",
                bigtiff="IF_SAFER", num_threads="1",
            )  # fmt: skip
    finally:
        plain.unlink(missing_ok=True)


def qgis_style(names: Sequence[str], colours: np.ndarray) -> str:
    """A style file (.qml) with which QGIS shows the names of a label map and their colours."""
    entries = "".join(
        f'<paletteEntry value="{number}" color="#{red:02x}{green:02x}{blue:02x}" alpha="255" label="{escape(name)}"/>'
        for number, (name, (red, green, blue)) in enumerate(zip(names, colours.tolist(), strict=True), 1)
    )
    return (
        '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM">\n<qgis version="3.22"><pipe><rasterrenderer '
        f'type="paletted" band="1" opacity="1" alphaBand="-1"><colorPalette>{entries}</colorPalette></rasterrenderer>'
        "</pipe></qgis>\n"
    )

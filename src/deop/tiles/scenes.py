"""Images of any size, of which any region can be read."""

import os
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from deop.errors import ImageError, MissingDependencyError, SettingError
from deop.images.file_types import FileWarning, file_type_at, is_url
from deop.images.reading import Photo, no_pixel_limit, open_image, read_photo, transposition_of

MAX_DECODED = 1_000_000_000
"""Maximum pixels of an image that can only be decoded as a whole, such as a JPEG: about 4 GB of memory for a moment."""
IN_MEMORY = 50_000_000
"""Pixels above which a decoded image is kept in a temporary file instead of memory."""
SAMPLE = 1024
"""Longer side of the copy from which the range of values is estimated, pixels."""
_ROWS = 1024  # rows that are converted or averaged at once


class Region(NamedTuple):
    """Some pixels of an image.

    Attributes:
        pixels: (h, w, 3) uint8, RGB.
        valid: (h, w) bool, False for pixels without data; None: all are valid.
    """

    pixels: np.ndarray
    valid: np.ndarray | None


@dataclass(frozen=True)
class Georeference:
    """Where an image lies on the earth.

    Attributes:
        crs: the coordinate reference system as WKT; "" if the file does not say.
        transform: (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f; None if the file has
            ground control points instead.
        points: ground control points (row, column, x, y, z).
    """

    crs: str
    transform: tuple[float, float, float, float, float, float] | None
    points: tuple[tuple[float, float, float, float, float], ...] = ()


class Scene(ABC):
    """An image of which any region can be read.

    Attributes:
        name: what messages call it.
        shape: (H, W) in pixels.
        georeference: where it lies, or None.
        has_gaps: whether some pixels may have no data.
    """

    name: str
    shape: tuple[int, int]
    georeference: Georeference | None = None
    has_gaps: bool = False

    @abstractmethod
    def region(self, rows: slice, columns: slice) -> Region:
        """Read a region that lies inside the image.

        Raises:
            ImageError: the file is damaged there.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file and remove temporary files."""

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def padded(self, top: int, left: int, height: int, width: int) -> Region:
        """Read a region that may extend beyond the image, where it is filled by reflection.

        Returns:
            The region; ``valid`` is False beyond the image only where the reflected pixel has no data.
        """
        rows = slice(max(0, top), min(top + height, self.shape[0]))
        columns = slice(max(0, left), min(left + width, self.shape[1]))
        pixels, valid = self.region(rows, columns)
        edges = ((rows.start - top, top + height - rows.stop), (columns.start - left, left + width - columns.stop))
        if any(before or after for before, after in edges):
            pixels = np.pad(pixels, (*edges, (0, 0)), mode="symmetric")
            valid = None if valid is None else np.pad(valid, edges, mode="symmetric")
        return Region(pixels, valid)

    def shrunk(self, side: int) -> Region:
        """The whole image with its longer side reduced to at most ``side`` pixels, by averaging."""
        shape = shrunk_shape(self.shape, side)
        if shape == self.shape:
            return self.region(slice(0, self.shape[0]), slice(0, self.shape[1]))
        return average(self, shape)


def shrunk_shape(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """(h, w) of an image with its longer side reduced to at most ``side`` pixels.

    >>> shrunk_shape((3000, 6000), 2000)
    (1000, 2000)
    """
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def average(scene: Scene, shape: tuple[int, int]) -> Region:
    """Reduce a scene by averaging, reading some rows at a time."""
    height, width = scene.shape
    edges_y = np.linspace(0, height, shape[0] + 1).round().astype(int)
    edges_x = np.linspace(0, width, shape[1] + 1).round().astype(int)
    pixels = np.zeros((*shape, 3), np.uint8)
    valid: np.ndarray | None = None
    step = max(1, int(_ROWS / max(1.0, height / shape[0])))
    for first in range(0, shape[0], step):
        last = min(first + step, shape[0])
        part = scene.region(slice(edges_y[first], edges_y[last]), slice(0, width))
        starts_y = edges_y[first:last] - edges_y[first]
        weights = np.diff(edges_y[first : last + 1])[:, None] * np.diff(edges_x)
        for channel in range(3):
            sums = np.add.reduceat(part.pixels[..., channel], edges_x[:-1], axis=1, dtype=np.uint32)
            sums = np.add.reduceat(sums, starts_y, axis=0, dtype=np.uint64)
            pixels[first:last, :, channel] = (sums + weights // 2) // weights
        if part.valid is not None:
            valid = np.ones(shape, bool) if valid is None else valid
            known = np.add.reduceat(part.valid, edges_x[:-1], axis=1, dtype=np.uint32)
            valid[first:last] = 2 * np.add.reduceat(known, starts_y, axis=0) >= weights
    return Region(pixels, valid)


class ArrayScene(Scene):
    """An image in memory, or in a temporary file mapped into memory.

    Args:
        pixels: (H, W, 3) uint8.
        name: what messages call it.
        file: the temporary file, which is removed at the end.
        valid: (H, W) bool; None: all pixels are valid.
    """

    def __init__(
        self, pixels: np.ndarray, name: str, file: Path | None = None, valid: np.ndarray | None = None
    ) -> None:
        self._pixels, self.name, self._file, self._valid = pixels, name, file, valid
        self.shape = (pixels.shape[0], pixels.shape[1])
        self.has_gaps = valid is not None

    def region(self, rows: slice, columns: slice) -> Region:  # noqa: D102
        valid = None if self._valid is None else self._valid[rows, columns]
        return Region(np.ascontiguousarray(self._pixels[rows, columns]), valid)

    def close(self) -> None:  # noqa: D102
        self._pixels = self._pixels[:0]
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()


def open_scene(
    photo: Photo,
    *,
    bands: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
    folder: Path | None = None,
) -> Scene:
    """Open an image of any size.

    TIFF files (also BigTIFF and cloud-optimised ones), JPEG 2000 and every other raster that GDAL knows are read region
    by region with rasterio; TIFF files also with tifffile. Other formats are decoded once, into a temporary file if
    they are large.

    Args:
        photo: path, or any other form of a photo, which is then decoded.
        bands: the numbers of three bands, counted from 1, that are red, green and blue; or of one. None: as the file
            says. Rasters only.
        value_range: the values that become black and white. None: 0 to 255 for 8 bits; for other types the 2nd and the
            98th percentile, which a warning reports. Rasters only.
        folder: where temporary files go; None: that of the system.

    Raises:
        ImageError: the file is missing, damaged, not an image or too large.
        MissingDependencyError: the file needs rasterio or tifffile.
        SettingError: bands that the file does not have, or a wrong range.
    """
    if not isinstance(photo, str | os.PathLike) or is_url(photo):
        return ArrayScene(read_photo(photo), getattr(photo, "name", None) or "the photo")
    path = Path(photo)
    try:
        kind = file_type_at(path).name
    except OSError as error:
        raise ImageError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    if value_range is not None and not value_range[0] < value_range[1]:
        raise SettingError(f"value_range must be two ascending numbers, not {value_range}")
    is_raster = kind in ("TIFF", "JPEG 2000") or not kind
    if is_raster and _orientation(path, kind) == 1:
        if find_spec("rasterio"):
            from deop.tiles.rasters import open_raster

            scene = open_raster(path, bands, value_range, required=bool(kind))
            if scene is not None:
                return scene
        elif kind == "TIFF" and find_spec("tifffile"):
            from deop.tiles.tiff import open_tiff

            return open_tiff(path, bands, value_range, folder)
    if bands is not None or value_range is not None:
        raise SettingError(
            f"bands and value_range are for rasters, and {path} is none that can be read: omit them, or "
            '`pip install "deop[geo]"`'
        )
    return decode(path, kind, folder)


def _orientation(path: Path, kind: str) -> int:
    """The EXIF orientation of a TIFF file; 1 for other files."""
    if kind != "TIFF":
        return 1
    with suppress(Exception), no_pixel_limit(), Image.open(path) as image:
        return int(image.getexif().get(0x0112, 1))
    return 1


def decode(path: Path, kind: str, folder: Path | None = None) -> Scene:
    """Decode an image as a whole; a large one goes into a temporary file.

    Raises:
        ImageError: the file is damaged, not an image, or has more than ``MAX_DECODED`` pixels.
        MissingDependencyError: a TIFF that is too large to be decoded as a whole.
    """
    try:
        with no_pixel_limit():
            image = open_image(path)
    except Exception:  # read_photo raises the error that says why
        return ArrayScene(read_photo(path, max_pixels=MAX_DECODED), str(path))
    with image:
        pixels = image.width * image.height
        if pixels > MAX_DECODED:
            size = f"{path} has {image.width} x {image.height} px"
            if kind == "TIFF":
                raise MissingDependencyError(
                    f"{size}, which are read in parts by rasterio or tifffile: "
                    '`pip install "deop[geo]"` or `pip install "deop[tiff]"`'
                )
            raise ImageError(
                f"cannot read {size}, and {image.format} files of more than {MAX_DECODED / 1e9:g} billion pixels are "
                "not decoded as a whole; convert it to a tiled TIFF, as with `gdal_translate -co TILED=YES IN OUT.tif`"
            )
        if pixels <= IN_MEMORY or image.mode not in ("1", "L", "RGB", "CMYK", "YCbCr", "P"):
            return ArrayScene(read_photo(path, max_pixels=MAX_DECODED), str(path))
        if image.mode == "P" and image.has_transparency_data:
            return ArrayScene(read_photo(path, max_pixels=MAX_DECODED), str(path))
        return _decode_to_file(image, path, folder)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _decode_to_file(image: Image.Image, path: Path, folder: Path | None) -> Scene:
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged data
        size = _megabytes(path.stat().st_size)
        raise ImageError(
            f"cannot read {path}: truncated or damaged {image.format} ({size}; {error}); copy or download it again"
        ) from error
    transposition = transposition_of(image)
    turned = transposition in _SWAPPING
    shape = (image.width, image.height) if turned else (image.height, image.width)
    target, file = temporary_array((*shape, 3), np.dtype(np.uint8), folder, str(path))
    upright = target if transposition is None else _VIEWS[transposition](target)
    for top in range(0, image.height, _ROWS):
        bottom = min(top + _ROWS, image.height)
        upright[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)).convert("RGB"))
    return ArrayScene(target, str(path), file)


def temporary_array(
    shape: tuple[int, ...], dtype: np.dtype[Any], folder: Path | None, name: str
) -> tuple[np.ndarray, Path]:
    """An array in a temporary file, mapped into memory.

    Raises:
        ImageError: the disk has not enough space.
    """
    place = Path(folder or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ImageError(
            f"cannot decode {name}: its pixels need {_megabytes(needed)} in {place}, which has {_megabytes(free)}; "
            "free some space, or convert the image to a tiled TIFF"
        )
    handle, file = tempfile.mkstemp(".raw", "deop-", place)
    os.close(handle)
    return np.memmap(file, dtype, "r+", shape=shape), Path(file)


# Of the upright image, the view that has the pixels in the order of the file.
_VIEWS: dict[Image.Transpose, Callable[[np.ndarray], np.ndarray]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: lambda image: image[:, ::-1],
    Image.Transpose.ROTATE_180: lambda image: image[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda image: image[::-1],
    Image.Transpose.TRANSPOSE: lambda image: image.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda image: image.swapaxes(0, 1)[::-1],
    Image.Transpose.TRANSVERSE: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda image: image.swapaxes(0, 1)[:, ::-1],
}
_SWAPPING = (
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
)  # fmt: skip


def estimate_range(values: np.ndarray, valid: np.ndarray | None, name: str) -> tuple[float, float]:
    """The 2nd and 98th percentile of the values of a raster, which become black and white.

    Args:
        values: (..., channels) of any numeric type, from a reduced copy.
        valid: (...) bool, or None.
        name: what messages call the raster.

    Raises:
        ImageError: there are no finite values.

    Warns:
        FileWarning: the range.
    """
    known = values if valid is None else values[valid]
    known = known[np.isfinite(known)]
    if not known.size:
        raise ImageError(f"cannot read {name}: it has no valid values")
    low, high = (float(value) for value in np.percentile(known, (2, 98)))
    if high <= low:
        high = low + 1
    warnings.warn(
        f"{name}: its {values.dtype} values {low:g} to {high:g} become black to white (2nd and 98th percentile); "
        f"--value-range {low:g},{high:g} states it",
        FileWarning,
        stacklevel=2,
    )
    return low, high


def to_uint8(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scale values so that a range becomes 0 to 255; values outside it are clipped, NaN becomes 0.

    >>> to_uint8(np.array([0, 500, 1000, 9000], np.uint16), (0, 1000)).tolist()
    [0, 128, 255, 255]
    """
    low, high = value_range
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255) + np.float32(0.5)).astype(np.uint8)

"""Images of any size, of which any region can be read."""

import os
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deop.errors import ImageError
from deop.images.file_types import FileWarning

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
            ground control points or a sensor model instead.
        points: ground control points (row, column, x, y, z).
        sensor: rational polynomial coefficients of a satellite image, by GDAL's names; or None.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float] | None
    points: tuple[tuple[float, float, float, float, float], ...] = ()
    sensor: dict[str, str] | None = None


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


def in_bytes(count: int) -> str:
    """A number of bytes in MB or GB, for messages."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


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
            f"cannot decode {name}: its pixels need {in_bytes(needed)} in {place}, which has {in_bytes(free)}; "
            "free some space, or convert the image to a tiled TIFF"
        )
    handle, file = tempfile.mkstemp(".raw", "deop-", place)
    os.close(handle)
    try:
        return mapped_array(Path(file), dtype, shape), Path(file)
    except OSError as error:
        raise ImageError(f"cannot decode {name}: {place}: {error.strerror or error}; free some space") from error


def mapped_array(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An array of zeros in a new file, mapped into memory.

    Its space on the disk is reserved: writing to mapped memory without any ends a process at once (SIGBUS).

    Raises:
        OSError: the disk has not enough space; the file is deleted.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        with file.open("wb") as handle:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle.fileno(), 0, size)
            else:
                for _ in range(size >> 20):
                    handle.write(bytes(1 << 20))
                handle.write(bytes(size & ((1 << 20) - 1)))
        return np.memmap(file, dtype, "r+", shape=shape)
    except OSError:
        file.unlink(missing_ok=True)
        raise


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

"""TIFF files that tifffile reads, where rasterio is not installed."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deop.dependencies import missing
from deop.errors import ImageError, MissingDependencyError, SettingError
from deop.tiles.scenes import (
    SAMPLE,
    Region,
    Scene,
    estimate_range,
    temporary_array,
    to_uint8,
)

CACHE_BYTES = 128 << 20
"""Memory for decoded tiles and strips."""
MAX_SEGMENT = 256 << 20
"""Bytes of a decoded tile or strip above which the file is decoded once into a temporary file."""
_COLOURS = ("RGB", "MINISBLACK", "MINISWHITE", "PALETTE", "YCBCR")


def open_tiff(
    path: Path, bands: Sequence[int] | None, value_range: tuple[float, float] | None, folder: Path | None
) -> Scene:
    """Open a TIFF or BigTIFF file.

    Args:
        path: the file.
        bands: as in ``open_scene``.
        value_range: as in ``open_scene``.
        folder: where a temporary file goes, if the file has a single large strip.

    Raises:
        ImageError: the file is damaged or of a kind that cannot be read.
        MissingDependencyError: its compression needs another library, or it is georeferenced.
        SettingError: bands that the file does not have.
    """
    import tifffile

    file = None
    try:
        file = tifffile.TiffFile(path)
        page = file.pages[0]
    except Exception as error:  # tifffile raises almost any exception for a damaged header
        if file is not None:
            file.close()
        raise ImageError(
            f"cannot read {path}: truncated or damaged TIFF ({error}); copy or download it again"
        ) from error
    try:
        return TiffScene(file, page, str(path), bands, value_range, folder)
    except BaseException:
        file.close()
        raise


class TiffScene(Scene):
    """The first page of a TIFF file.

    Args:
        file: the open file.
        page: its first page.
        name: what messages call it.
        bands: as in ``open_scene``.
        value_range: as in ``open_scene``.
        folder: where a temporary file goes.
    """

    def __init__(
        self,
        file: Any,
        page: Any,
        name: str,
        bands: Sequence[int] | None,
        value_range: tuple[float, float] | None,
        folder: Path | None,
    ) -> None:
        self._file, self.name = file, name
        self._page = page
        if page.is_geotiff:
            raise missing(f"reading {name}, which is georeferenced,", "rasterio")
        kind = page.photometric.name if page.photometric is not None else "MINISBLACK"
        if kind not in _COLOURS or page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "buif":
            raise ImageError(
                f'cannot read {name}: a TIFF of {kind}, {page.dtype}; `pip install "deop[geo]"` reads more'
            )
        self._check_codec(page)
        self.shape = (page.imagelength, page.imagewidth)
        self._samples = page.samplesperpixel
        self._kind = kind
        self._bands = self._choose_bands(bands)
        self._alpha = self._alpha_band() if bands is None else None
        self.has_gaps = self._alpha is not None or page.dtype.kind == "f"
        self._segments: OrderedDict[int, np.ndarray | None] = OrderedDict()
        self._bytes = 0
        self._whole_values: np.ndarray | None = None
        self._whole_file: Path | None = None
        if self._segment_bytes() > MAX_SEGMENT:
            self._decode_whole(folder)
        self._range = value_range
        if kind == "PALETTE":
            self._palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        elif value_range is None and page.dtype != np.uint8:
            self._range = (0.0, 1.0) if page.dtype == bool else self._estimate()

    def _check_codec(self, page: Any) -> None:
        import tifffile

        try:
            if page.compression != 1:
                tifffile.TIFF.DECOMPRESSORS[page.compression]
            if page.predictor != 1:
                tifffile.TIFF.UNPREDICTORS[page.predictor]
        except KeyError as error:
            raise MissingDependencyError(
                f"{self.name} has the compression {page.compression.name}, which tifffile alone cannot read: "
                'pip install "deop[geo]"'
            ) from error

    def _choose_bands(self, bands: Sequence[int] | None) -> list[int]:
        if bands is not None:
            if len(bands) not in (1, 3) or not all(1 <= band <= self._samples for band in bands):
                raise SettingError(
                    f"bands {', '.join(map(str, bands))} of {self.name}, which has {self._samples}: give three "
                    f"numbers, or one, from 1 to {self._samples}"
                )
            return [band - 1 for band in bands]
        return [0, 1, 2] if self._samples >= 3 else [0]

    def _alpha_band(self) -> int | None:
        extra = [int(value) for value in self._page.extrasamples]
        first = self._samples - len(extra)
        return next((first + index for index, value in enumerate(extra) if value in (1, 2)), None)

    def _segment_bytes(self) -> int:
        page = self._page
        height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        height = min(height, page.imagelength)
        samples = 1 if page.planarconfig == 2 else self._samples
        return int(height) * int(width) * samples * int(page.dtype.itemsize)

    def _decode_whole(self, folder: Path | None) -> None:
        """Decode a file with a single large strip once."""
        shape = self._page.shape
        values, self._whole_file = temporary_array(shape, self._page.dtype, folder, self.name)
        try:
            self._page.asarray(out=values)
        except Exception as error:
            raise self._damaged(error) from error
        values = values.reshape(shape) if values.ndim == 3 else values[..., None]
        self._whole_values = np.moveaxis(values, 0, 2) if self._page.planarconfig == 2 else values

    def _damaged(self, error: BaseException) -> ImageError:
        return ImageError(f"cannot read {self.name}: truncated or damaged TIFF ({error}); copy or download it again")

    def _estimate(self) -> tuple[float, float]:
        """The range of values, from some rows of the file."""
        step = max(1, self.shape[0] // 16)
        height = min(64, self.shape[0])
        parts = []
        for top in range(0, self.shape[0] - height + 1, step):
            values = self._values(slice(top, top + height), slice(0, self.shape[1]))
            parts.append(values[:: max(1, height // 16), :: max(1, self.shape[1] // SAMPLE), self._bands])
        return estimate_range(np.concatenate(parts), None, self.name)

    def _segment(self, index: int) -> np.ndarray | None:
        """A decoded tile or strip (h, w, samples); None for one without data."""
        if index in self._segments:
            self._segments.move_to_end(index)
            return self._segments[index]
        page, handle = self._page, self._file.filehandle
        values = None
        try:
            if count := page.databytecounts[index]:
                handle.seek(page.dataoffsets[index])
                data = handle.read(count)
                if len(data) < count:
                    raise ValueError(f"it ends after {handle.size} bytes")
                decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
                values = None if decoded is None else decoded[0]
        except Exception as error:  # decoders raise almost any exception for damaged data
            raise self._damaged(error) from error
        self._segments[index] = values
        self._bytes += 0 if values is None else values.nbytes
        while self._bytes > CACHE_BYTES and len(self._segments) > 1:
            _, oldest = self._segments.popitem(last=False)
            self._bytes -= 0 if oldest is None else oldest.nbytes
        return values

    def _values(self, rows: slice, columns: slice) -> np.ndarray:
        """Values (h, w, samples) of the file's type."""
        if self._whole_values is not None:
            return np.asarray(self._whole_values[rows, columns])
        page = self._page
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        tall = min(tall, page.imagelength)
        across, down = -(-page.imagewidth // wide), -(-page.imagelength // tall)
        planes = self._samples if page.planarconfig == 2 and self._samples > 1 else 1
        result = np.zeros((rows.stop - rows.start, columns.stop - columns.start, self._samples), page.dtype)
        for plane in range(planes):
            for row in range(rows.start // tall, -(-rows.stop // tall)):
                for column in range(columns.start // wide, -(-columns.stop // wide)):
                    values = self._segment((plane * down + row) * across + column)
                    if values is None:
                        continue
                    top, left = max(rows.start, row * tall), max(columns.start, column * wide)
                    bottom = min(rows.stop, row * tall + values.shape[0])
                    right = min(columns.stop, column * wide + values.shape[1])
                    part = values[top - row * tall : bottom - row * tall, left - column * wide : right - column * wide]
                    place = (
                        slice(top - rows.start, bottom - rows.start),
                        slice(left - columns.start, right - columns.start),
                    )
                    result[(*place, slice(plane, plane + 1) if planes > 1 else slice(None))] = part
        return result

    def region(self, rows: slice, columns: slice) -> Region:  # noqa: D102
        values = self._values(rows, columns)
        chosen = values[..., self._bands]
        valid = None
        if self._alpha is not None:
            valid = values[..., self._alpha] > 0
        if chosen.dtype.kind == "f":
            finite = np.isfinite(chosen).all(-1)
            valid = finite if valid is None else valid & finite
        if self._kind == "PALETTE":
            pixels = self._palette[chosen[..., 0]]
        else:
            pixels = chosen if self._range is None else to_uint8(chosen, self._range)
            if self._kind == "MINISWHITE":
                pixels = 255 - pixels
            if pixels.shape[2] == 1:
                pixels = np.repeat(pixels, 3, axis=2)
        if valid is not None and valid.all():
            valid = None
        if valid is not None:
            pixels = np.where(valid[..., None], pixels, np.uint8(255))
        return Region(np.ascontiguousarray(pixels), valid)

    def close(self) -> None:  # noqa: D102
        self._file.close()
        self._segments.clear()
        self._whole_values = None
        if self._whole_file is not None:
            self._whole_file.unlink(missing_ok=True)

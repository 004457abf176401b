"""Scenes that rasterio reads: GeoTIFF, cloud-optimised GeoTIFF, JPEG 2000, VRT and every other raster of GDAL."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deop.errors import DeopError, ImageError, SettingError
from deop.tiles.scenes import SAMPLE, Georeference, Region, Scene, estimate_range, shrunk_shape, to_uint8

CACHE_MEGABYTES = 128
"""Memory for decoded blocks of a raster; GDAL's own default is a share of the machine's."""


def open_raster(
    path: Path, bands: Sequence[int] | None, value_range: tuple[float, float] | None, *, required: bool = True
) -> "RasterScene | None":
    """Open a raster.

    Args:
        path: the file.
        bands: as in ``open_scene``.
        value_range: as in ``open_scene``.
        required: whether it is an error if GDAL does not know the format.

    Returns:
        The scene; None if GDAL does not know the format and it is not required.

    Raises:
        ImageError: the file is damaged.
        SettingError: bands that the file does not have.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    stack = ExitStack()
    try:
        with reporting(_damaged(str(path))):
            stack.enter_context(_environment())
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", NotGeoreferencedWarning)
                    dataset = stack.enter_context(rasterio.open(path))
            except RasterioIOError:
                if required:
                    raise
                stack.close()
                return None
            return RasterScene(dataset, stack, str(path), bands, value_range)
    except BaseException:
        stack.close()
        raise


def _environment() -> Any:
    """GDAL's settings. Files beside the image, such as world files and overviews, are looked for one by one, since its
    folder may have a million files.
    """
    import rasterio

    return rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES, GDAL_DISABLE_READDIR_ON_OPEN="TRUE")


@contextmanager
def reporting(error_of: Callable[[str], DeopError]) -> Iterator[None]:
    """Turn errors of rasterio, some of which have private types, into errors of deop.

    Args:
        error_of: makes the error from the reason.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("rasterio"):
            raise
        cause = error.__cause__ or error
        raise error_of(" ".join(str(cause).split())[:200]) from error


def _damaged(name: str) -> Callable[[str], ImageError]:
    return lambda reason: ImageError(
        f"cannot read {name}: truncated or damaged raster ({reason}); copy or download it again"
    )


class RasterScene(Scene):
    """A raster that rasterio has opened.

    Args:
        dataset: the open dataset.
        stack: closes it.
        name: what messages call it.
        bands: as in ``open_scene``.
        value_range: as in ``open_scene``.
    """

    def __init__(
        self,
        dataset: Any,
        stack: ExitStack,
        name: str,
        bands: Sequence[int] | None,
        value_range: tuple[float, float] | None,
    ) -> None:
        self._dataset, self._stack, self.name = dataset, stack, name
        if not dataset.count:
            raise ImageError(f"cannot read {name}: it has no bands of its own; name one of its subdatasets or layers")
        self.shape = (dataset.height, dataset.width)
        self.georeference = _georeference(dataset)
        self._bands = _choose_bands(dataset, bands, name)
        if str(self._dtype).startswith("complex"):
            raise ImageError(
                f"cannot read {name}: its values are complex numbers; convert them to magnitudes, for instance with "
                "gdal_calc"
            )
        self._palette = _palette(dataset, self._bands)
        from rasterio.enums import MaskFlags

        self._has_mask = any(
            MaskFlags.all_valid not in flags for flags in (dataset.mask_flag_enums[band - 1] for band in self._bands)
        )
        self.has_gaps = self._has_mask or np.dtype(self._dtype).kind == "f"
        self._range = value_range
        if value_range is None and self._palette is None and np.dtype(self._dtype) != np.uint8:
            shape = shrunk_shape(self.shape, SAMPLE)
            values, valid = self._read(None, shape)
            self._range = estimate_range(values, valid, name)

    @property
    def _dtype(self) -> Any:
        return self._dataset.dtypes[self._bands[0] - 1]

    def _read(self, window: Any, shape: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Values (h, w, bands) of the file's type, and which pixels have data; of a window, or of all if it is None."""
        from rasterio.enums import Resampling

        options: dict[str, Any] = {}
        if shape is not None:
            nearest = self._palette is not None
            options = {"resampling": Resampling.nearest if nearest else Resampling.average}
        with reporting(_damaged(self.name)):
            values = self._dataset.read(
                self._bands, window=window, out_shape=None if shape is None else (len(self._bands), *shape), **options
            )
            valid = self._dataset.dataset_mask(window=window, out_shape=shape) > 0 if self._has_mask else None
        values = values.transpose(1, 2, 0)
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(-1)
            if not finite.all():
                valid = finite if valid is None else valid & finite
        return values, valid

    def _to_region(self, values: np.ndarray, valid: np.ndarray | None) -> Region:
        if self._palette is not None:
            pixels = self._palette[values[..., 0]]
        else:
            pixels = values if self._range is None else to_uint8(values, self._range)
            if pixels.shape[2] == 1:
                pixels = np.repeat(pixels, 3, axis=2)
        if valid is not None and valid.all():
            valid = None
        if valid is not None:
            pixels = np.where(valid[..., None], pixels, np.uint8(255))  # as transparent pixels of a photo
        return Region(np.ascontiguousarray(pixels), valid)

    def region(self, rows: slice, columns: slice) -> Region:  # noqa: D102
        from rasterio.windows import Window

        window = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        return self._to_region(*self._read(window))

    def shrunk(self, side: int) -> Region:
        """As ``Scene.shrunk``; overviews are used if the file has any."""
        return self._to_region(*self._read(None, shrunk_shape(self.shape, side)))

    def close(self) -> None:  # noqa: D102
        self._stack.close()


def _choose_bands(dataset: Any, bands: Sequence[int] | None, name: str) -> list[int]:
    if bands is not None:
        wrong = [band for band in bands if not 1 <= band <= dataset.count]
        if wrong or len(bands) not in (1, 3):
            raise SettingError(
                f"bands {', '.join(map(str, bands))} of {name}, which has {dataset.count}: give three numbers, or one, "
                f"from 1 to {dataset.count}"
            )
        return list(bands)
    from rasterio.enums import ColorInterp

    kinds = list(dataset.colorinterp)
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in kinds for colour in colours):
        return [kinds.index(colour) + 1 for colour in colours]
    return [1, 2, 3] if dataset.count >= 3 else [1]


def _palette(dataset: Any, bands: list[int]) -> np.ndarray | None:
    """The colours (n, 3) uint8 of a band of palette indices, or None."""
    from rasterio.enums import ColorInterp

    if len(bands) != 1 or dataset.colorinterp[bands[0] - 1] != ColorInterp.palette:
        return None
    size = int(np.iinfo(dataset.dtypes[bands[0] - 1]).max) + 1
    colours = np.zeros((size, 3), np.uint8)
    for index, colour in dataset.colormap(bands[0]).items():
        colours[index] = colour[:3]
    return colours


def georeference_of(path: Path) -> Georeference | None:
    """The georeference of a file that other libraries decode, such as a JPEG with a world file; None if it has none."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with reporting(_damaged(str(path))), _environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return _georeference(dataset)
    except ImageError:
        return None


def _georeference(dataset: Any) -> Georeference | None:
    crs = dataset.crs.to_wkt() if dataset.crs else ""
    sensor = dataset.rpcs.to_gdal() if dataset.rpcs else None
    points, points_crs = dataset.gcps
    if points:
        rows = tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0)) for p in points)
        return Georeference(points_crs.to_wkt() if points_crs else "", None, rows, sensor)
    if dataset.transform.is_identity and (sensor or not crs):
        return Georeference(crs, None, (), sensor) if sensor else None
    return Georeference(crs, tuple(dataset.transform)[:6], (), sensor)

"""Opening an image of any size with the library that reads its format."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from deop.dependencies import missing
from deop.errors import ImageError, MissingDependencyError, SettingError
from deop.images.file_types import file_type_at, is_url
from deop.images.reading import Photo, no_pixel_limit, open_image, read_photo, transposition_of
from deop.tiles.scenes import ArrayScene, Georeference, Scene, in_bytes, temporary_array
from deop.tiles.tiff import open_tiff

MAX_DECODED = 1_000_000_000
"""Maximum pixels of an image that can only be decoded as a whole, such as a JPEG: about 4 GB of memory for a moment."""
IN_MEMORY = 50_000_000
"""Pixels above which a decoded image is kept in a temporary file instead of memory."""
_ROWS = 1024  # rows that are converted at once


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
    georeference = _georeference(path, kind)
    # Where the image is georeferenced, its pixels are numbered as in the file, whatever the EXIF orientation.
    turned = _orientation(path) != 1
    if (is_raster and not turned) or (georeference is not None and turned):
        if find_spec("rasterio"):
            from deop.tiles.rasters import open_raster

            scene: Scene | None = open_raster(path, bands, value_range, required=bool(kind))
            if scene is not None:
                return scene
        elif kind == "TIFF" and find_spec("tifffile"):
            return open_tiff(path, bands, value_range, folder)
    if bands is not None or value_range is not None:
        raise SettingError(
            f"bands and value_range are for rasters, and {path} is none that can be read: omit them, or "
            'pip install "deop[geo]"'
        )
    scene = decode(path, kind, folder)
    scene.georeference = georeference
    return scene


def _georeference(path: Path, kind: str) -> Georeference | None:
    """The georeference of an image file, which may lie in files beside it.

    Raises:
        MissingDependencyError: there is a world file, and rasterio is not installed.
    """
    if not kind:
        return None
    if find_spec("rasterio"):
        from deop.tiles.rasters import georeference_of

        return georeference_of(path)
    suffix = path.suffix
    for ending in (f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld"):
        if suffix and (world := path.with_suffix(ending)).exists():
            raise missing(f"reading {path}, which is georeferenced by {world.name},", "rasterio")
    return None


def _orientation(path: Path) -> int:
    """The EXIF orientation; 1 for files without one."""
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
                    f'{size}, which are read in parts by rasterio or tifffile: pip install "deop[geo]" or "deop[tiff]"'
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


def _decode_to_file(image: Image.Image, path: Path, folder: Path | None) -> Scene:
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged data
        size = in_bytes(path.stat().st_size)
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

"""Label maps and instance maps as PNG files, with the names in their metadata."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deop.errors import ImageError, OutputError
from deop.files import replacing
from deop.images.reading import MAX_PIXELS, no_pixel_limit

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

_MAX_PALETTE, _MAX_IDS = 255, 65_535


def save_label_map(result: "Segmentation", path: Path, palette: bool) -> None:
    """Write the label map of a result; ``Segmentation.save_labels`` describes the file.

    Raises:
        OutputError: the suffix is not .png, there are more than 65,535 names, or the file cannot be written.
    """
    check_png(path)
    if len(result.names) > _MAX_IDS:
        raise OutputError(
            f"cannot write {path}: a PNG supports up to 65,535 names, not {len(result.names):,}; use .npz"
        )
    image, info = label_image(result, palette)
    with replacing(path) as file:
        image.save(file, "PNG", pnginfo=info)


def label_image(result: "Segmentation", palette: bool = True) -> tuple[Image.Image, PngInfo]:
    """The label map of a result with up to 65,535 names as a picture, and its metadata."""
    names = result.names
    dtype = np.uint8 if len(names) <= _MAX_PALETTE else np.uint16
    image = Image.fromarray((result.label_map + 1).astype(dtype))
    if palette and len(names) <= _MAX_PALETTE:
        colours = bytes(3) + result.colours.tobytes()
        # Pillow stores a palette of up to 16 colours in 1, 2 or 4 bits per pixel, which some programs scale to 255.
        image.putpalette(colours.ljust(3 * 17, b"\0"))
    return image, _metadata("names", list(names))


def save_instance_map(result: "Segmentation", path: Path) -> None:
    """Write the map of segments of a result: a 16-bit grey PNG; ``Segmentation.save_labels`` describes it.

    Raises:
        OutputError: the suffix is not .png, there are more than 65,535 segments, or the file cannot be written.
    """
    check_png(path)
    if len(result.segments) > _MAX_IDS:
        raise OutputError(f"cannot write {path}: a PNG supports up to 65,535 segments, not {len(result.segments):,}")
    rows = [
        {
            "id": index + 1,
            "name": segment.name,
            "class_id": segment.class_id,
            "score": round(segment.score, 4),
            "isthing": segment.isthing,
        }
        for index, segment in enumerate(result.segments)
    ]
    _save(Image.fromarray((result.segment_map + 1).astype(np.uint16)), path, "segments", rows)


def check_png(path: Path) -> None:
    """Check that a path has the suffix .png.

    Raises:
        OutputError: it has another one.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"cannot write {path}: label maps are PNG files; use the suffix .png")


def _save(image: Image.Image, path: Path, key: str, content: Any) -> None:
    with replacing(path) as file:
        image.save(file, "PNG", pnginfo=_metadata(key, content))


def _metadata(key: str, content: Any) -> PngInfo:
    info = PngInfo()
    info.add_itxt(key, json.dumps(content))
    return info


def read_labels(path: str | os.PathLike[str]) -> tuple[np.ndarray, list[str]]:
    """Read a label map that ``Segmentation.save_labels`` wrote, with a palette or in grey.

    Args:
        path: the PNG file.

    Returns:
        The label map, (H, W) int32: index of the name, -1 = none; and the names.

    Raises:
        ImageError: the file is missing, damaged, too large, or was not written by ``save_labels``.
    """
    values, names = _read(path, "names", "names of classes")
    try:
        check_names(names)
        _check_ids(values, len(names), "names")
    except ValueError as error:
        raise _unreadable(path, error) from error
    return values.astype(np.int32) - 1, names


def read_instances(path: str | os.PathLike[str]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read an instance map that ``Segmentation.save_labels(..., instances=...)`` wrote.

    Args:
        path: the PNG file.

    Returns:
        The map, (H, W) int32: index of the segment, -1 = none; and of each segment "id" (its value in the file),
        "name", "class_id", "score" and "isthing".

    Raises:
        ImageError: the file is missing, damaged, too large, or was not written by ``save_labels``.
    """
    values, rows = _read(path, "segments", "list of segments")
    try:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("its segments are not a list of objects")
        _check_ids(values, len(rows), "segments")
    except ValueError as error:
        raise _unreadable(path, error) from error
    return values.astype(np.int32) - 1, rows


def check_names(names: Any) -> None:
    """Check names that were read from a file.

    Raises:
        ValueError: they are not a list of strings.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are not a list of strings")


def _read(path: str | os.PathLike[str], key: str, what: str) -> tuple[np.ndarray, Any]:
    try:
        with no_pixel_limit():
            image = Image.open(path)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px is more than {MAX_PIXELS / 1e6:g} million pixels")
            values = np.array(image)
            text = getattr(image, "text", {}).get(key)
        if text is None:
            raise ValueError(f"it has no {what}")
        return values, json.loads(text)
    except FileNotFoundError:
        raise ImageError(f"cannot read the label map {path}: no such file; check the path") from None
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged data
        raise _unreadable(path, error) from error


def _check_ids(values: np.ndarray, count: int, what: str) -> None:
    if values.ndim != 2 or values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() <= count:
        raise ValueError(f"its pixels are not indices of its {count} {what}")


def _unreadable(path: str | os.PathLike[str], error: Exception) -> ImageError:
    return ImageError(f"cannot read the label map {path}: {error}; pass a PNG written by Segmentation.save_labels")

"""File formats of results: images, JSON, label maps and archives, COCO, COCO panoptic, and supervision."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deop.errors import ImageError, MissingDependencyError, OutputError
from deop.files import replacing
from deop.images.panoptic_ids import ids_to_colours
from deop.images.reading import MAX_PIXELS, no_pixel_limit
from deop.results.rle import encode_crop
from deop.results.segments import Segment

_IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_ARCHIVE_FORMAT = "deop segmentation 1"


def coco(
    segments: Sequence[Segment],
    names: Sequence[str],
    shape: tuple[int, int],
    image_id: int,
    file_name: str,
    first_id: int,
) -> dict[str, Any]:
    """COCO's instance format: one annotation per segment, masks as uncompressed run lengths."""
    height, width = shape
    annotations = []
    for number, segment in enumerate(segments, first_id):
        x0, y0, x1, y1 = segment.box
        annotations.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": segment.class_id + 1,
                "segmentation": {
                    "size": [height, width],
                    "counts": encode_crop(segment.crop, x0, y0, shape),
                },
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": segment.area,
                "score": segment.score,
                "iscrowd": 0,
            }
        )
    return {
        "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": _categories(segments, names),
    }


def coco_panoptic(
    segments: Sequence[Segment],
    names: Sequence[str],
    segment_map: np.ndarray,
    image_id: int,
    file_name: str,
) -> tuple[Image.Image, dict[str, Any]]:
    """COCO's panoptic format: an image whose colours are segment ids (0 = none), and the list of its segments."""
    image = Image.fromarray(ids_to_colours(segment_map + 1))
    rows = []
    for index, segment in enumerate(segments):
        x0, y0, x1, y1 = segment.box
        visible = segment_map[y0:y1, x0:x1] == index  # not covered by other segments
        if not visible.any():
            continue
        down, across = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        size = [int(across[-1] - across[0]) + 1, int(down[-1] - down[0]) + 1]
        rows.append(
            {
                "id": index + 1,
                "category_id": segment.class_id + 1,
                "bbox": [x0 + int(across[0]), y0 + int(down[0]), *size],
                "area": int(visible.sum()),
                "score": segment.score,
                "iscrowd": 0,
            }
        )
    annotation = {"image_id": image_id, "file_name": file_name, "segments_info": rows}
    return image, {"annotation": annotation, "categories": _categories(segments, names)}


def _categories(segments: Sequence[Segment], names: Sequence[str]) -> list[dict[str, Any]]:
    categories: list[dict[str, Any]] = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    for segment in segments:
        if segment.isthing is not None:
            categories[segment.class_id]["isthing"] = int(segment.isthing)
    return categories


def supervision(segments: Sequence[Segment], shape: tuple[int, int]) -> Any:
    """``supervision.Detections`` with one detection per segment."""
    try:
        import supervision as sv
    except ImportError as error:
        raise MissingDependencyError(
            'to_supervision needs the library supervision: `pip install "deop[supervision]"`'
        ) from error
    masks = np.zeros((len(segments), *shape), bool)
    for mask, segment in zip(masks, segments, strict=True):
        x0, y0, x1, y1 = segment.box
        mask[y0:y1, x0:x1] = segment.crop
    return sv.Detections(
        xyxy=np.array([segment.box for segment in segments], np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array([segment.score for segment in segments], np.float32),
        class_id=np.array([segment.class_id for segment in segments], int),
        data={"class_name": np.array([segment.name for segment in segments], str)},
    )


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format that the file suffix names.

    Raises:
        OutputError: the suffix is unknown, the format does not support the size of the picture, or the file cannot be
            written.
    """
    form = check_picture_suffix(path)
    options: dict[str, dict[str, object]] = {
        "PNG": {"optimize": False},
        "JPEG": {"quality": 92, "subsampling": 0},
        "WEBP": {"quality": 92},
    }
    with replacing(path) as file:
        try:
            picture.save(file, form, **options[form])
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the format
            size = f"{picture.width} x {picture.height} px"
            raise OutputError(f"cannot write {path}: {form} does not support pictures of {size}; use .png") from error


def check_picture_suffix(path: Path) -> str:
    """Pillow's name of the format that a file suffix names.

    Raises:
        OutputError: the suffix is unknown.
    """
    form = _IMAGE_FORMATS.get(path.suffix.lower())
    if form is None:
        known = ", ".join([*_IMAGE_FORMATS, ".json", ".npz"])
        raise OutputError(f"cannot write {path}: unknown suffix {path.suffix!r}; use one of {known}")
    return form


def save_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON in UTF-8."""
    text = json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n"
    with replacing(path) as file:
        # A file name that is not UTF-8 has surrogates, for which backslashreplace writes JSON's own escapes.
        file.write(text.encode("utf-8", "backslashreplace"))


def save_labels(path: Path, label_map: np.ndarray, names: Sequence[str]) -> None:
    """Write a label map as a grey PNG: value = index of the name + 1, 0 = none; the names in its text chunk "names".

    Raises:
        OutputError: the suffix is not .png, there are more than 65,535 names, or the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"cannot write {path}: label maps are PNG files; use the suffix .png")
    if len(names) > 65_535:
        raise OutputError(f"cannot write {path}: a PNG supports up to 65,535 names, not {len(names):,}; use .npz")
    dtype = np.uint8 if len(names) <= 255 else np.uint16
    info = PngInfo()
    info.add_itxt("names", json.dumps(list(names)))
    with replacing(path) as file:
        Image.fromarray((label_map + 1).astype(dtype)).save(file, "PNG", pnginfo=info)


def read_labels(path: str | os.PathLike[str]) -> tuple[np.ndarray, list[str]]:
    """Read a label map that ``Segmentation.save_labels`` wrote.

    Args:
        path: the PNG file.

    Returns:
        The label map, (H, W) int32: index of the name, -1 = none; and the names.

    Raises:
        ImageError: the file is missing, damaged, too large, or was not written by ``save_labels``.
    """
    try:
        with no_pixel_limit():
            image = Image.open(path)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px is more than {MAX_PIXELS / 1e6:g} million pixels")
            values = np.array(image)
            text = getattr(image, "text", {}).get("names")
        if text is None:
            raise ValueError("it has no names of classes")
        names = json.loads(text)
        _check_names(names)
        if values.ndim != 2 or values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() <= len(names):
            raise ValueError(f"its pixels are not indices of its {len(names)} names")
    except FileNotFoundError:
        raise ImageError(f"cannot read the label map {path}: no such file; check the path") from None
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged data
        raise ImageError(
            f"cannot read the label map {path}: {error}; pass a PNG written by Segmentation.save_labels"
        ) from error
    return values.astype(np.int32) - 1, names


def save_archive(
    path: Path,
    *,
    names: Sequence[str],
    label_map: np.ndarray,
    segments: Sequence[Segment],
    photo: np.ndarray,
    mode: str,
    settings: Mapping[str, Any],
    source: str | None,
) -> None:
    """Write a complete result into one compressed .npz file, which ``load_archive`` reads.

    Raises:
        OutputError: the segments refer to different maps, or the file cannot be written.
    """
    maps: dict[str, np.ndarray] = {}
    rows = []
    for index, segment in enumerate(segments):
        shared = segment.pixels.ndim == 2
        key = "map" if shared else f"bits{index}"
        maps.setdefault(key, segment.pixels)
        if maps[key] is not segment.pixels:
            raise OutputError(f"cannot write {path}: its segments refer to different maps; build it from one map")
        rows.append(
            {
                "name": segment.name,
                "class_id": segment.class_id,
                "score": segment.score,
                "box": segment.box,
                "area": segment.area,
                "isthing": segment.isthing,
                "value": segment.value,
                "pixels": key,
            }
        )
    if maps.get("map") is label_map:  # in semantic mode the segments refer to the label map
        del maps["map"]
    head = {
        "format": _ARCHIVE_FORMAT,
        "names": list(names),
        "segments": rows,
        "mode": mode,
        "settings": dict(settings),
        "source": source,
    }
    text = json.dumps(head, default=str).encode()
    with replacing(path) as file:
        np.savez_compressed(
            file, head=np.frombuffer(text, np.uint8), label_map=label_map, photo=photo, allow_pickle=False, **maps
        )


def load_archive(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the file that ``save_archive`` wrote.

    Returns:
        The arguments of a ``Segmentation``.

    Raises:
        ImageError: the file is missing, damaged, or was not written by ``save_archive``.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            head = json.loads(archive["head"].tobytes())
            if head["format"] != _ARCHIVE_FORMAT:
                raise ValueError(f"its format is {head['format']!r}, not {_ARCHIVE_FORMAT!r}")
            label_map, photo = archive["label_map"], archive["photo"]
            maps = {key: archive[key] for key in archive.files if key == "map" or key.startswith("bits")}
        maps.setdefault("map", label_map)
        _check_names(head["names"])
        segments = [
            Segment(**{**row, "box": tuple(row["box"]), "shape": label_map.shape, "pixels": maps[row["pixels"]]})
            for row in head["segments"]
        ]
        return {
            "names": tuple(head["names"]),
            "label_map": label_map,
            "segments": segments,
            "photo": photo,
            "mode": head["mode"],
            "settings": dict(head["settings"]),
            "source": head["source"],
        }
    except FileNotFoundError:
        raise ImageError(f"cannot read {path}: no such file; check the path") from None
    except KeyError as error:
        raise ImageError(f"cannot read {path}: it has no {error}; {_NOT_AN_ARCHIVE}") from error
    except Exception as error:  # NumPy and zipfile raise many kinds of exceptions for damaged data
        raise ImageError(f"cannot read {path}: {error}; {_NOT_AN_ARCHIVE}") from error


_NOT_AN_ARCHIVE = "the file is damaged or was not written by Segmentation.save"


def _check_names(names: Any) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are not a list of strings")

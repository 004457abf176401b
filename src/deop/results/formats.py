"""Results in the forms of others: COCO, COCO panoptic, supervision, label maps, JSON, and our own archive."""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deop.errors import ImageError, MissingDependencyError, OutputError
from deop.files import replacing
from deop.results.rle import encode_crop
from deop.results.segments import Segment

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_FORMAT = "deop segmentation 1"


def coco(
    segments: Sequence[Segment],
    names: Sequence[str],
    shape: tuple[int, int],
    image_id: int,
    file_name: str,
    first_id: int,
) -> dict[str, Any]:
    """COCO's instance format, one annotation a segment, masks as uncompressed run lengths."""
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
    """COCO's panoptic format: a picture whose colours are ids (R + 256 G + 65536 B, 0 = none), and what they are."""
    ids = (segment_map + 1).astype("<u4")
    picture = Image.fromarray(np.ascontiguousarray(ids.view(np.uint8).reshape(*ids.shape, 4)[..., :3]))
    rows = []
    for index, segment in enumerate(segments):
        x0, y0, x1, y1 = segment.box
        seen = segment_map[y0:y1, x0:x1] == index  # what others do not cover
        if not seen.any():
            continue
        down, across = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        size = [int(across[-1] - across[0]) + 1, int(down[-1] - down[0]) + 1]
        rows.append(
            {
                "id": index + 1,
                "category_id": segment.class_id + 1,
                "bbox": [x0 + int(across[0]), y0 + int(down[0]), *size],
                "area": int(seen.sum()),
                "score": segment.score,
                "iscrowd": 0,
            }
        )
    annotation = {"image_id": image_id, "file_name": file_name, "segments_info": rows}
    return picture, {"annotation": annotation, "categories": _categories(segments, names)}


def _categories(segments: Sequence[Segment], names: Sequence[str]) -> list[dict[str, Any]]:
    categories: list[dict[str, Any]] = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    for segment in segments:
        if segment.isthing is not None:
            categories[segment.class_id]["isthing"] = int(segment.isthing)
    return categories


def supervision(segments: Sequence[Segment], shape: tuple[int, int]) -> Any:
    """``supervision.Detections``, one a segment."""
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
    """Write a picture in the form that the file's ending names.

    Raises:
        OutputError: an unknown ending, a form that cannot hold a picture so large, or a place that cannot be written.
    """
    form = check_picture_ending(path)
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
                raise  # the disk, not the form
            size = f"{picture.width} x {picture.height}"
            raise OutputError(f"cannot write {path}: {form} holds no picture of {size} px; use .png") from error


def check_picture_ending(path: Path) -> str:
    """Pillow's name for the form that a file's ending stands for.

    Raises:
        OutputError: an unknown ending.
    """
    form = _PICTURES.get(path.suffix.lower())
    if form is None:
        known = ", ".join([*_PICTURES, ".json", ".npz"])
        raise OutputError(f"cannot write {path}: unknown ending {path.suffix!r}; use one of {known}")
    return form


def save_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON in UTF-8."""
    text = json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def save_labels(path: Path, label_map: np.ndarray, names: Sequence[str]) -> None:
    """Write a label map as grey PNG: value = index of the name + 1, 0 = none; the names in its text chunk "names".

    Raises:
        OutputError: another ending than .png, more than 65,535 names, or a place that cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"cannot write {path}: label maps are PNG files; end the name in .png")
    if len(names) > 65_535:
        raise OutputError(f"cannot write {path}: a PNG holds 65,535 names, not {len(names):,}; use .npz")
    kind = np.uint8 if len(names) <= 255 else np.uint16
    note = PngInfo()
    note.add_itxt("names", json.dumps(list(names)))
    with replacing(path) as file:
        Image.fromarray((label_map + 1).astype(kind)).save(file, "PNG", pnginfo=note)


def read_labels(path: str | os.PathLike[str]) -> tuple[np.ndarray, list[str]]:
    """Read a label map that ``save_labels`` wrote.

    Args:
        path: the PNG file.

    Returns:
        (H, W) int32, index of the name, -1 = none; and the names.

    Raises:
        ImageError: no such file, no PNG, or one without names.
    """
    try:
        with Image.open(path) as image:
            values = np.array(image)
            names = json.loads(getattr(image, "text", {})["names"])
    except KeyError:
        raise ImageError(f"cannot read {path}: the PNG names no classes; it was not written by deop") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: no label map ({error}); pass a PNG from save_labels") from error
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
    """Write everything into one compressed .npz, which ``load_archive`` reads back."""
    maps: dict[str, np.ndarray] = {}
    rows = []
    for index, segment in enumerate(segments):
        shared = segment.pixels.ndim == 2
        key = "map" if shared else f"bits{index}"
        maps.setdefault(key, segment.pixels)
        if maps[key] is not segment.pixels:
            raise OutputError(f"cannot write {path}: its segments come from different maps; build it from one")
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
    if maps.get("map") is label_map:  # semantic: one map is both
        del maps["map"]
    head = {
        "format": _FORMAT,
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
    """Read what ``save_archive`` wrote: the arguments of a Segmentation.

    Raises:
        ImageError: no such file, or none that deop wrote, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            head = json.loads(archive["head"].tobytes())
            if head["format"] != _FORMAT:
                raise ImageError(f"cannot read {path}: its format is {head['format']!r}, not {_FORMAT!r}")
            label_map, photo = archive["label_map"], archive["photo"]
            maps = {key: archive[key] for key in archive.files if key == "map" or key.startswith("bits")}
            maps.setdefault("map", label_map)
            segments = [
                Segment(
                    **{
                        **row,
                        "box": tuple(row["box"]),
                        "shape": label_map.shape,
                        "pixels": maps[row["pixels"]],
                    }
                )
                for row in head["segments"]
            ]
    except FileNotFoundError:
        raise ImageError(f"cannot read {path}: no such file; check the path") from None
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot read {path}: not a result that deop saved, or damaged ({error})") from error
    return {
        "names": tuple(head["names"]),
        "label_map": label_map,
        "segments": segments,
        "photo": photo,
        "mode": head["mode"],
        "settings": head["settings"],
        "source": head["source"],
    }

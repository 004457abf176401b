"""Where marked photos come from: labelled folders, COCO JSON, and examples of the command line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from deop.bank.learning import MarkedPhoto
from deop.bank.marks import Box, Click
from deop.data.entries import image_source
from deop.data.labelled import LabelledData, photo_size
from deop.errors import DataError, DeopError, SettingError
from deop.files import existing_path, parse_json
from deop.images.masks import read_masks
from deop.images.rle import decode_rle


def photos_of_data(data: LabelledData) -> Iterator[MarkedPhoto]:
    """The photos of labelled data, with a mask for each of their classes."""
    for pair in data.pairs:
        labels = data.labels(pair)
        present = np.unique(labels[labels >= 0])
        names = [data.classes[index].name for index in present]
        yield MarkedPhoto(image_source(pair.photo), labels == present[:, None, None], names)


def photos_of_coco(path: Path, images: Path | None = None) -> list[MarkedPhoto]:
    """The photos of a COCO JSON file, with a mask, or at least a box, for each annotation.

    Args:
        path: the file, with ``images``, ``annotations`` and ``categories``.
        images: the directory of the photos; None: that of the file, or ``images`` in it.

    Raises:
        DataError: the file or one of its photos cannot be read.
    """
    try:
        content = parse_json(path)
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        annotations: dict[Any, list[Mapping[str, Any]]] = {}
        for entry in content["annotations"]:
            if not entry.get("iscrowd"):
                annotations.setdefault(entry["image_id"], []).append(entry)
        labels = {image: [names[entry["category_id"]] for entry in part] for image, part in annotations.items()}
        places = {image: _photo_at(path, images, files[image]) for image in annotations}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DeopError):
            raise
        raise DataError(
            f"cannot read {path}: {error!r}. Expected COCO's JSON with images, annotations and categories"
        ) from error
    if not annotations:
        raise DataError(f"{path} has no annotations: check that it is the right file")
    return [
        MarkedPhoto(str(places[image]), partial(_marks_of, path, places[image], part), labels[image])
        for image, part in annotations.items()
    ]


def _photo_at(path: Path, images: Path | None, name: str) -> Path:
    candidates = [images / name] if images else [path.parent / name, path.parent / "images" / name]
    for place in candidates:
        if place.is_file():
            return place
    raise DataError(f"{path} lists the photo {name}, which is not at {candidates[0]}: give its directory (--images)")


def _marks_of(path: Path, photo: Path, annotations: list[Mapping[str, Any]]) -> list[Any]:
    """The mask or the box of each annotation of a photo."""
    size = photo_size(photo)
    try:
        return [_mark_of(entry, size) for entry in annotations]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{path}: an annotation of {photo.name} cannot be used: {error}") from error


def _mark_of(entry: Mapping[str, Any], size: tuple[int, int]) -> Any:
    shape = entry.get("segmentation")
    if isinstance(shape, Mapping):
        return decode_rle(dict(shape))
    if shape:
        plane = Image.new("1", (size[1], size[0]))
        draw = ImageDraw.Draw(plane)
        for polygon in shape:
            if len(polygon) >= 6:
                # COCO counts from the corners of pixels, Pillow from their centres.
                points = [(x - 0.5, y - 0.5) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
                draw.polygon(points, fill=1, outline=1)
        return np.asarray(plane)
    left, top, width, height = (float(value) for value in entry["bbox"])
    return Box(left, top, left + width, top + height)


def parse_examples(texts: Sequence[str]) -> list[MarkedPhoto]:
    """The examples of a command line, one photo each: what is marked in one photo is learned together.

    Else what one example marks would be unmarked in the others.

    Raises:
        SettingError, ProposalError: as ``parse_example``.
    """
    photos: dict[str, MarkedPhoto] = {}
    for one in map(parse_example, texts):
        key = str(one.photo)
        before = photos.get(key)
        marks, names = ([], []) if before is None else (before.marks, before.names)
        photos[key] = MarkedPhoto(one.photo, [*marks, *one.marks], [*names, *one.names])
    return list(photos.values())


def parse_example(text: str) -> MarkedPhoto:
    """An example of the command line: ``PHOTO:MASK=NAME``, ``PHOTO:LEFT,TOP,RIGHT,BOTTOM=NAME`` or ``PHOTO:X,Y=NAME``.

    All masks of a file get the name.

    Raises:
        SettingError: another form, or no such file.
        ProposalError: a mask that cannot be read.
    """
    place, equals, name = text.rpartition("=")
    form = (
        "expected PHOTO:MASK=NAME, such as photo.jpg:mask.png=cup; MASK may also be a box, left,top,right,bottom, or "
    )
    form += "a click, x,y"
    if not equals or not name.strip():
        raise SettingError(f"--example {text!r}: {form}")
    # A path may have a colon itself, as in C:\photo.jpg: the one that divides leaves an existing photo on its left.
    cuts = [found.start() for found in re.finditer(":", place)]
    cut = next((cut for cut in cuts if _is_photo(place[:cut])), None)
    if cut is None:
        if not cuts:
            raise SettingError(f"--example {text!r} has no mask: {form}")
        raise SettingError(f"--example {text!r}: {place[: cuts[-1]]} does not exist. Check the path; {form}")
    photo, mark = place[:cut], place[cut + 1 :].strip()
    numbers = _numbers(mark)
    if numbers is not None:
        if len(numbers) not in (2, 4):
            raise SettingError(f"--example {text!r} has {len(numbers)} numbers: {form}")
        return MarkedPhoto(photo, [Click(*numbers) if len(numbers) == 2 else Box(*numbers)], [name])
    masks = read_masks(mark)
    return MarkedPhoto(photo, masks, [name] * len(masks))


def _is_photo(place: str) -> bool:
    if place.startswith(("http://", "https://")):
        return True
    path = existing_path(place)
    return path is not None and path.is_file()


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if all(np.isfinite(numbers)) else None

"""Labelled data: photos, a class id for every pixel, and a list of classes, wherever the files are.

``folder.py`` finds them in a folder, ``parquet.py`` in Parquet files, and ``tar.py`` in WebDataset's tar files; all
give one value, ``LabelledData``, which evaluation and training use. ``source.py`` opens any of them.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.data.entries import Entry, image_source
from deop.errors import DataError, ImageError
from deop.files import parse_json
from deop.images.collection import LeftOut, describe_left_out
from deop.images.id_maps import MAX_ID, Colours, read_id_map
from deop.images.reading import MAX_PIXELS, no_pixel_limit, open_image
from deop.text.vocabulary import quoted, split_name

_EXIF_ORIENTATION = 0x0112
EXAMPLE = '[{"id": 1, "name": "person", "isthing": true}, ...]'
"""The form of classes.json, for error messages."""


@dataclass(frozen=True)
class LabelClass:
    """A class of a data set.

    Attributes:
        id: value of its pixels in the masks, 0..65535.
        name: the name, possibly with synonyms: "sofa|couch".
        isthing: True for countable things, False for stuff; None if the data set does not say.
        seen: whether zero-shot training sees the class; None if the data set does not say.
        colour: RGB of its pixels in masks in colour, 0..255; None if the data set does not say.
    """

    id: int
    name: str
    isthing: bool | None = None
    seen: bool | None = None
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A photo and its mask.

    Attributes:
        photo: where the photo is.
        mask: where the mask is.
        key: the name of the pair in its data: a relative path without suffix, with "/" between its parts.
    """

    photo: Entry
    mask: Entry
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", Path(self.photo.name).stem)


@dataclass(frozen=True)
class LabelledData:
    """The photos of one split, with their masks and classes.

    Attributes:
        root: folder of the split; or the files as they were named, a text.
        classes: the K classes.
        pairs: photos and masks, in the order of their paths, or of the files that they are in.
        unpaired: photos and masks that are left out because they have no partner or more than one, and files that are
            incomplete, with the reasons.
        left_out: other files and directories that are not used, with the reasons.
    """

    root: Path | str
    classes: tuple[LabelClass, ...]
    pairs: tuple[Pair, ...]
    unpaired: tuple[LeftOut, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The K names, in the order of ``classes``."""
        return tuple(entry.name for entry in self.classes)

    @property
    def colours(self) -> Colours:
        """The colours of the classes by their ids; empty if the data set does not say."""
        return {entry.id: entry.colour for entry in self.classes if entry.colour is not None}

    def display(self, entry: Entry) -> str:
        """The name of a photo or mask in reports: its path below a folder, or its place in a file."""
        if isinstance(entry, Path) and isinstance(self.root, Path) and entry.is_relative_to(self.root):
            return entry.relative_to(self.root).as_posix()
        return str(entry)

    def ids(self, pair: Pair) -> np.ndarray:
        """The id of every pixel of a photo.

        Returns:
            (H, W) integers, 0..65535, or ``UNLISTED_COLOUR`` (-1) for a colour that classes.json does not list.

        Raises:
            DataError: a mask that cannot be read, has another format, or has another size than its photo.
        """
        ids = read_mask(pair.mask, self.colours)
        size = photo_size(pair.photo)
        if ids.shape != size:
            raise DataError(
                f"{pair.mask} is {ids.shape[1]} x {ids.shape[0]}, its photo {pair.photo.name} {size[1]} x {size[0]}"
            )
        return ids

    def labels(self, pair: Pair) -> np.ndarray:
        """The true class of every pixel of a photo.

        Returns:
            (H, W) int32: index into ``classes``, or -1 for a pixel to ignore.

        Raises:
            DataError: as ``ids``.
        """
        return self.labels_of(self.ids(pair))

    def labels_of(self, ids: np.ndarray) -> np.ndarray:
        """The true classes of pixels, as ``labels`` gives them, from their ids."""
        index_of_id = np.full(MAX_ID + 2, -1, np.int32)  # the last entry is for UNLISTED_COLOUR
        for index, entry in enumerate(self.classes):
            index_of_id[entry.id] = index
        return index_of_id[ids]


@contextmanager
def opening_image(path: Entry, what: str) -> Iterator[Image.Image]:
    """Open an image file of a data set, and report every failure with the path.

    Args:
        path: where it is.
        what: what it should be, for error messages: "photo", "mask" or "labels".

    Raises:
        DataError: the file cannot be read, or has more than ``MAX_PIXELS`` pixels.
    """
    try:
        with no_pixel_limit():
            image = open_image(image_source(path))
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"the {what} {path} is {image.width} x {image.height}, more than {MAX_PIXELS:,} pixels: cut it "
                    "into smaller ones"
                )
            yield image
    except (DataError, MemoryError):
        raise
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        raise DataError(f"cannot read the {what} {path}: {error or type(error).__name__}") from error


def photo_size(path: Entry) -> tuple[int, int]:
    """(height, width) of a photo in upright orientation, in pixels, from the header of its file.

    Raises:
        DataError: the file is not a readable image.
    """
    with opening_image(path, "photo") as photo:
        transposed = photo.getexif().get(_EXIF_ORIENTATION, 1) >= 5 and photo.format != "TIFF"  # Pillow turns the size
        return (photo.width, photo.height) if transposed else (photo.height, photo.width)


def describe_unused(unpaired: Sequence[LeftOut], left_out: Sequence[LeftOut]) -> str:
    """One line about files that are not used, where the file of a pair has a short reason; "" if there are none."""
    partners = [LeftOut(entry.path, "photo or mask without exactly one partner") for entry in unpaired]
    return describe_left_out([*partners, *left_out])


def check_pairs(
    place: Path | str,
    pairs: Sequence[Pair],
    unpaired: Sequence[LeftOut],
    left_out: Sequence[LeftOut],
    *,
    skip_unpaired: bool,
    command: Sequence[str],
) -> None:
    """Refuse data without pairs, or with files that have no partner.

    Args:
        place: where the data is, for messages.
        pairs: as in ``LabelledData``.
        unpaired: as in ``LabelledData``.
        left_out: as in ``LabelledData``.
        skip_unpaired: whether files without a partner are left out.
        command: arguments of ``deop prepare check`` for this data.

    Raises:
        DataError: naming the first file.
    """
    if unpaired and not skip_unpaired:
        more = f", and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
        check = shlex.join(["deop", "prepare", "check", *command])
        raise DataError(
            f"{place}: {unpaired[0].reason}{more}; `{check}` lists all, and --skip-broken (skip_unpaired=True in "
            "Python) leaves them out"
        )
    if not pairs:
        raise DataError(f"no photos with masks in {place}: {describe_unused(unpaired, left_out) or 'it is empty'}")


def read_classes(path: Path) -> tuple[LabelClass, ...]:
    """Read ``classes.json``.

    Raises:
        DataError: the file cannot be read or has another form, an id is used twice, or the list is empty.
    """
    try:
        entries = parse_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}. Expected {EXAMPLE}") from error
    return classes_of(entries, str(path))


def classes_of(entries: Any, path: str) -> tuple[LabelClass, ...]:
    """The classes in the content of a ``classes.json``, or of Hugging Face's ``id2label.json``.

    Args:
        entries: a list of classes, or a mapping of ids to names.
        path: where it is from, for error messages.

    Raises:
        DataError: as ``read_classes``.

    >>> classes_of({"1": "cat", "2": "wall"}, "id2label.json")[1].name
    'wall'
    """
    try:
        if isinstance(entries, dict) and entries and all(str(key).isdecimal() for key in entries):
            entries = [{"id": int(key), "name": name} for key, name in entries.items()]
        if not isinstance(entries, list):
            raise ValueError("it is not a list")
        classes = tuple(_class_of(entry) for entry in entries)
    except (ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}. Expected {EXAMPLE}") from error
    ids = [entry.id for entry in classes]
    if not classes:
        raise DataError(f"{path} is empty: list at least one class, as in {EXAMPLE}")
    if repeated := sorted({label for label in ids if ids.count(label) > 1}):
        raise DataError(f"{path} lists the id {repeated[0]} more than once: give each class its own id")
    colours = [entry.colour for entry in classes if entry.colour is not None]
    if twice := [colour for colour in colours if colours.count(colour) > 1]:
        hexadecimal = "#{:02x}{:02x}{:02x}".format(*twice[0])
        raise DataError(f'{path} has the color {hexadecimal} more than once: give each class its own, or omit "color"')
    return classes


def _class_of(entry: Any) -> LabelClass:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"{quoted(entry)} is not a class with an id and a name")
    split_name(entry["name"])  # raises a VocabularyError, which is a ValueError
    name = quoted(entry["name"])
    label = entry.get("id")
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= MAX_ID:
        raise ValueError(f"the id of {name} is {quoted(label)}: expected a whole number from 0 to {MAX_ID}")
    for key in ("isthing", "seen"):
        if entry.get(key) not in (None, False, True):
            raise ValueError(f"{key!r} of {name} is {quoted(entry[key])}: expected true, false or null")
    isthing, seen = (None if entry.get(key) is None else bool(entry[key]) for key in ("isthing", "seen"))
    return LabelClass(label, entry["name"], isthing, seen, _colour_of(entry))


def _colour_of(entry: dict[str, Any]) -> tuple[int, int, int] | None:
    """The ``"color"`` of an entry of classes.json: "#rrggbb", or [r, g, b] of 0..255; None if it has none."""
    value = entry.get("color")
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch("#?[0-9a-fA-F]{6}", value):
        red, green, blue = bytes.fromhex(value.removeprefix("#"))
        return red, green, blue
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return value[0], value[1], value[2]
    raise ValueError(
        f'the color of {quoted(entry["name"])} is {quoted(value)}: expected "#rrggbb", or [r, g, b] of 0 to 255'
    )


def read_mask(path: Entry, colours: Colours | None = None) -> np.ndarray:
    """Read the class ids of the pixels of a photo: ``images.id_maps.read_id_map``, with errors of a data set.

    Args:
        path: where it is.
        colours: the colours of ids, for masks in colour.

    Returns:
        (H, W) uint8 or uint16; or int32, with ``UNLISTED_COLOUR`` (-1) for a colour that is not among ``colours``.

    Raises:
        DataError: the file cannot be read, or does not store ids.
    """
    try:
        if isinstance(path, Path):
            return read_id_map(path, colours)
        return read_id_map(path.read(), colours, name=str(path))
    except ImageError as error:
        raise DataError(str(error)) from error

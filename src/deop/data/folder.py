"""A data set as a folder: photos, a class id for every pixel, and a list of classes.

    images/*.jpg|png|...    masks/*.png|tif|... (one id of up to 16 bits per pixel)    classes.json

``classes.json`` is ``[{"id": 1, "name": "person", "isthing": true}, ...]``; a class may also say whether it is
``"seen"`` in zero-shot training, and the ``"color"`` of its pixels, for masks in colour. Photos and masks have the same
path below ``images/`` and ``masks/``, except for the suffix; ``images.collection`` says which files count. A data set
with splits has a folder with images and masks for each (``train/``, ``val/``), and the list may be in the folder above.
Pixels whose id is not listed are ignored; that includes 0 and 255, unless they are listed. ``check.py`` reads every
file; ``prepare.py`` makes such folders from the public data sets.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import DataError, ImageError
from deop.files import parse_json
from deop.images.collection import Collection, LeftOut, collect, describe_left_out
from deop.images.id_maps import MAX_ID, Colours, read_id_map
from deop.images.reading import MAX_PIXELS, no_pixel_limit, open_image

_EXIF_ORIENTATION = 0x0112
_EXAMPLE = '[{"id": 1, "name": "person", "isthing": true}, ...]'


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


@dataclass(frozen=True)
class Pair:
    """A photo and its mask."""

    photo: Path
    mask: Path


@dataclass(frozen=True)
class LabelledFolder:
    """The photos of one split, with their masks and classes.

    Attributes:
        root: folder of the split.
        classes: the K classes.
        pairs: photos and masks, sorted by path.
        unpaired: photos and masks that are left out because they have no partner or more than one, with the reasons.
        left_out: other files and directories that are not used, with the reasons.
    """

    root: Path
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

    def key(self, pair: Pair) -> str:
        """What photo and mask of a pair have in common: the path below images/, without the suffix."""
        return key_of(self.root, pair)

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


def key_of(root: Path, pair: Pair) -> str:
    """``LabelledFolder.key``, from the folder of the split; the stem of a photo that is not below its images/."""
    top = root / "images"
    path = pair.photo.relative_to(top) if pair.photo.is_relative_to(top) else Path(pair.photo.name)
    return path.with_suffix("").as_posix()


@contextmanager
def opening_image(path: Path, what: str) -> Iterator[Image.Image]:
    """Open an image file of a data set, and report every failure with the path.

    Args:
        path: the file.
        what: what it should be, for error messages: "photo", "mask" or "labels".

    Raises:
        DataError: the file cannot be read, or has more than ``MAX_PIXELS`` pixels.
    """
    try:
        with no_pixel_limit():
            image = open_image(path)
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


def photo_size(path: Path) -> tuple[int, int]:
    """(height, width) of a photo in upright orientation, in pixels, from the header of its file.

    Raises:
        DataError: the file is not a readable image.
    """
    with opening_image(path, "photo") as photo:
        transposed = photo.getexif().get(_EXIF_ORIENTATION, 1) >= 5 and photo.format != "TIFF"  # Pillow turns the size
        return (photo.width, photo.height) if transposed else (photo.height, photo.width)


def splits_of(folder: str | Path) -> tuple[str | None, ...]:
    """The names of the splits of a data set; (None,) if it has no splits."""
    root = Path(folder)
    if (root / "images").is_dir():
        return (None,)
    names = sorted(path.parent.name for path in root.glob("*/images") if path.is_dir())
    return tuple(name for name in names if not name.startswith(".")) or (None,)


def open_folder(folder: str | Path, split: str | None = None, *, skip_unpaired: bool = False) -> LabelledFolder:
    """Find the photos, masks and classes of a data set. No photo or mask is read.

    Args:
        folder: the data set.
        split: "train", "val", ...; None: "val" if the data set has splits, else all photos.
        skip_unpaired: leave out photos without a mask and masks without a photo, instead of raising an error.

    Returns:
        The photos of the split.

    Raises:
        DataError: no such folder or split, no valid list of classes, a photo without a mask or a mask without a photo.
    """
    root = Path(folder)
    place = root
    if not (root / "images").is_dir():
        place = root / (split or "val")
        if not (place / "images").is_dir():
            splits = [name for name in splits_of(root) if name]
            present = f"it has the splits {', '.join(splits)}" if splits else "it has neither images/ nor splits"
            raise DataError(f"no photos in {place}: {present}")
    elif split not in (None, "all"):
        raise DataError(f"{root} has no splits, so no split {split!r}: omit the split")
    listing = next((path for path in (place / "classes.json", root / "classes.json") if path.is_file()), None)
    if listing is None:
        raise DataError(f"{root} has no classes.json: expected {_EXAMPLE}")
    pairs, unpaired, left_out = _find_pairs(place)
    if unpaired and not skip_unpaired:
        more = f", and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
        check = shlex.join(["deop", "prepare", "check", str(root)])
        raise DataError(
            f"{place}: {unpaired[0].reason}{more}; `{check}` lists all, and --skip-broken (skip_unpaired=True in "
            "Python) leaves them out"
        )
    if not pairs:
        raise DataError(f"no photos with masks in {place}: {describe_unused(unpaired, left_out) or 'it is empty'}")
    return LabelledFolder(place, read_classes(listing), pairs, unpaired, left_out)


def describe_unused(unpaired: Sequence[LeftOut], left_out: Sequence[LeftOut]) -> str:
    """One line about files that are not used, where the file of a pair has a short reason; "" if there are none."""
    partners = [LeftOut(entry.path, "photo or mask without exactly one partner") for entry in unpaired]
    return describe_left_out([*partners, *left_out])


def _find_pairs(place: Path) -> tuple[tuple[Pair, ...], tuple[LeftOut, ...], tuple[LeftOut, ...]]:
    """Photos and masks of the same path, the files without exactly one partner, and the other files."""
    photos, masks = (_collect(place / name) for name in ("images", "masks"))
    photos_of, masks_of = _by_key(photos.files, place / "images"), _by_key(masks.files, place / "masks")
    left_out_of = _by_key([entry.path for entry in photos.left_out], place / "images")
    reason_of = {entry.path: entry.reason for entry in photos.left_out}
    pairs, unpaired = [], []
    for key, files in photos_of.items():
        partners = masks_of.get(key, [])
        if len(files) == len(partners) == 1:
            pairs.append(Pair(files[0], partners[0]))
            continue
        for file in files:
            name = file.relative_to(place / "images").as_posix()
            if not partners:
                reason = f"photo {name} has no mask"
            elif len(files) > 1:
                reason = f"photo {name} shares its name with another photo, and there is one mask for both: rename one"
            else:
                reason = (
                    f"photo {name} has {len(partners)} masks, {', '.join(mask.name for mask in partners)}: keep one"
                )
            unpaired.append(LeftOut(file, reason))
    for key, files in masks_of.items():
        if key not in photos_of:
            unusable = [f": {path.name} is not used ({reason_of[path]})" for path in left_out_of.get(key, [])]
            unpaired += [
                LeftOut(
                    file, f"mask {file.relative_to(place / 'masks').as_posix()} has no photo{''.join(unusable[:1])}"
                )
                for file in files
            ]
    return tuple(pairs), tuple(unpaired), photos.left_out + masks.left_out


def _collect(directory: Path) -> Collection:
    """The images of a directory; none if it does not exist."""
    if not directory.is_dir():
        return Collection(())
    try:
        return collect(directory, unique=False)  # several photos may have one mask, through links
    except OSError as error:
        raise DataError(f"cannot read {directory}: {error.strerror or error}") from error


def _by_key(files: Iterable[Path], directory: Path) -> dict[str, list[Path]]:
    """Files by their path below a directory, without the suffix."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.relative_to(directory).with_suffix("").as_posix(), []).append(file)
    return groups


def read_classes(path: Path) -> tuple[LabelClass, ...]:
    """Read ``classes.json``.

    Raises:
        DataError: the file cannot be read or has another form, an id is used twice, or the list is empty.
    """
    try:
        entries = parse_json(path)
        if not isinstance(entries, list):
            raise ValueError("it is not a list")
        classes = tuple(_class_of(entry) for entry in entries)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}. Expected {_EXAMPLE}") from error
    ids = [entry.id for entry in classes]
    if not classes:
        raise DataError(f"{path} is empty: list at least one class, as in {_EXAMPLE}")
    if repeated := sorted({label for label in ids if ids.count(label) > 1}):
        raise DataError(f"{path} lists the id {repeated[0]} more than once: give each class its own id")
    colours = [entry.colour for entry in classes if entry.colour is not None]
    if twice := [colour for colour in colours if colours.count(colour) > 1]:
        hexadecimal = "#{:02x}{:02x}{:02x}".format(*twice[0])
        raise DataError(f'{path} has the color {hexadecimal} more than once: give each class its own, or omit "color"')
    return classes


def _class_of(entry: Any) -> LabelClass:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"{entry!r} is not a class with an id and a name")
    label = entry.get("id")
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= MAX_ID:
        raise ValueError(f"the id of {entry['name']!r} is {label!r}: expected a whole number from 0 to {MAX_ID}")
    for key in ("isthing", "seen"):
        if entry.get(key) not in (None, False, True):
            raise ValueError(f"{key!r} of {entry['name']!r} is {entry[key]!r}: expected true, false or null")
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
    raise ValueError(f'the color of {entry["name"]!r} is {value!r}: expected "#rrggbb", or [r, g, b] of 0 to 255')


def read_mask(path: Path, colours: Colours | None = None) -> np.ndarray:
    """Read the class ids of the pixels of a photo: ``images.id_maps.read_id_map``, with errors of a data set.

    Args:
        path: the file.
        colours: the colours of ids, for masks in colour.

    Returns:
        (H, W) uint8 or uint16; or int32, with ``UNLISTED_COLOUR`` (-1) for a colour that is not among ``colours``.

    Raises:
        DataError: the file cannot be read, or does not store ids.
    """
    try:
        return read_id_map(path, colours)
    except ImageError as error:
        raise DataError(str(error)) from error

"""A data set as a folder: photos, a class id for every pixel, and a list of classes.

    images/*.jpg|jpeg|png    masks/*.png (one 8- or 16-bit id per pixel)    classes.json

``classes.json`` is ``[{"id": 1, "name": "person", "isthing": true}, ...]``; a class may also say whether it is
``"seen"`` in zero-shot training. A data set with splits has a folder with images and masks for each (``train/``,
``val/``), and the list may be in the folder above. Pixels whose id is not listed are ignored; that includes 0 and 255,
unless they are listed. ``check.py`` reads every file; ``prepare.py`` makes such folders from the public data sets.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import DataError
from deop.files import parse_json
from deop.images.reading import MAX_PIXELS, no_pixel_limit

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_ID = 65535  # masks have at most 16 bits

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
    """

    id: int
    name: str
    isthing: bool | None = None
    seen: bool | None = None


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
        pairs: photos and masks, sorted by file name.
        unpaired: files that are left out, because they have no partner or more than one.
    """

    root: Path
    classes: tuple[LabelClass, ...]
    pairs: tuple[Pair, ...]
    unpaired: tuple[Path, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The K names, in the order of ``classes``."""
        return tuple(entry.name for entry in self.classes)

    def labels(self, pair: Pair) -> np.ndarray:
        """The true class of every pixel of a photo.

        Returns:
            (H, W) int32: index into ``classes``, or -1 for a pixel to ignore.

        Raises:
            DataError: a mask that cannot be read, has another format, or has another size than its photo.
        """
        ids = read_mask(pair.mask)
        size = photo_size(pair.photo)
        if ids.shape != size:
            raise DataError(
                f"{pair.mask} is {ids.shape[1]} x {ids.shape[0]}, its photo {pair.photo.name} {size[1]} x {size[0]}"
            )
        index_of_id = np.full(MAX_ID + 1, -1, np.int32)
        for index, entry in enumerate(self.classes):
            index_of_id[entry.id] = index
        return index_of_id[ids]


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
            image = Image.open(path)
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
        transposed = photo.getexif().get(_EXIF_ORIENTATION, 1) >= 5
        return (photo.width, photo.height) if transposed else (photo.height, photo.width)


def splits_of(folder: str | Path) -> tuple[str | None, ...]:
    """The names of the splits of a data set; (None,) if it has no splits."""
    root = Path(folder)
    if (root / "images").is_dir():
        return (None,)
    return tuple(sorted(path.parent.name for path in root.glob("*/images"))) or (None,)


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
    pairs, unpaired = _find_pairs(place)
    if unpaired and not skip_unpaired:
        more = f", and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
        raise DataError(
            f"{place}: {describe_unpaired(unpaired[0])}{more}; `deop prepare check {root}` lists all, and "
            "--skip-broken (skip_unpaired=True in Python) leaves them out"
        )
    if not pairs:
        raise DataError(f"no photos in {place / 'images'}: expected {', '.join(PHOTO_SUFFIXES)}")
    return LabelledFolder(place, read_classes(listing), pairs, unpaired)


def _find_pairs(place: Path) -> tuple[tuple[Pair, ...], tuple[Path, ...]]:
    """Photos and masks with the same stem, and the files without exactly one partner."""
    photos: dict[str, list[Path]] = {}
    for path in sorted((place / "images").iterdir()):
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
            photos.setdefault(path.stem, []).append(path)
    masks = {path.stem: path for path in sorted((place / "masks").glob("*.png")) if not path.name.startswith(".")}
    pairs = tuple(Pair(paths[0], masks[stem]) for stem, paths in photos.items() if stem in masks and len(paths) == 1)
    paired = {pair.photo.stem for pair in pairs}
    unpaired = [path for stem, paths in photos.items() if stem not in paired for path in paths]
    unpaired += [path for stem, path in masks.items() if stem not in photos]
    return pairs, tuple(unpaired)


def describe_unpaired(path: Path) -> str:
    """Why a file of ``LabelledFolder.unpaired`` is left out."""
    if path.parent.name == "masks":
        return f"mask {path.name} has no photo"
    if (path.parent.parent / "masks" / f"{path.stem}.png").exists():
        return f"photo {path.name} shares its name with another photo, and there is one mask for both: rename one"
    return f"photo {path.name} has no mask"


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
    return LabelClass(label, entry["name"], isthing, seen)


def read_mask(path: Path) -> np.ndarray:
    """Read the class ids of the pixels of a photo.

    Returns:
        (H, W) uint8 or uint16.

    Raises:
        DataError: the file is not a grey or palette image of 8 or 16 bits.
    """
    with opening_image(path, "mask") as image:
        if image.mode not in ("L", "P", "I;16", "I"):
            raise DataError(
                f"the mask {path} has mode {image.mode}: expected one 8- or 16-bit id per pixel (grey or palette PNG)"
            )
        ids = np.asarray(image)
    if ids.dtype == np.uint8:
        return ids
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_ID:
        raise DataError(f"the mask {path} has ids from {ids.min()} to {ids.max()}: expected 0 to {MAX_ID}")
    return ids.astype(np.uint16)

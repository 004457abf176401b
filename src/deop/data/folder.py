"""A data set as a folder: photos, a class id for each of their pixels, and a list of classes.

    images/*.jpg|png    masks/*.png (one 8- or 16-bit id a pixel)    classes.json

The list is ``[{"id": 1, "name": "person", "isthing": true}, ...]``; a class may also say whether it is ``"seen"`` in
zero-shot training. Where there are splits, each is a folder of its own below (``train/``, ``val/``) with images and
masks, and the list may lie above. Ids that are not listed are ignored, 0 and 255 with them. ``check.py`` looks at every
file; ``prepare.py`` makes such folders of the public data sets.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from deop.errors import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class LabelClass:
    """One class of a data set."""

    id: int
    name: str  # may hold synonyms, "sofa|couch"
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

    ``unpaired`` are the files that were left out since they have no partner, or more than one.
    """

    root: Path
    classes: tuple[LabelClass, ...]
    pairs: tuple[Pair, ...]
    unpaired: tuple[Path, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The K names, in the order of the list."""
        return tuple(entry.name for entry in self.classes)

    def labels(self, pair: Pair) -> np.ndarray:
        """The truth of a photo.

        Returns:
            (H, W) int32, index into ``classes``, -1 where the pixel is to be ignored.

        Raises:
            DataError: a mask that cannot be read, of another form, or of another size than its photo.
        """
        ids = read_mask(pair.mask)
        size = photo_size(pair.photo)
        if ids.shape != size:
            raise DataError(
                f"{pair.mask} is {ids.shape[1]} x {ids.shape[0]}, its photo {pair.photo.name} {size[1]} x {size[0]}"
            )
        index = np.full(max(int(ids.max()), max(entry.id for entry in self.classes)) + 1, -1, np.int32)
        for number, entry in enumerate(self.classes):
            index[entry.id] = number
        return index[ids]


def photo_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of a photo set upright, from its header.

    Raises:
        DataError: no photo.
    """
    try:
        with Image.open(path) as photo:
            size = (photo.height, photo.width)
            return size[::-1] if photo.getexif().get(0x0112, 1) >= 5 else size  # turned on its side
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"cannot read the photo {path}: {error}") from error


def splits_of(folder: str | Path) -> tuple[str | None, ...]:
    """The splits of a data set, by name; (None,) where it has none."""
    root = Path(folder)
    if (root / "images").is_dir():
        return (None,)
    return tuple(sorted(path.parent.name for path in root.glob("*/images"))) or (None,)


def open_folder(folder: str | Path, split: str | None = None, *, skip_unpaired: bool = False) -> LabelledFolder:
    """Find the photos of a data set.

    Args:
        folder: the data set.
        split: "val", "train", ...; None: "val" where the folder has splits, else all of it.
        skip_unpaired: leave out photos without a mask and masks without a photo, instead of refusing.

    Raises:
        DataError: no such folder or split, no list of classes, a photo without a mask or a mask without a photo.
    """
    root = Path(folder)
    place = root
    if not (root / "images").is_dir():
        place = root / (split or "val")
        if not (place / "images").is_dir():
            splits = [name for name in splits_of(root) if name]
            found = f"it has the splits {', '.join(splits)}" if splits else "it has neither images/ nor splits"
            raise DataError(f"no photos in {place}: {found}")
    elif split not in (None, "all"):
        raise DataError(f"{root} has no splits, so none named {split!r}")
    listing = next((path for path in (place / "classes.json", root / "classes.json") if path.is_file()), None)
    if listing is None:
        raise DataError(f'{root} has no classes.json: expected [{{"id": 1, "name": "person", "isthing": true}}, ...]')
    pairs, unpaired = _pairs(place)
    if unpaired and not skip_unpaired:
        more = f", and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
        raise DataError(
            f"{place}: {what_is_missing(unpaired[0])}{more}; `deop prepare check {root}` lists them, "
            "--skip-broken (skip_unpaired=True in Python) leaves them out"
        )
    if not pairs:
        raise DataError(f"no photos in {place / 'images'}: expected .jpg or .png")
    return LabelledFolder(place, read_classes(listing), pairs, unpaired)


def _pairs(place: Path) -> tuple[tuple[Pair, ...], tuple[Path, ...]]:
    """What belongs together, by stem, and what does not."""
    photos: dict[str, list[Path]] = {}
    for path in sorted((place / "images").iterdir()):
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
            photos.setdefault(path.stem, []).append(path)
    masks = {path.stem: path for path in sorted((place / "masks").glob("*.png")) if not path.name.startswith(".")}
    pairs = tuple(Pair(found[0], masks[stem]) for stem, found in photos.items() if stem in masks and len(found) == 1)
    paired = {pair.photo.stem for pair in pairs}
    unpaired = [path for stem, found in photos.items() if stem not in paired for path in found]
    unpaired += [path for stem, path in masks.items() if stem not in photos]
    return pairs, tuple(unpaired)


def what_is_missing(unpaired: Path) -> str:
    """What is wrong with a file that has no partner, in words."""
    if unpaired.parent.name == "masks":
        return f"mask {unpaired.name} has no photo"
    if (unpaired.parent.parent / "masks" / f"{unpaired.stem}.png").exists():
        return f"photo {unpaired.name} has a namesake of another format: one mask cannot serve both"
    return f"photo {unpaired.name} has no mask"


def read_classes(path: Path) -> tuple[LabelClass, ...]:
    """The list of classes.

    Raises:
        DataError: not the form above, an id twice, or none at all.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(
            LabelClass(int(entry["id"]), str(entry["name"]), entry.get("isthing"), entry.get("seen"))
            for entry in entries
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f'cannot read {path}: {error!r}. Expected [{{"id": 1, "name": "person", "isthing": true}}, ...]'
        ) from error
    ids = [entry.id for entry in classes]
    if not classes or len(set(ids)) < len(ids) or min(ids) < 0:
        raise DataError(f"{path}: ids must be 0 or more, each listed once, and there must be some")
    return classes


def read_mask(path: Path) -> np.ndarray:
    """The class ids of a photo's pixels, (H, W) of an unsigned type.

    Raises:
        DataError: not a readable grey or palette PNG of 8 or 16 bits.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "P", "I;16", "I"):
                raise DataError(f"{path} is a picture of mode {picture.mode}: a mask has one 8- or 16-bit id a pixel")
            ids = np.asarray(picture)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"cannot read the mask {path}: {error}") from error
    return ids.astype(np.uint16) if ids.dtype != np.uint8 else ids

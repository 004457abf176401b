"""A data set as a folder: photos, a class id for every pixel, and a list of classes.

    images/*.jpg|png|...    masks/*.png|tif|... (one id of up to 16 bits per pixel)    classes.json

``classes.json`` is ``[{"id": 1, "name": "person", "isthing": true}, ...]``; a class may also say whether it is
``"seen"`` in zero-shot training, and the ``"color"`` of its pixels, for masks in colour. Photos and masks have the same
path below ``images/`` and ``masks/``, except for the suffix; ``images.collection`` says which files count. A data set
with splits has a folder with images and masks for each (``train/``, ``val/``), and the list may be in the folder above.
Pixels whose id is not listed are ignored; that includes 0 and 255, unless they are listed. ``check.py`` reads every
file; ``prepare.py`` makes such folders from the public data sets.
"""

from collections.abc import Iterable
from pathlib import Path

from deop.data.labelled import EXAMPLE, LabelledData, Pair, check_pairs, read_classes
from deop.errors import DataError
from deop.images.collection import Collection, LeftOut, collect


def splits_of(folder: str | Path) -> tuple[str | None, ...]:
    """The names of the splits of a data set; (None,) if it has no splits."""
    root = Path(folder)
    if (root / "images").is_dir():
        return (None,)
    names = sorted(path.parent.name for path in root.glob("*/images") if path.is_dir())
    return tuple(name for name in names if not name.startswith(".")) or (None,)


def open_folder(
    folder: str | Path,
    split: str | None = None,
    *,
    default: str = "val",
    skip_unpaired: bool = False,
    classes: str | Path | None = None,
) -> LabelledData:
    """Find the photos, masks and classes of a data set. No photo or mask is read.

    Args:
        folder: the data set.
        split: "train", "val", ...; None: ``default`` if the data set has splits, else all photos.
        default: the split that is used if none is given.
        skip_unpaired: leave out photos without a mask and masks without a photo, instead of raising an error.
        classes: the list of classes; None: ``classes.json`` in the folder of the split, or in the one above.

    Returns:
        The photos of the split.

    Raises:
        DataError: no such folder or split, no valid list of classes, a photo without a mask or a mask without a photo.
    """
    root = Path(folder)
    place = root
    if not (root / "images").is_dir():
        place = root / (split or default)
        if not (place / "images").is_dir():
            splits = [name for name in splits_of(root) if name]
            present = f"it has the splits {', '.join(splits)}" if splits else "it has neither images/ nor splits"
            raise DataError(f"no photos in {place}: {present}")
    elif split not in (None, "all"):
        raise DataError(f"{root} has no splits, so no split {split!r}: omit the split")
    listing = next((path for path in (place / "classes.json", root / "classes.json") if path.is_file()), None)
    if classes is None and listing is None:
        raise DataError(f"{root} has no classes.json: expected {EXAMPLE}")
    pairs, unpaired, left_out = _find_pairs(place)
    check_pairs(place, pairs, unpaired, left_out, skip_unpaired=skip_unpaired, command=[str(root)])
    return LabelledData(place, read_classes(Path(classes or listing or "")), pairs, unpaired, left_out)


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
            pairs.append(Pair(files[0], partners[0], key))
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

"""Converting a public data set, as its authors publish it, to the folder format of ``folder.py``.

In prepared masks, the id of a class is its position in the official list, counted from 1; in panoptic data it is the
category id. 0 marks pixels of none of the classes, and 255 pixels that are not labelled. In 16-bit masks, where 255 may
be a class, 0 marks both. Photos are linked, not copied. The official files are only read.
"""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deop._version import __version__
from deop.data.conversion import INVALID, convert_all, link_or_copy
from deop.data.label_files import check_readers
from deop.data.official import PUBLIC_SETS, Item, PublicSet, RequiredPart, read_panoptic
from deop.errors import DataError, OutputError, SettingError
from deop.files import parse_json, replacing, resolved
from deop.images.id_maps import MAX_ID
from deop.text.class_lists import OfficialClass, official_classes, source_of

RECEIPT = "prepared.json"
"""Name of the file in a prepared folder that records which data set it is."""


@dataclass(frozen=True)
class Prepared:
    """The result of ``prepare``.

    Attributes:
        folder: the prepared data set.
        photos: number of photos in each split.
        written: number of masks written by this call; the others existed.
        left_out: for each official file that could not be used, the reason.
    """

    folder: Path
    photos: dict[str, int]
    written: int
    left_out: tuple[str, ...]


def public_set(name: str) -> PublicSet:
    """The public data set of a name.

    Raises:
        SettingError: an unknown name.
    """
    if name not in PUBLIC_SETS:
        raise SettingError(f"unknown data set {name!r}: choose one of {', '.join(PUBLIC_SETS)}")
    return PUBLIC_SETS[name]


def missing(name: str, source: str | Path, splits: Sequence[str] | None = None) -> tuple[RequiredPart, ...]:
    """The parts of the official layout that are missing below a folder, without repetitions.

    Args:
        name: name of the data set.
        source: folder with the unpacked official files.
        splits: splits to look for; None: all.
    """
    public, root = public_set(name), Path(source)
    parts = [part for split in splits or public.splits for part in public.required(split).values()]
    return tuple(part for part in dict.fromkeys(parts) if part.find(root) is None)


def prepare(
    name: str,
    source: str | Path,
    out: str | Path,
    *,
    splits: Sequence[str] | None = None,
    names: str = "authors",
    partial: bool = False,
    skip_broken: bool = False,
    copy: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Convert a public data set to a labelled folder. After an interruption, the same call resumes.

    Args:
        name: name of the data set.
        source: folder with the unpacked official files, which stay unchanged.
        out: the folder to write.
        splits: splits to prepare; None: all.
        names: "authors": names as papers spell them; "plain": ordinary words with synonyms.
        partial: accept fewer photos than published.
        skip_broken: leave out official files that cannot be read, instead of raising an error.
        copy: copy photos instead of linking them.
        workers: number of processes.
        progress: called after each photo with the number of photos done and the number of all photos.

    Returns:
        Where the data set is, and how many photos it has.

    Raises:
        DataError: official files are missing or damaged, or their number differs from the published one.
        SettingError: an unknown data set, split or spelling; ``out`` is inside ``source`` or contains something else.
        OutputError: ``out`` cannot be written.
        MissingDependencyError: a library that reads the label files is not installed.
    """
    public, root, folder = public_set(name), Path(source), Path(out)
    chosen = tuple(splits or public.splits)
    if unknown := sorted(set(chosen) - set(public.splits)):
        raise SettingError(f"{name} has no split {', '.join(unknown)}: choose from {', '.join(public.splits)}")
    if names not in ("authors", "plain"):
        raise SettingError(f"unknown spelling {names!r}: choose authors or plain")
    _check_folders(root, folder)
    _check_parts(public, root, chosen)
    items = {split: _items(public, root, split, partial) for split in chosen}
    check_readers({item.form for split in chosen for item in items[split]})
    classes = _classes(public, root, chosen)
    _write_head(folder, public, classes, names)
    jobs = [(item, folder / split) for split in chosen for item in items[split]]
    written, left_out = convert_all(jobs, _id_table(public, classes), copy, workers, progress)
    if left_out and not skip_broken:
        more = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        raise DataError(
            f"{left_out[0]}{more}. Unpack the official files again, or leave such files out: --skip-broken "
            "(skip_broken=True in Python)"
        )
    if public.items is PUBLIC_SETS["panoptic"].items:
        for split in chosen:
            link_or_copy(_places(public, root, split)["listing"], folder / split / "panoptic.json", copy)
    counts = {split: len(items[split]) - _count_incomplete(folder / split, items[split]) for split in chosen}
    lost = sum(map(len, items.values())) - sum(counts.values()) - len(left_out)
    if lost:
        raise OutputError(f"{folder} lacks {lost} photos or masks that were written: run the same command again")
    _add_counts(folder, counts)
    return Prepared(folder, counts, written, tuple(left_out))


def _check_folders(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise DataError(f"there is no folder {source}: give the folder with the unpacked official files")
    if resolved(out).is_relative_to(resolved(source)):
        raise SettingError(f"{out} is inside {source}, which is never changed: choose another folder with --out")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECEIPT).is_file())):
        raise SettingError(f"{out} exists and is not a prepared data set: choose another folder with --out")


def _check_parts(public: PublicSet, root: Path, splits: Sequence[str]) -> None:
    if parts := missing(public.name, root, splits):
        lines = [f"  {part.paths[0]}  from {part.source.name}, {part.source.url}" for part in parts]
        raise DataError(f"{public.name} is not complete in {root}. Unpack there what is missing:\n" + "\n".join(lines))


def _places(public: PublicSet, root: Path, split: str) -> dict[str, Path]:
    return {key: path for key, part in public.required(split).items() if (path := part.find(root)) is not None}


def _items(public: PublicSet, root: Path, split: str, partial: bool) -> list[Item]:
    """The complete items of a split; unless ``partial``, their number must be the published one."""
    items = public.items(_places(public, root, split), split)
    absent = [path for item in items for path in (item.photo, item.labels) if not path.is_file()]
    complete = [item for item in items if item.photo.is_file() and item.labels.is_file()]
    published = public.photos.get(split, len(items))
    if not partial and (absent or len(complete) != published):
        reason = f"; {absent[0]} is missing" if absent else ""
        reason += f", and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(
            f"{public.name} {split}: {len(complete)} photos with labels, and {published} are published"
            f"{reason}. Unpack the official files again, or accept fewer photos with --partial"
        )
    if not complete:
        raise DataError(f"{public.name} {split}: no photo with labels in {root}. Unpack the official files again")
    if len({item.stem for item in complete}) < len(complete):
        raise DataError(f"{public.name} {split}: two photos in {root} have the same name. Rename one")
    return complete


def _classes(public: PublicSet, root: Path, splits: Sequence[str]) -> tuple[OfficialClass, ...]:
    if public.classes:
        return official_classes(public.classes)
    lists = [read_panoptic(_places(public, root, split)["listing"])["categories"] for split in splits]
    try:
        classes = [
            tuple(
                OfficialClass(entry["id"], entry["id"], str(entry["name"]), isthing=bool(entry["isthing"]))
                for entry in entries
            )
            for entries in lists
        ]
        ids = [entry.id for entry in classes[0]]
        if any(type(label) is not int for entries in classes for label in (entry.id for entry in entries)):
            raise ValueError("ids must be whole numbers")
        if not ids or len(set(ids)) < len(ids) or not 0 <= min(ids) <= max(ids) <= MAX_ID:
            raise ValueError(f"ids must be different numbers from 0 to {MAX_ID}")
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"the categories of {root} do not have COCO's panoptic format: {error!r}") from error
    if len(set(classes)) > 1:
        raise DataError(f"the splits of {root} list different categories: use the same list in all of them")
    return classes[0]


def _id_table(public: PublicSet, classes: Sequence[OfficialClass]) -> np.ndarray:
    """(65536,) int32: official value -> id in prepared masks, -1 for values that do not exist."""
    wide = _needs_16_bits(classes)
    table = np.full(MAX_ID + 1, INVALID if public.unlisted is None else 0 if wide else public.unlisted, np.int32)
    for value, label in public.special:
        table[value] = 0 if wide else label
    for entry in classes:
        table[entry.official] = entry.id
    return table


def _needs_16_bits(classes: Sequence[OfficialClass]) -> bool:
    return max(entry.id for entry in classes) > 254


def _write_head(folder: Path, public: PublicSet, classes: Sequence[OfficialClass], names: str) -> None:
    """Write classes.json and the receipt, or compare them with those of an earlier call."""
    listing = []
    for entry in classes:
        row: dict[str, Any] = {"id": entry.id, "name": entry.plain or entry.name if names == "plain" else entry.name}
        row |= {"isthing": entry.isthing} if entry.isthing is not None else {}
        row |= {"seen": entry.seen} if public.zero_shot and entry.seen is not None else {}
        listing.append(row)
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in listing) + "\n]\n"
    receipt = folder / RECEIPT
    if receipt.is_file():
        earlier = _read_receipt(folder)
        if earlier.get("data_set") != public.name or _read_text(folder / "classes.json") != text:
            raise SettingError(
                f"{folder} contains {earlier.get('data_set')}, or other classes or spellings: choose another folder"
            )
        for leftover in folder.glob("*/*/.*.part"):  # of a call that was killed
            with suppress(OSError):
                leftover.unlink()
        return
    facts = {
        "data_set": public.name,
        "title": public.title,
        "classes": source_of(public.classes) if public.classes else "the categories of the official files",
        "names": names,
        "deop": __version__,
        "photos": {},
    }
    _write(folder / "classes.json", text)
    if public.zero_shot:
        _write(folder / "unseen.txt", "".join(f"{row['name']}\n" for row in listing if row.get("seen") is False))
    _write(receipt, json.dumps(facts, indent=2) + "\n")


def _add_counts(folder: Path, counts: dict[str, int]) -> None:
    facts = _read_receipt(folder)
    facts["photos"] = facts["photos"] | counts
    _write(folder / RECEIPT, json.dumps(facts, indent=2) + "\n")


def _read_receipt(folder: Path) -> dict[str, Any]:
    try:
        facts = parse_json(folder / RECEIPT)
        if not isinstance(facts, dict) or not isinstance(facts.setdefault("photos", {}), dict):
            raise ValueError("it is not a record of a prepared data set")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / RECEIPT}: {error}. Remove {folder} and prepare it again.") from error
    return facts


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}. Remove {path.parent} and prepare it again.") from error


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _count_incomplete(place: Path, items: Collection[Item]) -> int:
    """The number of items without a photo or without a mask in a prepared split."""
    masks = {path.stem for path in (place / "masks").glob("*.png") if not path.name.startswith(".")}
    photos = {path.stem for path in (place / "images").iterdir()} if (place / "images").is_dir() else set()
    return sum(item.stem not in masks or item.stem not in photos for item in items)

"""A public data set, as its authors publish it, into the folder format.

In a prepared mask the number of a class is its place in the official list, from 1 (of panoptic data: its category id);
0 is a pixel of none of the classes, 255 one that is not labelled (in masks of 16 bits both are 0). Photos are linked,
not copied; the official files are only read.
"""

import functools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop._version import __version__
from deop.data.class_lists import OfficialClass, official_classes, source_of
from deop.data.folder import photo_size
from deop.data.label_files import read_labels
from deop.data.official import PUBLIC_SETS, Item, Needed, PublicSet, read_panoptic
from deop.errors import DataError, OutputError, SettingError
from deop.files import replacing

RECEIPT = "prepared.json"
_NOTHING = -1


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes:
        folder: the data set.
        photos: of each split.
        made: masks written this time; the others were there.
        left_out: official files that could not be used, with the reason.
    """

    folder: Path
    photos: dict[str, int]
    made: int
    left_out: tuple[str, ...]


def public_set(name: str) -> PublicSet:
    """A public data set by its name.

    Raises:
        SettingError: unknown.
    """
    if name not in PUBLIC_SETS:
        raise SettingError(f"unknown data set {name!r}: choose one of {', '.join(PUBLIC_SETS)}")
    return PUBLIC_SETS[name]


def missing(name: str, source: str | Path, splits: Sequence[str] | None = None) -> tuple[Needed, ...]:
    """The parts of the official layout that are not below a folder, each once."""
    public, root = public_set(name), Path(source)
    parts = [part for split in splits or public.splits for part in public.needed(split).values()]
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
    """Make a labelled folder of a public data set. What an interrupted run has made is kept.

    Args:
        name: of the data set.
        source: where the official files are unpacked. Nothing is written there.
        out: the folder to make.
        splits: those wanted; None: all.
        names: "authors", the spellings that papers ask for, or "plain", words with synonyms.
        partial: go on where photos are fewer than published, with what is there.
        skip_broken: leave out official files that cannot be read, instead of refusing.
        copy: copy photos, instead of linking them.
        workers: processes.
        progress: called with photos done and photos in all.

    Raises:
        DataError: official files are missing, damaged, or of another number than published.
        SettingError: an unknown data set or split; ``out`` within ``source``, or holding something else.
    """
    public, root, folder = public_set(name), Path(source), Path(out)
    wanted = tuple(splits or public.splits)
    if strange := sorted(set(wanted) - set(public.splits)):
        raise SettingError(f"{name} has no split {', '.join(strange)}: choose of {', '.join(public.splits)}")
    if names not in ("authors", "plain"):
        raise SettingError(f"unknown spellings {names!r}: choose authors or plain")
    _check_places(root, folder)
    _check_parts(public, root, wanted)
    items = {split: _items(public, root, split, partial) for split in wanted}
    classes = _classes(public, root, wanted)
    _begin(folder, public, classes, names)
    jobs = [(item, folder / split) for split in wanted for item in items[split]]
    made, left_out = _convert_all(jobs, _table(public, classes), copy, workers, progress)
    if left_out and not skip_broken:
        more = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        raise DataError(f"{left_out[0]}{more}. Unpack them again; skip_broken=True leaves them out")
    if public.items is PUBLIC_SETS["panoptic"].items:
        for split in wanted:
            _put(_places(public, root, split)["listing"], folder / split / "panoptic.json", copy)
    counts = {split: len(items[split]) - _count_lost(folder / split, items[split]) for split in wanted}
    lost = sum(map(len, items.values())) - sum(counts.values())
    if lost != len(left_out):
        raise OutputError(f"{folder} lacks {lost - len(left_out)} photos or masks that were written: run it again")
    _end(folder, counts)
    return Prepared(folder, counts, made, tuple(left_out))


def _check_places(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise DataError(f"no folder {source}: name the one where the official files are unpacked")
    if out.resolve().is_relative_to(source.resolve()):
        raise SettingError(f"{out} lies within {source}, where nothing is written: choose another place with --out")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECEIPT).is_file())):
        raise SettingError(f"{out} holds something else: choose another place with --out")


def _check_parts(public: PublicSet, root: Path, splits: Sequence[str]) -> None:
    if lacking := missing(public.name, root, splits):
        lines = [f"  {part.paths[0]}  from {part.source.name}, {part.source.url}" for part in lacking]
        raise DataError(f"{public.name} is not complete in {root}. Missing:\n" + "\n".join(lines))


def _places(public: PublicSet, root: Path, split: str) -> dict[str, Path]:
    return {word: path for word, part in public.needed(split).items() if (path := part.find(root)) is not None}


def _items(public: PublicSet, root: Path, split: str, partial: bool) -> list[Item]:
    """The photos of a split, once their number has been compared with the published one."""
    found = public.items(_places(public, root, split), split)
    lonely = [path for item in found for path in (item.photo, item.labels) if not path.is_file()]
    whole = [item for item in found if item.photo.is_file() and item.labels.is_file()]
    published = public.photos.get(split, len(found))
    if not partial and (lonely or len(whole) != published):
        reason = f"; {lonely[0]} is missing" if lonely else ""
        reason += f", and {len(lonely) - 1} more" if len(lonely) > 1 else ""
        raise DataError(
            f"{public.name} {split}: {len(whole)} photos with labels where {published} are published"
            f"{reason}. Unpack the official files again, or go on with what is there: --partial"
        )
    if not whole:
        raise DataError(f"{public.name} {split}: no photo with labels in {root}")
    if len({item.stem for item in whole}) < len(whole):
        raise DataError(f"{public.name} {split}: two photos of {root} have the same name")
    return whole


def _classes(public: PublicSet, root: Path, splits: Sequence[str]) -> tuple[OfficialClass, ...]:
    if public.classes:
        return official_classes(public.classes)
    lists = [read_panoptic(_places(public, root, split)["listing"])["categories"] for split in splits]
    try:
        found = [
            tuple(
                OfficialClass(int(entry["id"]), int(entry["id"]), str(entry["name"]), isthing=bool(entry["isthing"]))
                for entry in entries
            )
            for entries in lists
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"the categories of {root} are not of COCO's panoptic form: {error!r}") from error
    if len(set(found)) > 1:
        raise DataError(f"the splits of {root} list different categories")
    return found[0]


def _table(public: PublicSet, classes: Sequence[OfficialClass]) -> np.ndarray:
    """(65536,) int32: official value -> id in the mask, -1 where there is no such value."""
    wide = _is_wide(classes)
    table = np.full(1 << 16, _NOTHING if public.rest is None else 0 if wide else public.rest, np.int32)
    for value, label in public.values:
        table[value] = 0 if wide else label
    for entry in classes:
        table[entry.official] = entry.id
    return table


def _is_wide(classes: Sequence[OfficialClass]) -> bool:
    return max(entry.id for entry in classes) > 254


def _begin(folder: Path, public: PublicSet, classes: Sequence[OfficialClass], names: str) -> None:
    """Write what the folder is, or compare with what an earlier run wrote."""
    listing = []
    for entry in classes:
        row: dict[str, Any] = {"id": entry.id, "name": entry.plain or entry.name if names == "plain" else entry.name}
        row |= {"isthing": entry.isthing} if entry.isthing is not None else {}
        row |= {"seen": entry.seen} if public.zero_shot and entry.seen is not None else {}
        listing.append(row)
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in listing) + "\n]\n"
    receipt = folder / RECEIPT
    if receipt.is_file():
        earlier = _receipt(folder)
        same = earlier.get("data_set") == public.name
        if not same or (folder / "classes.json").read_text(encoding="utf-8") != text:
            raise SettingError(
                f"{folder} holds {earlier.get('data_set')}, with other classes or spellings: choose another place"
            )
        for left in folder.glob("*/*/.*.part"):  # of a run that was killed
            with suppress(OSError):
                left.unlink()
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


def _end(folder: Path, counts: dict[str, int]) -> None:
    facts = _receipt(folder)
    facts["photos"] = facts.get("photos", {}) | counts
    _write(folder / RECEIPT, json.dumps(facts, indent=2) + "\n")


def _receipt(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / RECEIPT}: {error}. Remove {folder} and prepare it again.") from error
    return facts


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _convert_all(
    jobs: Sequence[tuple[Item, Path]],
    table: np.ndarray,
    copy: bool,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, list[str]]:
    """Masks written, and what is wrong with the files that were not."""
    made, left_out = 0, []
    with _mapping(min(workers, len(jobs))) as run:
        for done, answer in enumerate(run(_convert, jobs, repeat(table), repeat(copy))):
            made += answer is True
            if isinstance(answer, str):
                left_out.append(answer)
            if progress:
                progress(done + 1, len(jobs))
    return made, left_out


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[bool | str]]]:
    """``map``, in this process or in several."""
    if workers <= 1:
        yield map
        return
    # spawn: a fork of a process with threads (torch's) may hang
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield functools.partial(pool.map, chunksize=16)  # a chunk is sent with one copy of the table
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _convert(job: tuple[Item, Path], table: np.ndarray, copy: bool) -> bool | str:
    """Put a photo and its mask in their place; False where they are there, a text where they cannot be used."""
    item, place = job
    photo = place / "images" / f"{item.stem}{item.photo.suffix.lower()}"
    mask = place / "masks" / f"{item.stem}.png"
    panoptic = place / "panoptic" / f"{item.stem}.png" if item.form == "panoptic" else None
    if mask.exists() and photo.exists() and (panoptic is None or panoptic.exists()):
        return False
    try:
        ids = _ids(item, table)
    except DataError as error:
        return str(error)
    _put(item.photo, photo, copy)
    if panoptic is not None:
        _put(item.labels, panoptic, copy)
    with replacing(mask) as file:  # last: a mask says that all is there
        Image.fromarray(ids).save(file, "PNG")
    return True


def _ids(item: Item, table: np.ndarray) -> np.ndarray:
    values = read_labels(item)
    size = photo_size(item.photo)
    if values.shape != size:
        raise DataError(f"{item.labels} is {values.shape[1]} x {values.shape[0]}, its photo {size[1]} x {size[0]}")
    ids = table[values]
    if (ids == _NOTHING).any():
        raise DataError(f"{item.labels} holds the value {values[ids == _NOTHING][0]}, which its data set does not have")
    return ids.astype(np.uint16 if table.max() > 255 else np.uint8)


def _put(source: Path, target: Path, copy: bool) -> None:
    """Link a file, or copy it where links cannot be made. A link by name: the source is not touched at all."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        for link in (os.symlink, os.link):
            with suppress(OSError):
                target.unlink(missing_ok=True)  # a link to what is gone
                link(source.resolve(), target)
                return
    with replacing(target) as file, source.open("rb") as official:
        shutil.copyfileobj(official, file)


def _count_lost(place: Path, items: Collection[Item]) -> int:
    """How many items have no photo or no mask in their place."""
    masks = {path.stem for path in (place / "masks").glob("*.png")}
    photos = {path.stem for path in (place / "images").iterdir()} if (place / "images").is_dir() else set()
    return sum(item.stem not in masks or item.stem not in photos for item in items)

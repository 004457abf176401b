"""Looking at every file of a labelled folder before any of them is needed, and keeping what was found."""

import hashlib
import json
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from deop.data.folder import LabelledFolder, Pair, photo_size, read_mask, what_is_missing
from deop.errors import DataError, DeopError, ImageError
from deop.files import replacing
from deop.images.reading import read_photo
from deop.text.embedding_cache import default_cache_folder

IGNORED = (0, 255)
"""Ids that need not be listed."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a file.

    Attributes:
        kind: "unpaired", "broken photo", "broken mask", "size" or "unlisted id".
        file: below the folder of the split.
        detail: what is wrong, in words.
    """

    kind: str
    file: str
    detail: str


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        photos: pairs looked at.
        findings: what is wrong.
        present: ids in each mask that could be read, by the stem of its name; listed and not.
    """

    photos: int
    findings: tuple[Finding, ...]
    present: dict[str, tuple[int, ...]]

    def unusable(self) -> tuple[Finding, ...]:
        """What keeps a photo from being used; ids that are not listed are merely ignored."""
        return tuple(finding for finding in self.findings if finding.kind != "unlisted id")


def survey(
    folder: LabelledFolder,
    *,
    void: Collection[int] = (),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    remembered: bool = False,
) -> Survey:
    """Read every photo and every mask.

    Args:
        folder: one split.
        void: ids beside 0 and 255 that are meant to be ignored, and so need not be listed.
        workers: threads; None: one for each processor.
        progress: called with photos done and photos in all.
        remembered: whether an earlier answer may be given again. It is kept in deop's cache folder with the names,
            sizes and times of all files, and holds while none of them changes.
    """
    store = _store(folder)
    found = _read(store) if remembered and store is not None else None
    if found is None:
        found = _look_at_all(folder, workers, progress)
        if store is not None:
            with suppress(DeopError), replacing(store) as file:  # without it the next run only looks again
                file.write(json.dumps(asdict(found)).encode())
    listed = {entry.id for entry in folder.classes} | set(IGNORED) | set(void)
    strange = {pair.mask: sorted({*found.present.get(pair.mask.stem, ())} - listed) for pair in folder.pairs}
    unlisted = tuple(
        Finding("unlisted id", _name(folder, mask), f"{', '.join(map(str, ids))} not in classes.json")
        for mask, ids in strange.items()
        if ids
    )
    return replace(found, findings=found.findings + unlisted)


def _look_at_all(folder: LabelledFolder, workers: int | None, progress: Callable[[int, int], None] | None) -> Survey:
    findings = [Finding("unpaired", _name(folder, path), what_is_missing(path)) for path in folder.unpaired]
    present: dict[str, tuple[int, ...]] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for done, (pair, ids, problems) in enumerate(pool.map(_look, folder.pairs)):
            findings += [Finding(kind, _name(folder, path), detail) for kind, path, detail in problems]
            if ids is not None:
                present[pair.mask.stem] = ids
            if progress:
                progress(done + 1, len(folder.pairs))
    return Survey(len(folder.pairs), tuple(findings), present)


def _look(pair: Pair) -> tuple[Pair, tuple[int, ...] | None, list[tuple[str, Path, str]]]:
    """Read a pair: the ids of its mask, and what is wrong."""
    problems: list[tuple[str, Path, str]] = []
    size = mask = None
    try:
        size = read_photo(pair.photo).shape[:2]
    except ImageError as error:
        problems.append(("broken photo", pair.photo, str(error)))
        with suppress(DataError):  # its header may still tell the size
            size = photo_size(pair.photo)
    try:
        mask = read_mask(pair.mask)
    except DataError as error:
        problems.append(("broken mask", pair.mask, str(error)))
    if mask is None:
        return pair, None, problems
    if size is not None and mask.shape != size:
        detail = f"{mask.shape[1]} x {mask.shape[0]}, its photo {pair.photo.name} {size[1]} x {size[0]}"
        problems.append(("size", pair.mask, detail))
    return pair, tuple(np.flatnonzero(np.bincount(mask.ravel())).tolist()), problems


def sound(folder: LabelledFolder, skip_broken: bool = False) -> LabelledFolder:
    """The folder, once every file of it has been read; an earlier look counts while nothing changed.

    Args:
        folder: one split.
        skip_broken: leave out the photos that cannot be used, instead of refusing.

    Raises:
        DataError: some cannot be used, the first of them by name; or none can.
    """
    wrong = survey(folder, remembered=True).unusable()
    files = {finding.file for finding in wrong if finding.kind != "unpaired"}
    if not files:
        return folder
    if not skip_broken:
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        first = next(finding for finding in wrong if finding.kind != "unpaired")
        raise DataError(
            f"{folder.root}: {first.kind} {first.file}: {first.detail}{more}. `deop prepare check {folder.root}` lists "
            "them; --skip-broken (skip_broken in a recipe) leaves them out"
        )
    kept = tuple(pair for pair in folder.pairs if not {_name(folder, pair.photo), _name(folder, pair.mask)} & files)
    if not kept:
        raise DataError(f"{folder.root}: not one of {len(folder.pairs)} photos can be used; see `deop prepare check`")
    return replace(folder, pairs=kept)


def only_seen(folder: LabelledFolder, unseen: Collection[str] | None = None) -> LabelledFolder:
    """The folder as training sees it: unseen classes are void, and photos with nothing else are dropped (METHOD 10).

    Args:
        folder: one split.
        unseen: names; None: those that classes.json marks ``"seen": false``.

    Raises:
        DataError: no class or no photo is left, or a name is no class of the folder.
    """
    if unseen is None:
        unseen = {entry.name for entry in folder.classes if entry.seen is False}
    if strange := sorted(set(unseen) - set(folder.names)):
        raise DataError(f"{folder.root} has no class named {', '.join(strange)}")
    classes = tuple(entry for entry in folder.classes if entry.name not in unseen)
    kept = {entry.id for entry in classes}
    present = survey(folder, remembered=True).present
    # A mask that cannot be read stays: sound() names it.
    pairs = tuple(pair for pair in folder.pairs if kept & set(present.get(pair.mask.stem, kept)))
    if not pairs:
        raise DataError(f"{folder.root}: no photo has any of the {len(classes)} seen classes")
    return replace(folder, classes=classes, pairs=pairs)


def _name(folder: LabelledFolder, path: Path) -> str:
    return path.relative_to(folder.root).as_posix()


def _store(folder: LabelledFolder) -> Path | None:
    """Where what is found of exactly these files is kept."""
    cache = default_cache_folder()
    if cache is None:
        return None
    seen = hashlib.sha256()
    for path in [*folder.unpaired, *(path for pair in folder.pairs for path in (pair.photo, pair.mask))]:
        with suppress(OSError):
            facts = path.stat()
            seen.update(f"{path.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return cache / "checks" / f"{seen.hexdigest()[:32]}.json"


def _read(store: Path) -> Survey | None:
    try:
        found = json.loads(store.read_text(encoding="utf-8"))
        findings = tuple(Finding(**finding) for finding in found["findings"])
        present = {stem: tuple(ids) for stem, ids in found["present"].items()}
        return Survey(int(found["photos"]), findings, present)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None

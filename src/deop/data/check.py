"""Checking every file of a labelled folder before training or evaluation starts, and caching the result."""

import hashlib
import json
import os
import shlex
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from deop.data.entries import Entry, image_source, stamp
from deop.data.labelled import LabelledData, Pair, describe_unused, photo_size, read_mask
from deop.errors import DataError, DeopError, ImageError
from deop.files import parse_json, replacing
from deop.images.collection import HIDDEN
from deop.images.id_maps import UNLISTED_COLOUR, Colours
from deop.images.reading import read_photo
from deop.text.embedding_cache import default_cache_folder

IGNORED = (0, 255)
"""Ids that need not be listed in classes.json."""

_FORMAT = 2  # of the cache: to be raised when masks or photos are read differently


@dataclass(frozen=True)
class Finding:
    """A problem with a file.

    Attributes:
        kind: "unpaired", "broken photo", "broken mask", "size", "unlisted id", or "no class": no listed id at all.
        file: path below the folder of the split.
        detail: description of the problem.
    """

    kind: str
    file: str
    detail: str


@dataclass(frozen=True)
class Survey:
    """The result of checking a folder.

    Attributes:
        photos: number of pairs that were read.
        findings: all problems.
        present: for each readable mask, by ``Pair.key``, the ids in it, listed or not, and
            ``UNLISTED_COLOUR`` for colours that are not listed.
    """

    photos: int
    findings: tuple[Finding, ...]
    present: dict[str, tuple[int, ...]]

    def unusable(self) -> tuple[Finding, ...]:
        """The findings that make a photo unusable. Ids that are not listed do not: their pixels are ignored."""
        return tuple(finding for finding in self.findings if finding.kind not in ("unlisted id", "no class"))

    def without_classes(self, folder: LabelledData) -> tuple[str, ...]:
        """The keys of photos whose readable masks have no id that the folder lists."""
        listed = {entry.id for entry in folder.classes}
        return tuple(key for key, ids in self.present.items() if not listed & set(ids))


def survey(
    folder: LabelledData,
    *,
    void: Collection[int] = (),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    use_cache: bool = False,
) -> Survey:
    """Read every photo and every mask of a folder.

    Args:
        folder: one split.
        void: ids besides 0 and 255 that are to be ignored and need not be listed.
        workers: number of threads; None: one for each processor.
        progress: called after each pair with the number of pairs done and the number of all pairs.
        use_cache: return the cached result of an earlier call if there is one. Results are cached in deop's cache
            folder; a result is valid while the names, sizes and modification times of all files stay the same.

    Returns:
        All problems, and the ids in each mask.
    """
    cache_file = _cache_file(folder)
    result = _read_cached(cache_file) if use_cache and cache_file is not None else None
    if result is None:
        result = _inspect_all(folder, workers, progress)
        if cache_file is not None:
            with suppress(DeopError), replacing(cache_file) as file:  # without a cache, the next call reads all again
                file.write(json.dumps(asdict(result)).encode())
    listed = {entry.id for entry in folder.classes} | set(IGNORED) | set(void)
    unlisted = {pair.mask: sorted({*result.present.get(pair.key, ())} - listed) for pair in folder.pairs}
    findings = tuple(
        Finding("unlisted id", folder.display(mask), f"{describe_ids(ids)} not in classes.json")
        for mask, ids in unlisted.items()
        if ids
    )
    if result.present and len(result.without_classes(folder)) == len(result.present):
        present = {label for ids in result.present.values() for label in ids}
        detail = f"no mask has an id of classes.json ({_some(listed - set(IGNORED))}), they have {_some(present)}"
        findings += (Finding("no class", "masks", detail),)
    return replace(result, findings=result.findings + findings)


def describe_ids(ids: Collection[int]) -> str:
    """Ids of masks in words: "7, 9", or "7, 9 and colours" if there are colours that are not listed."""
    numbers = ", ".join(str(label) for label in ids if label != UNLISTED_COLOUR)
    return " and ".join(part for part in (numbers, "colours" if UNLISTED_COLOUR in ids else "") if part)


def _inspect_all(folder: LabelledData, workers: int | None, progress: Callable[[int, int], None] | None) -> Survey:
    findings = [Finding("unpaired", folder.display(entry.path), entry.reason) for entry in folder.unpaired]
    present: dict[str, tuple[int, ...]] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for done, (pair, ids, problems) in enumerate(pool.map(_inspect, folder.pairs, repeat(folder.colours))):
            findings += [Finding(kind, folder.display(path), detail) for kind, path, detail in problems]
            if ids is not None:
                present[pair.key] = ids
            if progress:
                progress(done + 1, len(folder.pairs))
    return Survey(len(folder.pairs), tuple(findings), present)


def _inspect(pair: Pair, colours: Colours) -> tuple[Pair, tuple[int, ...] | None, list[tuple[str, Entry, str]]]:
    """Read a pair. Returns the pair, the ids in its mask, and (kind, file, detail) of each problem."""
    problems: list[tuple[str, Entry, str]] = []
    size = mask = None
    try:
        size = read_photo(image_source(pair.photo)).shape[:2]
    except (ImageError, DataError) as error:
        problems.append(("broken photo", pair.photo, str(error)))
        with suppress(DataError):  # the header may still be readable
            size = photo_size(pair.photo)
    try:
        mask = read_mask(pair.mask, colours)
    except DataError as error:
        problems.append(("broken mask", pair.mask, str(error)))
    if mask is None:
        return pair, None, problems
    if size is not None and mask.shape != size:
        detail = f"{mask.shape[1]} x {mask.shape[0]}, its photo {pair.photo.name} {size[1]} x {size[0]}"
        problems.append(("size", pair.mask, detail))
    first = UNLISTED_COLOUR  # bincount takes no negative numbers
    return pair, tuple((np.flatnonzero(np.bincount(mask.ravel().astype(np.int32) - first)) + first).tolist()), problems


def checked_folder(
    folder: LabelledData, skip_broken: bool = False, *, counted: Collection[int] = (), warn: bool = False
) -> LabelledData:
    """Check every file of a folder, or use the cached result while no file has changed.

    Args:
        folder: one split.
        skip_broken: leave out photos that cannot be used, instead of raising an error.
        counted: ids that count although classes.json does not list them.
        warn: warn about masks with ids that are not listed, and about files that are left out, except hidden ones.

    Returns:
        The folder without unusable photos.

    Raises:
        DataError: a photo or mask cannot be used (the message names the first), none can, or no mask has a listed id.
    """
    result = survey(folder, use_cache=True)
    unusable = [finding for finding in result.unusable() if finding.kind != "unpaired"]
    check = shlex.join(["deop", "prepare", "check", str(folder.root)])
    files = {finding.file for finding in unusable}
    if unusable and not skip_broken:
        first = unusable[0]
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        raise DataError(
            f"{folder.root}: {first.kind} {first.file}: {first.detail}{more}. `{check}` lists all; --skip-broken "
            "(skip_broken in a recipe) leaves them out"
        )
    usable = tuple(pair for pair in folder.pairs if not {folder.display(pair.photo), folder.display(pair.mask)} & files)
    if not usable:
        raise DataError(f"{folder.root}: none of its {len(folder.pairs)} photos can be used; `{check}` says why")
    kept = replace(folder, pairs=usable) if unusable else folder
    listed = {entry.id for entry in folder.classes} | set(counted)
    ids = {label for pair in usable for label in result.present.get(pair.key, ())}
    if not ids & listed:
        raise DataError(
            f"{folder.root}: no pixel of its masks has an id of classes.json. The masks have {_some(ids)}, and "
            f"classes.json lists {_some(listed)}: correct one of them"
        )
    if warn and (unlisted := ids - listed - set(IGNORED)):
        count = sum(bool(unlisted & set(result.present.get(pair.key, ()))) for pair in usable)
        warnings.warn(
            f"{folder.root}: {count:,} of {len(usable):,} masks have ids that classes.json does not list "
            f"({_some(unlisted)}); their pixels are ignored",
            stacklevel=2,
        )
    others = [entry for entry in folder.left_out if entry.reason != HIDDEN]
    if warn and (unused := describe_unused(folder.unpaired, others)):
        warnings.warn(f"{folder.root}: {unused}", stacklevel=2)
    return kept


def _some(ids: Collection[int]) -> str:
    """The first ids in words."""
    ordered = sorted(ids)
    return describe_ids(ordered[:10]) + (", ..." if len(ordered) > 10 else "")


def only_seen(folder: LabelledData, unseen: Collection[str] | None = None) -> LabelledData:
    """Remove unseen classes: their pixels become void, and photos with nothing else are dropped (docs/method.md §10).

    Args:
        folder: one split.
        unseen: names of the unseen classes; None: the classes that classes.json marks ``"seen": false``.

    Returns:
        The folder with the seen classes and the photos that contain one of them.

    Raises:
        DataError: a name that is not a class of the folder, or no class or photo is left.
    """
    if unseen is None:
        unseen = {entry.name for entry in folder.classes if entry.seen is False}
    if unknown := sorted(set(unseen) - set(folder.names)):
        raise DataError(f"{folder.root} has no class named {', '.join(unknown)}: write names as in classes.json")
    classes = tuple(entry for entry in folder.classes if entry.name not in unseen)
    seen_ids = {entry.id for entry in classes}
    present = survey(folder, use_cache=True).present
    # A pair with an unreadable mask stays, so that checked_folder reports it.
    pairs = tuple(pair for pair in folder.pairs if seen_ids & set(present.get(pair.key, seen_ids)))
    if not pairs:
        raise DataError(f"{folder.root}: no photo shows any of the {len(classes)} seen classes")
    return replace(folder, classes=classes, pairs=pairs)


def _cache_file(folder: LabelledData) -> Path | None:
    """The cache file for exactly these files; None if caching is off."""
    cache = default_cache_folder()
    if cache is None:
        return None
    digest = hashlib.sha256(f"{_FORMAT} {sorted(folder.colours.items())}\n".encode())
    places: dict[Path | str, None] = dict.fromkeys(entry.path for entry in folder.unpaired)
    for pair in folder.pairs:
        for entry in (pair.photo, pair.mask):
            if isinstance(entry, Path):
                places[entry] = None
            else:
                places[entry.container] = None
                digest.update(f"{entry}\n".encode(errors="surrogateescape"))
    for place in places:
        with suppress(OSError):
            digest.update(f"{stamp(place)}\n".encode(errors="surrogateescape"))
    return cache / "checks" / f"{digest.hexdigest()[:32]}.json"


def _read_cached(path: Path) -> Survey | None:
    try:
        values = parse_json(path)
        findings = tuple(Finding(**finding) for finding in values["findings"])
        present = {stem: tuple(ids) for stem, ids in values["present"].items()}
        return Survey(int(values["photos"]), findings, present)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None

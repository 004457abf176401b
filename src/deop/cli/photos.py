"""Which photos a command line names, and where their results and masks are."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from deop.cli.console import say
from deop.errors import ImageError, ProposalError, SettingError
from deop.files import resolved
from deop.images.collection import HIDDEN, NOT_AN_IMAGE, SUFFIXES, LeftOut, collect, describe_left_out
from deop.images.file_types import file_type_at, is_url

RESULTS_FOLDER, IMAGE_SUFFIX = Path("deop-results"), ".deop.png"
"""Where result images go by default: the directory for several photos, the suffix for one. Searches skip both."""

STANDARD_INPUT = "-"
"""The argument that stands for a photo from standard input."""

_RESULT = "result of deop"
_MASK_SUFFIXES = (".npy", ".npz")  # besides images


@dataclass(frozen=True)
class PhotoFile:
    """A photo that a command line names.

    Attributes:
        path: where it is; for a photo that is not a file on this machine, a stand-in that does not exist.
        result: path of its results below a results directory, without a suffix.
        data: the content of a photo from standard input; else None.
        url: the web address of a photo; else "".
        searched: whether it was found in a directory or by a pattern, rather than named.
    """

    path: Path
    result: Path
    data: bytes | None = None
    url: str = ""
    searched: bool = False

    @property
    def source(self) -> Path | bytes | str:
        """What ``read_photo`` and ``segment_stream`` take."""
        return self.url or (self.path if self.data is None else self.data)

    @property
    def name(self) -> str:
        """What messages and JSON call it: the path, the web address, or "standard input"."""
        return self.url or (str(self.path) if self.data is None else "standard input")

    @property
    def is_file(self) -> bool:
        """Whether it was named by a path, so that results may lie beside it and must not replace it."""
        return not self.url and self.data is None


@dataclass(frozen=True)
class FoundPhotos:
    """The photos that a command line stands for.

    Attributes:
        photos: in order, each once.
        left_out: the other files in the directories and patterns, with the reasons.
    """

    photos: tuple[PhotoFile, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def summary(self) -> str:
        """One line about ``left_out``, to print at the end of the command; "" if nothing was left out."""
        return describe_left_out(self.left_out)


def find_photos(arguments: Sequence[str], results: Sequence[Path] = ()) -> FoundPhotos:
    """The photos that files, directories, patterns, web addresses and standard input stand for: in order, each once.

    A file that is named is used whatever it contains. Directories and patterns are searched by the rule of
    ``images.collection``: no hidden files, links followed once, images recognised by their content.

    Args:
        arguments: files; directories, searched recursively; patterns such as ``photos/*.jpg``, for shells that do not
            expand them; https addresses; or "-" for a photo from standard input.
        results: directories of results, which a search skips if they are below a directory of photos.

    Raises:
        ImageError: a directory or pattern without photos, or nothing on standard input.
        SettingError: standard input is named twice.
    """
    photos: dict[object, PhotoFile] = {}
    left_out: list[LeftOut] = []
    if list(arguments).count(STANDARD_INPUT) > 1:
        raise SettingError("'-' is named twice, but there is one standard input: omit one of them")
    for argument in arguments:
        if argument == STANDARD_INPUT:
            photos[argument] = _standard_input()
            continue
        if is_url(argument):
            photos.setdefault(argument, _web_address(argument))
            continue
        path = Path(argument).expanduser()
        if path.is_dir():
            matches, others = _search(path, results)
            if not matches:
                raise ImageError(f"no photos in {argument}" + _because(others))
        elif path.exists() or path.is_symlink() or not has_magic(argument):
            matches, others = [PhotoFile(path, Path(path.stem))], []  # a missing file is reported with other failures
        else:
            matches, others = _match(path)
            if not matches:
                raise ImageError(f"no photos match {argument}" + _because(others))
        left_out += others
        for photo in matches:
            photos.setdefault(os.path.realpath(photo.path), photo)
    return FoundPhotos(tuple(_with_different_results(list(photos.values()))), tuple(left_out))


def _because(others: Sequence[LeftOut]) -> str:
    return f": {describe_left_out(others)}" if others else ""


def _standard_input() -> PhotoFile:
    if sys.stdin is None or sys.stdin.isatty():
        raise ImageError("nothing is piped to standard input: give a file, or use `deop ... - < photo.jpg`")
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError("standard input is empty: the program before deop wrote no photo")
    return PhotoFile(Path(STANDARD_INPUT), Path("stdin"), data=data)


def _web_address(url: str) -> PhotoFile:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    stem = "".join("_" if sign in '<>:"/\\|?*' or not sign.isprintable() else sign for sign in Path(name).stem)
    return PhotoFile(Path(name or "photo"), Path(stem.lstrip(".")[:100] or "photo"), url=url)


def _search(directory: Path, results: Sequence[Path]) -> tuple[list[PhotoFile], list[LeftOut]]:
    """The photos of a directory, and what is left out."""
    top = resolved(directory)
    skipped = {place for place in (resolved(path) for path in results) if top in place.parents}

    def skip(path: Path) -> str | None:
        own = path.name.endswith(IMAGE_SUFFIX) or (path.name == RESULTS_FOLDER.name and path.is_dir())
        return _RESULT if own or (skipped and resolved(path) in skipped) else None

    found = collect(directory, skip=skip)
    photos = [PhotoFile(file, file.relative_to(directory).with_suffix(""), searched=True) for file in found.files]
    return photos, list(found.left_out)


def _match(pattern: Path) -> tuple[list[PhotoFile], list[LeftOut]]:
    """The photos that match a pattern, and what is left out. As in a shell, ``*`` does not stand for hidden files."""
    photos: list[PhotoFile] = []
    left_out: list[LeftOut] = []
    for path in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))):
        reason = _reason_to_skip(path, pattern)
        if reason is None:
            photos.append(PhotoFile(path, Path(path.stem), searched=True))
        else:
            left_out.append(LeftOut(path, reason))
    return photos, left_out


def _reason_to_skip(path: Path, pattern: Path) -> str | None:
    if any(part.startswith(".") and part not in ("..", *pattern.parts) for part in path.parts):
        return HIDDEN
    if path.name.endswith(IMAGE_SUFFIX):
        return _RESULT
    if path.is_dir():
        return "directory"
    if not path.is_file():
        return "link to a file that does not exist" if path.is_symlink() else "not a regular file"
    if path.suffix.lower() in SUFFIXES:
        return None
    try:
        kind = file_type_at(path)
    except OSError as error:
        return f"file that cannot be read ({error.strerror or error})"
    return None if kind.readable else kind.reason or NOT_AN_IMAGE


def _with_different_results(photos: list[PhotoFile]) -> list[PhotoFile]:
    """The same photos, so that no two results have the same path.

    Photos whose results would have the same path keep the suffix of the photo, as in ``cat.jpg`` and ``cat.png``: it
    does not depend on the order or on what else there is. Photos of one name in several directories have numbers.
    """
    counts: dict[str, int] = {}
    for photo in photos:
        key = str(photo.result).casefold()
        counts[key] = counts.get(key, 0) + 1
    taken: set[str] = set()
    different = []
    for photo in photos:
        stem = photo.result
        if counts[str(stem).casefold()] > 1:
            stem = stem.with_name(stem.name + photo.path.suffix)
        result, number = stem, 2
        while str(result).casefold() in taken:
            result, number = stem.with_name(f"{stem.name}-{number}"), number + 1
        taken.add(str(result).casefold())
        different.append(replace(photo, result=result))
    return different


def place_results(photos: Sequence[PhotoFile], out: Path, suffix: str = ".png") -> list[Path]:
    """The path of each photo's result.

    Args:
        photos: from ``find_photos``; none if only videos are given, whose results are placed elsewhere.
        out: a file, for one photo; or a directory: one that exists, or any path without a suffix.
        suffix: suffix of the files in a directory.

    Raises:
        SettingError: a file for several photos, or a result that would replace one of the photos.
    """
    if not photos:
        return []
    if len(photos) == 1 and out.suffix and not out.is_dir():
        places = [out]
    elif out.is_file() or (out.suffix and not out.is_dir()):
        raise SettingError(f"{out} cannot hold the results of {len(photos)} photos: give a directory")
    else:
        places = [out / photo.result.with_name(photo.result.name + suffix) for photo in photos]
    originals = {resolved(photo.path) for photo in photos if photo.is_file}
    for place in places:
        if resolved(place) in originals:
            raise SettingError(f"{place} is one of the photos and would be replaced: choose another path")
    return places


def is_done(photo: PhotoFile, results: Iterable[Path]) -> bool:
    """Whether a photo need not be segmented again, for ``--skip-existing``.

    Args:
        photo: the photo.
        results: the files that it would write.

    Returns:
        True if all of them exist and none is older than the photo. False for a photo that is not a file on this
        machine or does not exist, and without results.
    """
    try:
        changed = photo.path.stat().st_mtime_ns if photo.is_file else None
        written = [place.stat().st_mtime_ns for place in results]
    except OSError:
        return False
    return changed is not None and bool(written) and min(written) >= changed


def find_masks(photos: Sequence[PhotoFile], masks: Path) -> list[Path]:
    """The path of each photo's masks.

    A directory holds masks for each photo, named like the photo: an image, a ``.npy`` or ``.npz`` file, or a directory
    of images. If the only photo was named, rather than found in a directory, and there are no masks that are named like
    it, the images are its masks, one each: they must have its size and at most one value besides 0, and none may be
    named like another photo beside it. So what a directory means never depends on how many photos another one holds.

    Args:
        photos: from ``find_photos``.
        masks: the file with the masks of the only photo, or a directory.

    Raises:
        ProposalError: the path does not exist, a photo has no masks in it or more than one file of them, or the masks
            in a directory may be those of other photos.
        SettingError: a file for several photos.
    """
    if not masks.exists():
        raise ProposalError(f"no masks at {masks}: the path does not exist")
    if not masks.is_dir():
        if len(photos) > 1:
            raise SettingError(f"{masks} is one file, and there are {len(photos)} photos: give a directory with masks")
        return [masks]
    places = [_masks_named_like(photo, masks) for photo in photos]
    if len(photos) == 1 and not photos[0].searched:
        if places[0] is None:
            count = _check_masks_of_one_photo(photos[0], masks)
            what = (
                f"the {count} images in {masks} are the masks"
                if count > 1
                else f"the image in {masks} is the only mask"
            )
            say(f"{what} of {photos[0].name}" + (", one each" if count > 1 else ""), style="dim")
            return [masks]
        say(f"masks of {photos[0].name}: {places[0]}", style="dim")
    found = []
    for photo, place in zip(photos, places, strict=True):
        if place is None:
            expected = masks / photo.result
            raise ProposalError(
                f"no masks for {photo.name}: searched for {expected}.png, {expected}.npy, {expected}.npz and the "
                f"directory {expected}"
            )
        found.append(place)
    return found


def _masks_named_like(photo: PhotoFile, masks: Path) -> Path | None:
    """The file or directory of masks that is named like a photo; None if there is none."""
    place = masks / photo.result
    if not place.parent.is_dir():
        return None
    candidates = []
    known = (*SUFFIXES, *_MASK_SUFFIXES)
    for path in sorted(place.parent.iterdir()):
        if path.is_dir():
            if path.name == place.name:
                candidates.append(path)
        elif path.stem == place.name and path.exists() and resolved(path) != resolved(photo.path):
            candidates += [path] * (path.suffix.lower() in known or file_type_at(path).readable)
    if len(candidates) > 1:
        names = " and ".join(str(path) for path in candidates)
        raise ProposalError(f"there are two masks for {photo.name}: {names}. Keep one of them")
    return candidates[0] if candidates else None


def _check_masks_of_one_photo(photo: PhotoFile, masks: Path) -> int:
    """Check that the files of a directory can only be masks of one photo, one mask each.

    Returns:
        How many they are.

    Raises:
        ProposalError: they may belong to other photos.
    """
    import numpy as np

    from deop.images.id_maps import read_id_map
    from deop.images.reading import read_photo

    remedy = (
        f"name the masks of {photo.name} {masks / photo.result}.png (or the directory {masks / photo.result}), or give "
        "their path"
    )
    found = collect(masks, recursive=False)
    files = found.files
    if not files:
        raise ProposalError(f"no masks in {masks}{_because(found.left_out)}: {remedy}")
    if found.left_out:
        say(f"{masks}: {describe_left_out(found.left_out)}", style="dim")
    if photo.url:
        raise ProposalError(f"no masks for {photo.name} in {masks}: {remedy}")
    try:
        shape = read_photo(photo.source).shape[:2]
    except ImageError:
        return len(files)  # the photo is reported once it is segmented
    others = photo.path.parent.iterdir() if photo.is_file else ()
    beside = {path.stem for path in others if path.name != photo.path.name}
    for file in files:
        if file.stem in beside:
            raise ProposalError(
                f"{file} is named like another photo in {photo.path.parent}, not {photo.name}: {remedy}"
            )
        try:
            ids = read_id_map(file)
        except ImageError as error:
            raise ProposalError(str(error)) from error
        if ids.shape != shape:
            raise ProposalError(
                f"{file} is {ids.shape[1]} x {ids.shape[0]}, and {photo.name} is {shape[1]} x {shape[0]}: {remedy}"
            )
        values = len(np.unique(ids[ids != 0]))
        if values > 1:
            raise ProposalError(
                f"{file} has {values} different ids, so it is not one mask of {photo.name} but all masks of "
                f"a photo: {remedy}"
            )
    return len(files)

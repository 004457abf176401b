"""Which photos a command line names, and where their results and masks are."""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from deop.errors import ImageError, ProposalError, SettingError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes that a directory is searched for. A file that is named is read whatever its suffix."""

RESULTS_FOLDER, IMAGE_SUFFIX = Path("deop-results"), ".deop.png"
"""Where result images go by default: the directory for several photos, the suffix for one. Searches skip both."""


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk.

    Attributes:
        path: where it is.
        result: path of its results below a results directory, without a suffix.
    """

    path: Path
    result: Path


def find_photos(arguments: Sequence[str], results: Sequence[Path] = ()) -> list[PhotoFile]:
    """The photos that files, directories and patterns stand for: in order, each once.

    Args:
        arguments: files; directories, searched recursively for ``SUFFIXES``; or patterns such as ``photos/*.jpg``, for
            shells that do not expand them.
        results: directories of results, which a search skips if they are below a directory of photos.

    Raises:
        ImageError: a directory or pattern without photos.
    """
    photos: dict[Path, PhotoFile] = {}
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            matches = [PhotoFile(file, file.relative_to(path).with_suffix("")) for file in _search(path, results)]
            if not matches:
                raise ImageError(f"no photos in {argument}: searched for {', '.join(SUFFIXES)}")
        elif path.exists() or not has_magic(argument):
            matches = [PhotoFile(path, Path(path.stem))]  # a missing file is reported together with other failures
        else:
            files = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            matches = [PhotoFile(file, Path(file.stem)) for file in files if file.is_file()]
            if not matches:
                raise ImageError(f"no photos match {argument}")
        for photo in matches:
            photos.setdefault(photo.path.resolve(), photo)
    return _number_duplicates(list(photos.values()))


def _search(folder: Path, results: Sequence[Path]) -> list[Path]:
    top = folder.resolve()
    skipped = [place for place in (path.resolve() for path in results) if top in place.parents]
    files = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    files = (file for file in files if not file.name.endswith(IMAGE_SUFFIX))
    return sorted(file for file in files if not any(place in file.resolve().parents for place in skipped))


def _number_duplicates(photos: list[PhotoFile]) -> list[PhotoFile]:
    """The same photos, with a number appended to results that would have the same path."""
    taken: set[Path] = set()
    numbered = []
    for photo in photos:
        result, number = photo.result, 2
        while result in taken:
            result, number = photo.result.with_name(f"{photo.result.name}-{number}"), number + 1
        taken.add(result)
        numbered.append(PhotoFile(photo.path, result))
    return numbered


def place_results(photos: Sequence[PhotoFile], out: Path, suffix: str = ".png") -> list[Path]:
    """The path of each photo's result.

    Args:
        photos: from ``find_photos``.
        out: a file, for one photo; or a directory: one that exists, or any path without a suffix.
        suffix: suffix of the files in a directory.

    Raises:
        SettingError: a file for several photos, or a result that would replace one of the photos.
    """
    if len(photos) == 1 and out.suffix and not out.is_dir():
        places = [out]
    elif out.is_file() or (out.suffix and not out.is_dir()):
        raise SettingError(f"{out} cannot hold the results of {len(photos)} photos: give a directory")
    else:
        places = [out / photo.result.with_name(photo.result.name + suffix) for photo in photos]
    originals = {photo.path.resolve() for photo in photos}
    for place in places:
        if place.resolve() in originals:
            raise SettingError(f"{place} is one of the photos and would be replaced: choose another path")
    return places


def find_masks(photos: Sequence[PhotoFile], masks: Path) -> list[Path]:
    """The path of each photo's masks.

    Args:
        photos: from ``find_photos``.
        masks: the masks of the only photo; or, for several, a directory with a ``.png``, ``.npy`` or ``.npz`` file or a
            directory of PNGs per photo, named like the photo.

    Raises:
        ProposalError: the path does not exist, or a photo has no masks in it.
        SettingError: a file for several photos.
    """
    if not masks.exists():
        raise ProposalError(f"no masks at {masks}: the path does not exist")
    if len(photos) == 1:
        return [masks]
    if not masks.is_dir():
        raise SettingError(f"{masks} is one file, and there are {len(photos)} photos: give a directory with masks")
    places = []
    for photo in photos:
        place = masks / photo.result
        candidates = [place.with_name(place.name + suffix) for suffix in (".png", ".npy", ".npz", "")]
        existing = [candidate for candidate in candidates if candidate.exists()]
        if not existing:
            raise ProposalError(
                f"no masks for {photo.path}: searched for {place}.png, .npy, .npz and the directory {place}"
            )
        places.append(existing[0])
    return places

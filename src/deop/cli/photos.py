"""Which photos a command line means, and where what is made of each goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from deop.errors import ImageError, ProposalError, SettingError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What a folder is searched for; a file that is named is read whatever its suffix."""

RESULTS, PICTURE = Path("deop-results"), ".deop.png"
"""Where pictures go unless told otherwise: the folder of several, the ending of a single one. No search finds them."""


@dataclass(frozen=True)
class Photo:
    """A photo and the place of its results below a folder of results: ``inside`` has no suffix."""

    path: Path
    inside: Path


def find_photos(arguments: Sequence[str], results: Sequence[Path] = ()) -> list[Photo]:
    """The photos of files, folders and patterns, in order, each once.

    Args:
        arguments: files; folders, searched with all below them for ``SUFFIXES``; or patterns such as
            ``photos/*.jpg``, for shells that do not expand them.
        results: folders of results, which a search passes over where they lie below a folder of photos.

    Raises:
        ImageError: an argument that means no photo.
    """
    found: dict[Path, Photo] = {}
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            photos = [Photo(file, file.relative_to(path).with_suffix("")) for file in _walk(path, results)]
            if not photos:
                raise ImageError(f"no photos in {argument}: looked for {', '.join(SUFFIXES)}")
        elif path.exists() or not has_magic(argument):
            photos = [Photo(path, Path(path.stem))]  # one that is missing is reported with the others
        else:
            matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            photos = [Photo(match, Path(match.stem)) for match in matches if match.is_file()]
            if not photos:
                raise ImageError(f"no photos match {argument}")
        for photo in photos:
            found.setdefault(photo.path.resolve(), photo)
    return _distinct(list(found.values()))


def _walk(folder: Path, results: Sequence[Path]) -> list[Path]:
    top = folder.resolve()
    skipped = [place for place in (path.resolve() for path in results) if top in place.parents]
    files = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    files = (file for file in files if not file.name.endswith(PICTURE))
    return sorted(file for file in files if not any(place in file.resolve().parents for place in skipped))


def _distinct(photos: list[Photo]) -> list[Photo]:
    """The same photos, with a number where two would have had the same place."""
    taken: set[Path] = set()
    placed = []
    for photo in photos:
        inside, number = photo.inside, 2
        while inside in taken:
            inside, number = photo.inside.with_name(f"{photo.inside.name}-{number}"), number + 1
        taken.add(inside)
        placed.append(Photo(photo.path, inside))
    return placed


def place_results(photos: Sequence[Photo], out: Path, suffix: str = ".png") -> list[Path]:
    """Where the result of each photo goes.

    Args:
        photos: of ``find_photos``.
        out: a file where there is one photo; a folder where there are several, or where it is one already or has no
            suffix.
        suffix: of the files in a folder.

    Raises:
        SettingError: a file for several photos, or a result that would replace one of the photos.
    """
    if len(photos) == 1 and out.suffix and not out.is_dir():
        places = [out]
    elif out.is_file() or (out.suffix and not out.is_dir()):
        raise SettingError(f"{out} is to hold the results of {len(photos)} photos: give a folder")
    else:
        places = [out / photo.inside.with_name(photo.inside.name + suffix) for photo in photos]
    originals = {photo.path.resolve() for photo in photos}
    for place in places:
        if place.resolve() in originals:
            raise SettingError(f"{place} is one of the photos and would be replaced: name another place")
    return places


def find_masks(photos: Sequence[Photo], given: Path) -> list[Path]:
    """Where the masks of each photo are.

    Args:
        photos: of ``find_photos``.
        given: the masks of the only photo; or, for several, a folder with a ``.png``, ``.npy``, ``.npz`` or a folder of
            PNGs for each, under the photo's name.

    Raises:
        ProposalError: nothing there, or nothing for one of the photos.
    """
    if not given.exists():
        raise ProposalError(f"no masks at {given}")
    if len(photos) == 1:
        return [given]
    if not given.is_dir():
        raise SettingError(f"{given} holds the masks of one photo: give a folder for {len(photos)} photos")
    found = []
    for photo in photos:
        place = given / photo.inside
        candidates = [place.with_name(place.name + suffix) for suffix in (".png", ".npy", ".npz", "")]
        there = [candidate for candidate in candidates if candidate.exists()]
        if not there:
            raise ProposalError(f"no masks for {photo.path}: looked for {place}.png, .npy, .npz and the folder {place}")
        found.append(there[0])
    return found

"""Which files of a directory are images: one rule for photos and masks, for every command.

Hidden files and directories are never used, nor are directories in which systems keep thumbnails. Links to files and
directories are followed, each directory once. The suffix does not decide: a file with an unusual suffix is used if its
first bytes are those of an image that can be read. A file with the suffix of a photo is used in any case, so that a
damaged photo is reported and not passed over. Everything that is left out is listed, with the reason.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deop.images.file_types import file_type_at

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Suffixes of photos. Files with others are recognised by their first bytes."""

HIDDEN = "hidden"
"""The reason for which hidden files and directories are left out."""

NOT_AN_IMAGE = "not an image"
"""The reason for which files are left out whose first bytes are not those of an image."""

_SYSTEM_DIRECTORIES = frozenset(("__macosx", "@eadir", "$recycle.bin", "system volume information"))
_SHOWN = 3  # names of files for each reason


@dataclass(frozen=True)
class LeftOut:
    """A file or directory that is not used.

    Attributes:
        path: where it is.
        reason: why it is not used, such as "hidden" or "HEIC image: `pip install pillow-heif`, ...".
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """The images of a directory.

    Attributes:
        files: the images, sorted by path; their paths begin with the directory's, also for those behind links.
        left_out: everything else in the directory, sorted by path. The content of a hidden directory is not listed.
    """

    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...] = ()


def collect(
    directory: Path,
    *,
    recursive: bool = True,
    unique: bool = True,
    skip: Callable[[Path], str | None] = lambda path: None,
) -> Collection:
    """Find the images of a directory. None is decoded.

    Args:
        directory: where to look; it may itself be hidden or a link.
        recursive: also look in the directories below.
        unique: leave out links to files that are in the collection already. A directory is never used twice.
        skip: called with every file and directory that is not hidden; returns the reason to leave it out, or None.

    Raises:
        OSError: the directory cannot be read. Directories below it that cannot be read are left out.
    """
    return _Search(recursive, unique, skip).run(directory)


@dataclass
class _Search:
    recursive: bool
    unique: bool
    skip: Callable[[Path], str | None]
    files: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    visited: set[str] = field(default_factory=set)  # real paths of files and directories

    def run(self, directory: Path) -> Collection:
        self.visited.add(os.path.realpath(directory))
        self.enter(directory)
        # Links come last, so that what is in the directory itself keeps its own path. A link may lead to further links.
        while self.links:
            pending, self.links = sorted(self.links), []
            for link in pending:
                self.follow(link)
        return Collection(
            tuple(sorted(self.files)), tuple(sorted(self.left_out, key=lambda entry: (entry.path, entry.reason)))
        )

    def enter(self, directory: Path) -> None:
        with os.scandir(directory) as entries:
            listing = sorted(entries, key=lambda entry: entry.name)
        for entry in listing:
            path = directory / entry.name
            is_directory = path.is_dir()  # unlike entry.is_dir(), no error for links in a circle
            if entry.name.startswith(".") or (is_directory and entry.name.lower() in _SYSTEM_DIRECTORIES):
                self.leave_out(path, HIDDEN)
            elif is_directory and not self.recursive:
                self.leave_out(path, "directory")
            elif reason := self.skip(path):
                self.leave_out(path, reason)
            elif entry.is_symlink():
                self.links.append(path)
            elif is_directory:
                self.enter_once(path)
            else:
                self.add(path)

    def follow(self, link: Path) -> None:
        target = Path(os.path.realpath(link))  # resolve() raises errors for links in a circle
        if not target.exists():
            reason = "link in a circle" if target.is_symlink() else "link to a file that does not exist"
            self.leave_out(link, reason)
        elif not target.is_dir():
            self.add(link)
        elif Path(os.path.realpath(link.parent)).is_relative_to(target):
            self.leave_out(link, "link to a directory that contains it")
        else:
            self.enter_once(link)

    def enter_once(self, directory: Path) -> None:
        real = os.path.realpath(directory)
        if real in self.visited:
            self.leave_out(directory, "link to files that are used already")
            return
        self.visited.add(real)
        try:
            self.enter(directory)
        except OSError as error:
            self.leave_out(directory, f"directory that cannot be read ({error.strerror or error})")

    def add(self, path: Path) -> None:
        if not path.is_file():
            self.leave_out(path, "not a regular file")
            return
        if path.suffix.lower() not in SUFFIXES:
            try:
                kind = file_type_at(path)
            except OSError as error:
                self.leave_out(path, f"file that cannot be read ({error.strerror or error})")
                return
            if not kind.readable:
                self.leave_out(path, kind.reason or NOT_AN_IMAGE)
                return
        real = os.path.realpath(path)
        if real in self.visited and self.unique:
            self.leave_out(path, "link to files that are used already")
            return
        self.visited.add(real)
        self.files.append(path)

    def leave_out(self, path: Path, reason: str) -> None:
        self.left_out.append(LeftOut(path, reason))


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """One line that says how many files were left out, which, and why; "" if there are none.

    >>> print(describe_left_out([LeftOut(Path("a/notes.txt"), NOT_AN_IMAGE), LeftOut(Path("a/.b.jpg"), HIDDEN)]))
    left out 2 files: hidden: .b.jpg; not an image: notes.txt
    """
    if not left_out:
        return ""
    reasons: dict[str, list[str]] = {}
    for entry in sorted(left_out, key=lambda entry: (entry.reason == NOT_AN_IMAGE, entry.reason != HIDDEN)):
        reasons.setdefault(entry.reason, []).append(entry.path.name)
    parts = []
    for reason, names in reasons.items():
        kind, _, remedy = reason.partition(": ")
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        parts.append(f"{kind}: {', '.join(names[:_SHOWN])}{more}" + (f" ({remedy})" if remedy else ""))
    return f"left out {len(left_out):,} file{'s' * (len(left_out) > 1)}: " + "; ".join(parts)

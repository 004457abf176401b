"""Labelled photos in WebDataset's tar files: ``KEY.jpg`` and ``KEY.png``, or ``KEY.mask.png`` beside any photo.

A tar file is not unpacked: its headers are read once, and each member is then read from its place. Tar files that are
compressed as a whole cannot be read so, and are refused.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from deop.batch.items import SUFFIXES
from deop.batch.stores import describe, file_system, is_address
from deop.data.entries import TarMember, attempt
from deop.data.labelled import Pair
from deop.errors import DataError
from deop.images.collection import LeftOut

_MASKS = ("mask", "seg", "label", "labels", "annotation", "segmentation")
_PHOTOS = ("image", "img", "photo", "rgb")
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
_ROLE = re.compile(rf"(.+)\.({'|'.join((*_MASKS, *_PHOTOS))})")
_BLOCK = 512
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


@dataclass
class _Sample:
    """The images of one key, each as (name, entry)."""

    photos: list[TarMember] = field(default_factory=list)
    masks: list[TarMember] = field(default_factory=list)
    plain: list[TarMember] = field(default_factory=list)  # by its suffix it may be either

    def decide(self) -> None:
        """Tell photos from masks: a plain PNG is the mask if there is a photo, and the photo if there is a mask."""
        kind = self.photos if self.masks or not self.photos else self.masks
        kind += self.plain
        self.plain = []


def read_tars(files: list[str]) -> tuple[list[Pair], list[LeftOut]]:
    """The photos and masks in tar files, in the order of the photos in them. No image is read.

    Args:
        files: paths or addresses.

    Returns:
        The pairs; and what has no partner or cannot be read, with the reasons.

    Raises:
        DataError: a tar file that is compressed.
    """
    found: list[tuple[str, str, TarMember, TarMember]] = []
    unpaired: list[LeftOut] = []
    for file in files:
        samples: dict[str, _Sample] = {}
        try:
            for member in _members(file):
                _add(samples, member)
        except _IncompleteTarError as error:
            unpaired.append(LeftOut(Path(file), str(error)))
        for key, sample in samples.items():
            sample.decide()
            if len(sample.photos) == len(sample.masks) == 1:
                found.append((file, key, sample.photos[0], sample.masks[0]))
            else:
                unpaired += _reasons(sample)
    keys = _unique_keys([(file, key) for file, key, _, _ in found])
    return [Pair(photo, mask, key) for key, (_, _, photo, mask) in zip(keys, found, strict=True)], unpaired


def _add(samples: dict[str, _Sample], member: TarMember) -> None:
    path = PurePosixPath(member.member)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or path.name.startswith("."):
        return  # other parts of a sample, such as captions
    stem = path.with_suffix("").as_posix()
    role = _ROLE.fullmatch(stem)
    sample = samples.setdefault(role[1] if role else stem, _Sample())
    if role:
        (sample.masks if role[2] in _MASKS else sample.photos).append(member)
    else:
        (sample.plain if suffix in _MASK_SUFFIXES else sample.photos).append(member)


def _reasons(sample: _Sample) -> list[LeftOut]:
    photos, masks = sample.photos, sample.masks
    if photos and not masks:
        reason = "the photo has no mask: expected a PNG of the same name, or NAME.mask.png"
    elif masks and not photos:
        reason = "the mask has no photo"
    else:
        reason = f"{len(photos)} photos and {len(masks)} masks have the same name: keep one of each"
    return [LeftOut(Path(str(entry)), f"{entry}: {reason}") for entry in (*photos, *masks)]


def _unique_keys(places: list[tuple[str, str]]) -> list[str]:
    """Keys that are unique among all files: those in the files, or with the name of the file before them.

    >>> _unique_keys([("a/0.tar", "x"), ("a/1.tar", "x")]), _unique_keys([("a/0.tar", "x"), ("a/1.tar", "y")])
    (['0/x', '1/x'], ['x', 'y'])
    """
    plain = [key for _, key in places]
    named = [f"{PurePosixPath(file).stem}/{key}" for file, key in places]
    numbers = {file: number for number, file in enumerate(dict.fromkeys(file for file, _ in places))}
    numbered = [f"{numbers[file]}/{key}" for file, key in places]
    keys = next((keys for keys in (plain, named) if len(set(keys)) == len(keys)), numbered)
    return [safe_key(key, number) for number, key in enumerate(keys)]


def safe_key(key: str, number: int) -> str:
    """A key as a relative path, under which results can be saved; the number of the pair if it is not one.

    >>> safe_key("./a/b", 0), safe_key("../b", 7)
    ('a/b', '000007')
    """
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts or not path.name or set(key) & set("\\:\0"):
        return f"{number:06}"
    return path.as_posix()


class _IncompleteTarError(Exception):
    """A tar file ends too early or is damaged; what came before it was read."""


def _members(file: str) -> Iterator[TarMember]:
    """The files in a tar file, from its headers.

    Raises:
        DataError: it is compressed.
        _IncompleteTarError: it is cut or damaged.
    """
    end, archive = 0, None
    try:
        with attempt(file, lambda: _open(file)) as stream:
            start = stream.read(8)
            if method := next((name for magic, name in _PACKED.items() if start.startswith(magic)), None):
                raise DataError(f"{file} is compressed ({method}): decompress it, so that its parts can be read singly")
            stream.seek(0)
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (closing it would close nothing else)
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK * member.isreg()
                if member.isreg() and not member.issparse():
                    name = member.name.removeprefix("./")
                    yield TarMember(file, name, member.offset_data, member.size)
            stream.seek(end)
            if stream.read(_BLOCK) != b"\0" * _BLOCK:  # a complete tar file ends with empty blocks
                raise tarfile.ReadError("unexpected end of data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise _IncompleteTarError(f"{file} is incomplete or damaged: {describe(error)}") from error


def _open(file: str) -> IO[bytes]:
    if is_address(file):
        system, path = file_system(file)
        stream: IO[bytes] = system.open(path, "rb")
        return stream
    return Path(file).open("rb")

"""The photos of a work unit, one by one; ``batch.sources`` lists the units."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from deop.batch.stores import describe, file_system, is_address, patient_stream
from deop.batch.table import arrow

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".avif", ".heic",
     ".heif", ".ppm", ".pgm", ".pbm", ".pnm")
)  # fmt: skip
"""Suffixes of photos in directories, patterns and tar files; other files are ignored."""

_ROWS = 64  # of a Parquet file with images that are in memory at a time
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""Errors of damaged tar files, which another attempt would repeat."""


@dataclass(frozen=True)
class Item:
    """One input.

    Attributes:
        id: the input in its source.
        path: where it is, for people and for ``read_bytes``.
        data: the bytes of the image file; None: they are at ``path``.
        error: why there is no image; "" if there may be one.
        kind: the kind of this error.
    """

    id: str
    path: str
    data: bytes | None = None
    error: str = ""
    kind: str = "ImageError"


def is_photo(name: str) -> bool:
    """Whether a file is a photo by its suffix."""
    return Path(name).suffix.lower() in SUFFIXES


def items_of(unit: dict[str, Any]) -> Iterator[Item]:
    """The inputs of a unit, in order. What cannot be read is an item with an error."""
    if "ids" in unit:
        base = unit["base"]
        for name in unit["ids"]:
            yield Item(name, base + name)
    elif "parquet" in unit:
        yield from _rows_of_parquet(unit)
    else:
        yield from islice(photos_in_tar(unit["tar"], with_data=True), unit["limit"])


def _rows_of_parquet(unit: dict[str, Any]) -> Iterator[Item]:
    pa = arrow()
    file, start, stop = unit["parquet"], unit["start"], unit["stop"]
    system, path = file_system(file)

    def place(row: int) -> str:
        return f"{Path(file).name}:{unit['group']}:{row}"

    def cells(skip: int) -> Iterator[Any]:
        with system.open(path, "rb") as stream:
            batches = pa.parquet.ParquetFile(stream).iter_batches(
                _ROWS, row_groups=[unit["group"]], columns=[unit["column"]]
            )
            yield from islice((cell for batch in batches for cell in batch[0]), start + skip, stop)

    row = start
    try:
        for cell in patient_stream(cells, (pa.ArrowException,)) if is_address(file) else cells(0):
            data = content_of(cell.as_py())
            if isinstance(data, bytes):
                yield Item(place(row), file, data)
            elif data:
                yield Item(place(row), beside(file, data))
            else:
                reason = f"{file}, row {row} of row group {unit['group']}: no image and no path"
                yield Item(place(row), file, error=reason)
            row += 1
    except Exception as error:  # each store has classes of its own
        for unread in range(row, stop):
            yield Item(place(unread), file, error=f"cannot read {file}: {describe(error)}", kind=_kind_of(error))


def content_of(value: Any) -> bytes | str | None:
    """What a cell of an image column has: the bytes of a file, or its path.

    Args:
        value: bytes, a path, or the struct of Hugging Face datasets, {"bytes": ..., "path": ...}.
    """
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    return value if isinstance(value, bytes | str) else None


def beside(file: str, path: str) -> str:
    """A path that a list or table names; a relative one is relative to its directory."""
    if is_address(path) or Path(path).is_absolute():
        return path
    return f"{file.rpartition('/')[0]}/{path}" if is_address(file) else str(Path(file).parent / path)


def photos_in_tar(file: str, *, with_data: bool) -> Iterator[Item]:
    """The photos in a tar file, read from its beginning to its end. If it is cut, the last item has the error."""
    system, path = file_system(file)

    def photos(skip: int) -> Iterator[Item]:
        number = 0
        with system.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isfile() and is_photo(name) and not name.rpartition("/")[2].startswith("."):
                    number += 1
                    if number > skip:
                        yield Item(name, f"{file}/{name}", _content(archive, member) if with_data else None)
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them

    try:
        yield from patient_stream(photos, _DAMAGE) if is_address(file) else photos(0)
    except Exception as error:  # each store has classes of its own
        text = f"{file} is incomplete or damaged: {describe(error)}. What follows in it is not read"
        yield Item(file, file, error=text, kind=_kind_of(error))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    data = content.read() if content is not None else b""
    if len(data) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _kind_of(error: Exception) -> str:
    """The kind of the error of an input that could not be read from its file."""
    return "ImageError" if isinstance(error, (*_DAMAGE, FileNotFoundError)) else "OSError"

"""Where the image files of labelled data are: on disk, in tar files, in cells of Parquet files, or in object stores.

An entry is small, can be pickled and compared, and names its place in error messages. Nothing is open between two
reads, so entries work in threads and in worker processes, however these are started. The reader of Parquet keeps the
row groups that it read last, up to ``MAX_CACHED`` bytes in each process.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from deop.batch.items import beside, content_of
from deop.batch.stores import describe, file_system, is_address, patiently, read_bytes
from deop.batch.table import arrow
from deop.errors import DataError, DeopError
from deop.files import resolved

T = TypeVar("T")

MAX_CACHED = 128 << 20
"""Bytes of row groups that each process keeps. The last one is kept in any case."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in an object store.

    Attributes:
        address: its address, as fsspec has it.
    """

    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def container(self) -> str:
        """The file that holds the entry."""
        return self.address

    @property
    def name(self) -> str:
        """The file name."""
        return self.address.rpartition("/")[2]

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: they cannot be read.
        """
        return _read_file(self.address, self.address)


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar file.

    Attributes:
        container: path or address of the tar file.
        member: the name in it.
        offset: where its bytes begin, counted from the start of the tar file.
        size: number of bytes.
    """

    container: str
    member: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.container}/{self.member}"

    @property
    def name(self) -> str:
        """The file name."""
        return self.member.rpartition("/")[2]

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: they cannot be read.
        """
        try:
            data = _read_part(self.container, self.offset, self.size)
        except Exception as error:  # each store has classes of its own
            raise _unreadable(str(self), error) from error
        if len(data) < self.size:
            raise DataError(f"cannot read {self}: {self.container} is shorter than when it was opened")
        return data


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a Parquet file: the bytes of an image file, its path, or Hugging Face's struct of both.

    Attributes:
        container: path or address of the Parquet file.
        group: number of the row group.
        row: number of the row in its group.
        number: number of the row in the file.
        column: name of the column.
    """

    container: str
    group: int
    row: int
    number: int
    column: str

    def __str__(self) -> str:
        return f"{self.container}, row {self.number}, column {self.column!r}"

    @property
    def name(self) -> str:
        """The place in the file."""
        return f"row {self.number}, column {self.column!r}"

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: they cannot be read, or the cell is empty.
        """
        content = content_of(_row_groups.column(self.container, self.group, self.column)[self.row].as_py())
        if isinstance(content, str) and content:
            return _read_file(beside(self.container, content), str(self))
        if not content:
            raise DataError(f"cannot read {self}: it has neither an image nor a path")
        assert isinstance(content, bytes)
        return content


Entry = Path | StoredFile | TarMember | Cell
"""A photo or mask of labelled data."""


class _NamedBytes(BytesIO):
    """The bytes of an image file, with the name that error messages use."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def image_source(entry: Entry) -> Path | BytesIO:
    """A photo in a form that ``read_photo`` and ``encode`` take, and that names it in error messages.

    Raises:
        DataError: its bytes cannot be read from where they are stored.
    """
    return entry if isinstance(entry, Path) else _NamedBytes(entry.read(), str(entry))


def identity(entry: Entry) -> Entry:
    """An entry as a value that is equal for the same file."""
    return resolved(entry) if isinstance(entry, Path) else entry


def stamp(place: Path | str) -> str:
    """A text that changes when a file changes: from its size and time of change, or from what its store says.

    Raises:
        OSError: the file cannot be found.
    """
    if isinstance(place, Path) or not is_address(place):
        status = Path(place).stat()
        return f"{Path(place).absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
    system, path = file_system(place)
    facts = patiently(lambda: system.info(path))
    return "\0".join(str(facts.get(key)) for key in ("name", "size", "ETag", "etag", "LastModified", "mtime"))


def _read_file(place: str, name: str) -> bytes:
    try:
        return read_bytes(place)
    except Exception as error:  # each store has classes of its own
        raise _unreadable(name, error) from error


def _read_part(place: str, offset: int, size: int) -> bytes:
    if is_address(place):
        system, path = file_system(place)
        data: bytes = patiently(lambda: system.cat_file(path, start=offset, end=offset + size))
        return data
    with Path(place).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _unreadable(name: str, error: Exception) -> DeopError:
    if isinstance(error, DeopError):
        return error
    return DataError(f"cannot read {name}: {describe(error)}")


def attempt(place: str, action: Callable[[], T]) -> T:
    """Read from a path once, or from an address with further attempts if a connection is lost."""
    return patiently(action) if is_address(place) else action()


# --- Parquet


def parquet_metadata(file: str) -> Any:
    """The footer of a Parquet file, pyarrow's ``FileMetaData``; its row groups are not read.

    Raises:
        DataError: the file cannot be read, or is not a Parquet file.
    """
    return _metadata(file, _version(file))


def _version(file: str) -> str:
    """A text that changes when a local file is written again; "" for an address, where asking takes a request."""
    with suppress(OSError):
        return "" if is_address(file) else stamp(file)
    return ""


@lru_cache(maxsize=64)
def _metadata(file: str, version: str) -> Any:
    pa = arrow()

    def read() -> Any:
        system, path = file_system(file)
        with system.open(path, "rb") as stream:
            return pa.parquet.read_metadata(stream)

    try:
        return attempt(file, read)
    except Exception as error:  # each store has classes of its own
        raise _unreadable(file, error) from error


def read_columns(file: str, group: int, columns: list[str]) -> Any:
    """Some columns of a row group, a ``pyarrow.Table``. ``"image.path"`` is a part of a struct.

    Raises:
        DataError: the file cannot be read.
    """
    pa = arrow()

    def read() -> Any:
        system, path = file_system(file)
        with system.open(path, "rb") as stream:
            content = pa.parquet.ParquetFile(stream, metadata=parquet_metadata(file))
            return content.read_row_group(group, columns=columns, use_threads=False)

    try:
        return attempt(file, read)
    except Exception as error:  # each store has classes of its own
        raise _unreadable(f"{file}, row group {group}, {' and '.join(columns)}", error) from error


class _RowGroups:
    """The columns of row groups that were read last."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._lock = threading.Lock()
        self._columns: OrderedDict[tuple[str, str, int, str], Any] = OrderedDict()

    def column(self, file: str, group: int, column: str) -> Any:
        """A column of a row group, pyarrow's ``ChunkedArray``."""
        key = (file, _version(file), group, column)
        with self._lock:  # so that threads that need the same group do not all read it
            values = self._columns.pop(key, None)
            if values is None:
                # What does not fit is dropped first, so that memory does not hold it and the new group together.
                size = _stored_bytes(file, group, column)
                while self._columns and size + sum(kept.nbytes for kept in self._columns.values()) > MAX_CACHED:
                    self._columns.popitem(last=False)
                values = read_columns(file, group, [column])[column]
            self._columns[key] = values
            return values


def _stored_bytes(file: str, group: int, column: str) -> int:
    """The size of a column of a row group in memory, roughly."""
    row_group = parquet_metadata(file).row_group(group)
    parts = (row_group.column(index) for index in range(row_group.num_columns))
    return sum(
        part.total_uncompressed_size
        for part in parts
        if part.path_in_schema == column or part.path_in_schema.startswith(f"{column}.")
    )


def forget_row_groups() -> None:
    """Free the memory of the row groups that this process keeps."""
    _row_groups.clear()


_row_groups = _RowGroups()
if hasattr(os, "register_at_fork"):
    # A thread of the parent may hold the lock while a worker process is forked.
    os.register_at_fork(after_in_child=forget_row_groups)

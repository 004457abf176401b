"""Where the photos of a batch come from: directories, patterns, lists, Parquet columns, and tar files.

A source is listed once into work units, which are JSON objects of one of three kinds:

- ``{"base": B, "ids": [...]}``: files at ``B`` + id,
- ``{"parquet": FILE, "column": NAME, "group": G, "start": A, "stop": Z}``: rows A to Z of a row group,
- ``{"tar": FILE, "limit": N}``: the photos in a tar file, at most N of them, or all for null.
"""

import glob
import io
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from deop.batch.items import SUFFIXES, beside, is_photo, photos_in_tar
from deop.batch.stores import describe, file_system, is_address, patient_stream, reach, walk
from deop.batch.table import arrow
from deop.errors import DataError, ImageError, SettingError

LARGEST = 1000
"""Maximum number of photos in a shard, unless the number of shards is given."""
LARGEST_CHOSEN = 20_000
"""The same if it is given: the rows of a shard are in memory until it is written."""
SMALLEST = 16
"""Minimum number of photos in a shard, if there are as many."""
TARGET = 64
"""Number of shards that a small input is divided into, so that several workers share it."""

_COLUMNS = ("image", "path", "url", "file", "file_name", "filename")
_GLOB = frozenset("*?[")
_IN_MEMORY = 16 << 20  # bytes of a list; a longer one is kept in a temporary file


def list_units(place: str, *, column: str | None, limit: int | None, shards: int | None) -> Iterator[dict[str, Any]]:
    """The work units of an input.

    Args:
        place: a directory, a pattern, a list, Parquet files or tar files; a path or an address of fsspec.
        column: the column of Parquet files with paths or images; None: one with a usual name.
        limit: use the first photos only.
        shards: number of units; None: units of 16 to 1,000 photos.

    Raises:
        ImageError: there are no photos.
        DataError: a file cannot be read, or lacks the column.
        SettingError: ``shards`` for tar files, which are the shards.
    """
    ids: Iterator[str]
    files = expand(place)
    kinds = {kind_of(file) for file in files} if files is not None else set()
    if len(kinds & {"tar", "parquet", "list"}) > 1 or ("image" in kinds and len(kinds) > 1):
        raise SettingError(
            f"{place} names files of several kinds ({', '.join(sorted(kinds))}): give one kind at a time"
        )
    kind = next(iter(kinds), "directory") if files is not None else "directory"
    if column is not None and kind != "parquet":
        raise SettingError(f"--column applies to Parquet files, and {place} is none: omit it, or give FILES.parquet")
    if files is not None and kind == "tar":
        if shards is not None:
            raise SettingError("--shards does not apply to tar files, which are the shards: omit it")
        return _tar_units(files, limit)
    if files is not None and kind == "parquet":
        return _parquet_units(files, column, limit, shards)
    if files is not None and kind == "list":
        base, ids = "", (line for file in files for line in _lines(file))
    elif files is not None:
        base, ids = "", iter(files)
    else:
        root = place if is_address(place) else str(Path(place).expanduser().absolute())
        base, ids = root.rstrip("/") + "/", _walk(place)
    return _file_units(place, base, islice(ids, limit), shards)


def kind_of(file: str) -> str:
    """What a file is by its suffix: "tar", "parquet", "list" or "image"."""
    suffix = Path(file).suffix.lower()
    return {".tar": "tar", ".parquet": "parquet", ".pq": "parquet", ".txt": "list", ".lst": "list"}.get(suffix, "image")


def expand(place: str) -> list[str] | None:
    """The files that an input names; None for a directory."""
    if "{" in place and ".." in place and not Path(place).exists():
        return [file for text in _braces(place) for file in (expand(text) or [])]
    if _GLOB & set(place) and (is_address(place) or not Path(place).exists()):
        files = [name for name in _matching(place) if kind_of(name) != "image" or is_photo(name)]
        if not files:
            raise ImageError(f"no photos match {place}: check the pattern")
        return files
    if not is_address(place):
        local = Path(place).expanduser()
        if local.is_dir():
            return None
        if not local.exists():
            raise ImageError(f"{place} does not exist: give a directory, a pattern, a list, Parquet or tar files")
        return [str(local.absolute())]
    system, path = file_system(place)
    if kind_of(place) != "image" or is_photo(place):
        reach(place, lambda: system.info(path))
        return [place]
    return None


def _matching(pattern: str) -> list[str]:
    """The files and directories that match a pattern, in the order of their names."""
    if not is_address(pattern):  # without fsspec, which the base install does not have
        return sorted(glob.glob(str(Path(pattern).expanduser().absolute()), recursive=True))  # noqa: PTH207
    system, path = file_system(pattern)
    return sorted(str(system.unstrip_protocol(name)) for name in reach(pattern, lambda: system.glob(path)))


def _braces(text: str) -> list[str]:
    """The texts that WebDataset's notation stands for.

    >>> _braces("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    head, _, rest = text.partition("{")
    inside, closed, tail = rest.partition("}")
    first, separator, last = inside.partition("..")
    if not (closed and separator and first.isdecimal() and last.isdecimal()):
        return [text]
    numbers = range(int(first), int(last) + 1)
    return [f"{head}{number:0{len(first)}d}{end}" for number in numbers for end in _braces(tail)]


def _walk(place: str) -> Iterator[str]:
    """The photos below a directory, by their path in it.

    In the order of names; those behind links to directories come last. A directory is used once, whatever links to it.
    """
    if is_address(place):
        yield from filter(is_photo, walk(place))
        return
    root = Path(place).expanduser()
    visited, links = {os.path.realpath(root)}, [""]
    while links:
        pending, links = sorted(links), []
        for below in pending:
            target = os.path.realpath(root / below)
            contains = Path(os.path.realpath((root / below).parent)).is_relative_to(target)
            if below and (target in visited or contains):
                continue
            visited.add(target)
            yield from _walk_local(root, below, visited, links)


def _walk_local(root: Path, below: str, visited: set[str], links: list[str]) -> Iterator[str]:
    """The photos in a directory and those in it, except links to directories, which are added to ``links``."""
    try:
        with os.scandir(root / below) as entries:
            found = sorted(
                (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError as error:
        raise DataError(f"cannot list {root / below}: {error.strerror or error}") from error
    for name, is_link, is_folder in found:
        path = below + name
        if is_link and (root / path).is_dir():  # no error for links in a circle
            links.append(f"{path}/")
        elif is_folder and (real := os.path.realpath(root / path)) not in visited:
            visited.add(real)
            yield from _walk_local(root, f"{path}/", visited, links)
        elif not is_folder and is_photo(name):
            yield path


def _lines(file: str) -> Iterator[str]:
    """The paths in a list; those that are relative are relative to the list."""
    system, path = file_system(file)

    def lines(skip: int) -> Iterator[str]:
        with system.open(path, "rb") as stream:
            yield from islice(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape"), skip, None)

    try:
        for line in patient_stream(lines) if is_address(file) else lines(0):
            if text := line.strip():
                yield beside(file, text)
    except Exception as error:  # each store has classes of its own
        raise DataError(f"cannot read the list {file}: {describe(error)}") from error


def _file_units(place: str, base: str, ids: Iterator[str], shards: int | None) -> Iterator[dict[str, Any]]:
    """Files in units of one size. Their list is kept on disk until their number is known."""
    with tempfile.SpooledTemporaryFile(
        _IN_MEMORY, "w+", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as spool:
        count = 0
        for count, name in enumerate(ids, 1):  # noqa: B007
            spool.write(name.replace("\n", "\0") + "\n")  # no name of a file contains \0
        if not count:
            raise ImageError(
                f"no photos in {place}: give a directory with photos ({', '.join(sorted(SUFFIXES)[:6])}, ...)"
            )
        spool.seek(0)
        size = unit_size(count, shards)
        lines = iter(spool)
        while chunk := [line.removesuffix("\n").replace("\0", "\n") for line in islice(lines, size)]:
            yield {"base": base, "ids": chunk, "count": len(chunk)}


def unit_size(count: int, shards: int | None) -> int:
    """The number of photos in a unit.

    >>> unit_size(200, None), unit_size(20_000, None), unit_size(10_000_000, None), unit_size(10_000_000, 1000)
    (16, 313, 1000, 10000)

    Raises:
        SettingError: a shard would have more than ``LARGEST_CHOSEN`` photos.
    """
    if shards is not None:
        size = max(1, ceil(count / shards))
        if size > LARGEST_CHOSEN:
            raise SettingError(
                f"--shards {shards} makes files of {size:,} photos, which must fit in memory: give at least "
                f"{ceil(count / LARGEST_CHOSEN)}, or omit it"
            )
        return size
    return min(LARGEST, max(SMALLEST, ceil(count / TARGET)))


def _parquet_units(
    files: list[str], column: str | None, limit: int | None, shards: int | None
) -> Iterator[dict[str, Any]]:
    groups: list[tuple[str, str, int, int]] = []  # file, column, row group, rows
    total = 0
    for file in files:
        chosen, rows = _describe_parquet(file, column)
        for group, number in enumerate(rows):
            taken = number if limit is None else min(number, limit - total)
            if taken > 0:
                groups.append((file, chosen, group, taken))
                total += taken
    if not total:
        raise ImageError(f"{files[0]} has no rows")
    size = unit_size(total, shards)
    for file, chosen, group, rows_of_group in groups:
        for start in range(0, rows_of_group, size):
            stop = min(start + size, rows_of_group)
            yield {
                "parquet": file,
                "column": chosen,
                "group": group,
                "start": start,
                "stop": stop,
                "count": stop - start,
            }


def _describe_parquet(file: str, column: str | None) -> tuple[str, list[int]]:
    """The column to read, and the number of rows of each row group."""
    pa = arrow()
    system, path = file_system(file)

    def describe_content() -> tuple[list[str], list[int]]:
        with system.open(path, "rb") as stream:
            content = pa.parquet.ParquetFile(stream)
            metadata = content.metadata
            rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            return content.schema_arrow.names, rows

    try:
        names, rows = reach(file, describe_content) if is_address(file) else describe_content()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {describe(error)}") from error
    chosen = column if column is not None else next((name for name in _COLUMNS if name in names), None)
    if chosen is None or chosen not in names:
        wanted = f"no column {column!r}" if column else "no column of a usual name for images"
        raise DataError(f"{file} has {wanted}: give --column with one of {', '.join(names)}")
    return chosen, rows


def _tar_units(files: list[str], limit: int | None) -> Iterator[dict[str, Any]]:
    taken = 0
    for file in files:
        if limit is None:
            yield {"tar": file, "limit": None, "count": None}
            continue
        number = sum(1 for _ in islice(photos_in_tar(file, with_data=False), limit - taken))
        if number:
            yield {"tar": file, "limit": number, "count": number}
        taken += number
        if taken >= limit:
            return

"""Object stores through fsspec: addresses, further attempts when a connection is lost, and errors that name them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from deop.dependencies import missing
from deop.errors import DataError, ImageError, SettingError

T = TypeVar("T")

PAUSES = (0.5, 2.0, 8.0)
"""Seconds before each further attempt after a connection is lost or a server reports an error."""

FULL = frozenset((28, 122))
"""Error numbers of a full disk and of an exhausted quota: ENOSPC, EDQUOT."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""Errors that another attempt would repeat."""


def is_address(place: str) -> bool:
    """Whether a text is an address of fsspec rather than a path.

    >>> is_address("s3://bucket/photos"), is_address("/data/photos"), is_address("C:\\\\photos")
    (True, False, False)
    """
    return "://" in place


def file_system(place: str) -> tuple[Any, str]:
    """The file system of fsspec for an address or path, and the path in it.

    Raises:
        MissingDependencyError: fsspec, or the library of this kind of address, is not installed.
        SettingError: an unknown kind of address.
    """
    try:
        import fsspec
    except ModuleNotFoundError:
        raise missing("deop batch", "fsspec") from None
    try:
        system, path = fsspec.core.url_to_fs(place if is_address(place) else str(Path(place).expanduser().absolute()))
    except ImportError as error:
        raise SettingError(f"{place} needs another library: {error}") from error
    except Exception as error:  # each store has classes of its own, for example for missing credentials
        raise SettingError(f"{place}: {describe(error)}") from error
    return system, path.rstrip("/") or "/"


def describe(error: BaseException) -> str:
    """An error in one line: that of the operating system if it has one, else its class and text."""
    text = " ".join(str(error).split())
    return getattr(error, "strerror", None) or (f"{type(error).__name__}: {text}" if text else type(error).__name__)


def patiently(action: Callable[[], T], pauses: tuple[float, ...] | None = None) -> T:
    """Call a function, and again after a pause if a connection is lost or a server fails.

    Raises:
        Exception: that of the last attempt, or at once if another attempt would repeat it.
    """
    for pause in PAUSES if pauses is None else pauses:
        try:
            return action()
        except _FINAL:
            raise
        except Exception as error:  # each store has classes of its own
            if isinstance(error, OSError) and error.errno in FULL:
                raise
        time.sleep(pause)
    return action()


def patient_stream(start: Callable[[int], Iterator[T]], final: tuple[type[Exception], ...] = ()) -> Iterator[T]:
    """The items of a stream that is opened again where it was when a connection was lost.

    Args:
        start: opens the stream and skips a number of items.
        final: errors that another attempt would repeat, in addition to missing files and permissions.

    Raises:
        Exception: that of the last attempt without an item, or at once if another attempt would repeat it.
    """
    count = attempts = 0
    while True:
        try:
            for item in start(count):
                yield item
                count += 1
                attempts = 0
            return
        except Exception as error:  # each store has classes of its own
            if isinstance(error, (*_FINAL, *final)) or attempts == len(PAUSES):
                raise
            time.sleep(PAUSES[attempts])
            attempts += 1


def reach(place: str, action: Callable[[], T]) -> T:
    """Read from an address or path, with further attempts.

    Raises:
        ImageError: it does not exist.
        DataError: it cannot be read.
    """
    try:
        return patiently(action)
    except FileNotFoundError:
        raise ImageError(f"{place} does not exist: give a directory, a pattern, a list, Parquet or tar files") from None
    except Exception as error:  # each store has classes of its own
        remedy = "check the address and the credentials, or repeat the command when the store can be reached"
        if not is_address(place):
            remedy = "check the file and its permissions"
        raise DataError(f"cannot read {place}: {describe(error)}; {remedy}") from error


def read_bytes(place: str) -> bytes:
    """The content of a file at an address or path, with further attempts if a connection is lost."""
    if not is_address(place):
        return Path(place).read_bytes()
    system, path = file_system(place)
    content: bytes = patiently(lambda: system.cat_file(path))
    return content


def walk(place: str) -> Iterator[str]:
    """The files below an address, by their path in it, in the order of names; one directory at a time is in memory.

    fsspec's own ``walk`` leaves out directories that cannot be listed at the moment.
    """
    system, root = file_system(place)
    yield from _walk(place, system, root, "")


def _walk(place: str, system: Any, folder: str, below: str) -> Iterator[str]:
    entries = reach(place, lambda: system.ls(folder, detail=True))
    system.invalidate_cache(folder)  # else it keeps all directories in memory
    found = sorted(
        (name, entry["type"] == "directory")
        for entry in entries
        if (name := entry["name"].rstrip("/").rpartition("/")[2]) and not _is_marker(entry, folder)
    )
    del entries
    for name, is_folder in found:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _walk(place, system, f"{folder}/{name}", f"{below}{name}/")
        else:
            yield below + name


def _is_marker(entry: dict[str, Any], folder: str) -> bool:
    """Whether an entry is the directory itself: some programs store an empty object for it."""
    return str(entry["name"]).strip("/") == folder.strip("/")

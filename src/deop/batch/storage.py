"""Files of a batch on local disk or in an object store: complete or absent, retried when a connection is lost."""

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from deop.dependencies import missing
from deop.errors import OutputError, SettingError

T = TypeVar("T")

PAUSES = (0.5, 2.0, 8.0)
"""Seconds before each further attempt after a connection is lost or a server reports an error."""

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
    except ValueError as error:
        raise SettingError(f"{place}: {error}") from error
    return system, path.rstrip("/") or "/"


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
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
        time.sleep(pause)
    return action()


_FULL = frozenset((28, 122))  # ENOSPC, EDQUOT


def read_bytes(place: str) -> bytes:
    """The content of a file at an address or path, with further attempts if a connection is lost."""
    if not is_address(place):
        return Path(place).read_bytes()
    system, path = file_system(place)
    return patiently(lambda: system.cat_file(path))


class Storage:
    """The directory of a batch's output.

    Args:
        place: a path, or an address of fsspec.
    """

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") or "/"
        self.is_local = not is_address(place) or place.startswith(("file://", "local://"))
        self._system, self._root = file_system(self.place)
        self._lock: IO[bytes] | None = None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def lock(self) -> None:
        """Hold a local directory for this process, and delete what a killed one left incomplete.

        Raises:
            SettingError: another process holds it.
            OutputError: it cannot be created.
        """
        if not self.is_local:
            return
        try:
            Path(self._path("_deop")).mkdir(parents=True, exist_ok=True)
            file = Path(self._path("_deop/lock")).open("wb")  # noqa: SIM115 (it is held until ``unlock``)
        except OSError as error:
            raise self._unwritable("_deop", error) from error
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError as error:
            file.close()
            raise SettingError(
                f"another process is writing {self.place}: wait for it, or choose another output"
            ) from error
        self._lock = file
        for folder in (Path(self._root), Path(self._path("_deop"))):
            for leftover in folder.glob(".*.part"):
                with suppress(OSError):
                    leftover.unlink()

    def unlock(self) -> None:
        """Give the directory free. If nothing was begun in it, it is deleted."""
        if self._lock is None:
            return
        if not Path(self._path("_deop/settings.json")).exists():
            with suppress(OSError):
                Path(self._path("_deop/lock")).unlink()
                Path(self._path("_deop")).rmdir()
                Path(self._root).rmdir()
        self._lock.close()
        self._lock = None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears once it is complete.

        Raises:
            OutputError: it cannot be written, for example because the disk is full; nothing is left of it.
        """
        try:
            if not self.is_local:
                patiently(lambda: self._system.pipe_file(self._path(name), content))
                return
            target = Path(self._path(name))
            with _Beside(target) as file:
                file.write(content)
        except OutputError:
            raise
        except Exception as error:  # each store has classes of its own
            raise self._unwritable(name, error) from error

    def upload(self, name: str, source: Path) -> None:
        """Copy a local file of any size to the output, where it appears once it is complete.

        Raises:
            OutputError: as for ``write``.
        """
        try:
            if not self.is_local:
                patiently(lambda: self._system.put_file(str(source), self._path(name)))
                return
            import shutil

            with source.open("rb") as content, _Beside(Path(self._path(name))) as file:
                shutil.copyfileobj(content, file, 1 << 20)
        except OutputError:
            raise
        except Exception as error:
            raise self._unwritable(name, error) from error

    def _unwritable(self, name: str, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        remedy = "choose a place you may write to"
        if isinstance(error, OSError) and error.errno in _FULL:
            remedy = "free some space and repeat the command: finished shards are kept"
        elif not self.is_local:
            remedy = "repeat the command when the store can be reached: finished shards are kept"
        return OutputError(f"cannot write {self.place}/{name}: {reason}; {remedy}")

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            if self.is_local:
                return Path(self._path(name)).read_bytes()
            return patiently(lambda: self._system.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Some bytes of a file."""
        if self.is_local:
            with Path(self._path(name)).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        return patiently(lambda: self._system.cat_file(self._path(name), start=start, end=stop))

    def names(self) -> list[str]:
        """The names of the files in the directory, not those below it."""
        try:
            if self.is_local:
                return sorted(entry.name for entry in Path(self._root).iterdir())
            self._system.invalidate_cache()
            entries = patiently(lambda: self._system.ls(self._root, detail=False))
        except FileNotFoundError:
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        with suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def address(self, name: str) -> str:
        """What other programs open to read a file."""
        return f"{self.place}/{name}"


class _Beside:
    """A local file that is written beside its place, synchronised to disk, and renamed if no error occurs."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")

    def __enter__(self) -> IO[bytes]:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("xb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())  # else a power failure could leave a complete name with no content
            self._file.close()
            if kind is None:
                self._temporary.replace(self._target)
                _synchronise(self._target.parent)
        finally:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink()


def _synchronise(folder: Path) -> None:
    with suppress(OSError):  # Windows cannot open folders
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

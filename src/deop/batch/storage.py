"""Files of a batch on local disk or in an object store: complete or absent, retried when a connection is lost."""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from deop.batch.lease import Lease
from deop.batch.stores import FULL, describe, file_system, is_address, patiently
from deop.errors import OutputError, SettingError
from deop.files import lock_file

T = TypeVar("T")

OWNER = "_deop/owner.json"
"""In an object store: which process is writing the output."""


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
        self._lease: Lease | None = None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def lock(self) -> None:
        """Hold the directory for this process, and delete what a killed one left incomplete.

        Raises:
            SettingError: another process holds it.
            OutputError: it cannot be created.
        """
        if not self.is_local:
            lease = Lease(
                self.place,
                read=lambda: self.read(OWNER),
                write=lambda content: self.write(OWNER, content),
                remove=lambda: self.remove(OWNER),
            )
            lease.take()
            self._lease = lease
            return
        try:
            Path(self._path("_deop")).mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(Path(self._path("_deop/lock")))
        except BlockingIOError as error:
            raise SettingError(
                f"another process is writing {self.place}: wait for it, or choose another output"
            ) from error
        except OSError as error:
            raise self._unwritable("_deop", error) from error
        for folder in (Path(self._root), Path(self._path("_deop"))):
            for leftover in folder.glob(".*.part"):
                with suppress(OSError):
                    leftover.unlink()

    def unlock(self) -> None:
        """Give the directory free. If nothing was begun in it, it is deleted."""
        if self._lease is not None:
            self._lease.give_back()
            self._lease = None
        if self._lock is None:
            return
        if not Path(self._path("_deop/settings.json")).exists():
            with suppress(OSError):
                Path(self._path("_deop/lock")).unlink()
                Path(self._path("_deop")).rmdir()
                Path(self._root).rmdir()
        self._lock.close()
        self._lock = None

    def check_lock(self) -> None:
        """Check that the directory is still held by this process.

        Raises:
            OutputError: another batch has taken it over, since this one could not reach the store for too long.
        """
        if self._lease is not None:
            self._lease.check()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears once it is complete.

        Raises:
            OutputError: it cannot be written, for example because the disk is full; nothing is left of it.
        """
        self.check_lock()
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
        remedy = "choose a place you may write to"
        if isinstance(error, OSError) and error.errno in FULL:
            remedy = "free some space and repeat the command: finished shards are kept"
        elif not self.is_local and isinstance(error, FileNotFoundError):
            remedy = "create the bucket, or choose another output"
        elif not self.is_local and not isinstance(error, PermissionError):
            remedy = "repeat the command when the store can be reached: finished shards are kept"
        return OutputError(f"cannot write {self.place}/{name}: {describe(error)}; {remedy}")

    def _reading(self, name: str, action: Callable[[], T]) -> T:
        """Read something of the output, with further attempts if it is in a store.

        Raises:
            FileNotFoundError: it does not exist.
            OutputError: it cannot be read.
        """
        try:
            return action() if self.is_local else patiently(action)
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has classes of its own
            remedy = "check its permissions" if self.is_local else "repeat the command when the store can be reached"
            raise OutputError(
                f"cannot read {self.place}/{name}: {describe(error)}; {remedy}: finished shards are kept"
            ) from error

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            OutputError: it cannot be read.
        """

        def content() -> bytes:
            if self.is_local:
                return Path(self._path(name)).read_bytes()
            return bytes(self._system.cat_file(self._path(name)))

        try:
            return self._reading(name, content)
        except FileNotFoundError:
            return None

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Some bytes of a file.

        Raises:
            OutputError: it cannot be read.
        """

        def content() -> bytes:
            if self.is_local:
                with Path(self._path(name)).open("rb") as file:
                    file.seek(start)
                    return file.read(stop - start)
            return bytes(self._system.cat_file(self._path(name), start=start, end=stop))

        try:
            return self._reading(name, content)
        except FileNotFoundError:
            raise OutputError(f"{self.place}/{name} is missing: add --overwrite to start again") from None

    def names(self) -> list[str]:
        """The names of the files in the directory, not those below it.

        Raises:
            OutputError: it cannot be listed.
        """

        def entries() -> list[str]:
            if self.is_local:
                return [entry.name for entry in Path(self._root).iterdir()]
            self._system.invalidate_cache()
            return [str(entry) for entry in self._system.ls(self._root, detail=False)]

        try:
            return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in self._reading("", entries))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Delete a file, if it exists.

        Raises:
            OutputError: it cannot be deleted.
        """
        with suppress(FileNotFoundError):
            self._reading(name, lambda: self._system.rm_file(self._path(name)))

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

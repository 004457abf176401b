"""Files: written completely or not at all, and read with errors that name them."""

import errno
import hashlib
import json
import os
import shlex
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from deop.errors import CheckpointError, DeopError, OutputError, SettingError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""File name extensions of pickled weights, which only ``deop convert`` reads."""

WEIGHT_INDEX = "model.safetensors.index.json"
"""Name of the file that lists the shards of weights in several files."""

PICKLE_INDEX = "pytorch_model.bin.index.json"
"""The same for pickled weights."""


LARGEST_TEXT = 64 * 1024**2
"""Bytes of the largest file of names, settings or the like that is read."""

_LARGEST_CONFIG = 64 * 1024**2  # bytes of a JSON file of a model folder; those of the largest models have 10 MB


def check_regular(path: Path, *, pipes: bool = False, largest: int | None = None) -> None:
    """Refuse what has no end, or no end that fits in memory: a pipe, a device, a socket, a file that is too large.

    Args:
        path: the file. A folder is not refused: reading it says what is wrong.
        pipes: whether a pipe is accepted, as a shell passes it for ``<(COMMAND)``.
        largest: bytes of the largest file; None: any.

    Raises:
        OSError: it is refused, is missing, or cannot be looked at.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or (pipes and stat.S_ISFIFO(status.st_mode))):
        kind = "pipe" if stat.S_ISFIFO(status.st_mode) else "device"
        raise OSError(f"it is a {kind}, not a file")
    if largest is not None and stat.S_ISREG(status.st_mode) and status.st_size > largest:
        raise OSError(f"it has {status.st_size:,} bytes, and at most {largest:,} are read")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside ``path``, and rename it to ``path`` once it is complete.

    Missing parent folders are created. If anything fails, an existing file at ``path`` stays as it was.

    Args:
        path: the file to write.

    Yields:
        The binary file to write to.

    Raises:
        OutputError: the folder cannot be created or written to, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:60]}.{uuid.uuid4().hex[:8]}.part")
    try:
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder; give a file name in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
        temporary.replace(target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):  # after success, or if the folder could not be created, there is no such file
            temporary.unlink()


def check_writable(places: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse places that cannot be written, before slow work begins whose results would be lost. Nothing is created.

    Args:
        places: files or folders to write, which need not exist; nor need the folders that they are in.

    Raises:
        OutputError: the folder that exists does not permit it, or is none.
    """
    for folder in dict.fromkeys(Path(place).absolute().parent for place in places):
        existing = next((parent for parent in (folder, *folder.parents) if existing_path(parent)), folder)
        if not existing.is_dir():
            raise OutputError(f"cannot write into {folder}: {existing} is not a folder; choose another place")
        if not os.access(existing, os.W_OK | os.X_OK):
            read_only = hasattr(os, "statvfs") and os.statvfs(existing).f_flag & os.ST_RDONLY
            reason = os.strerror(errno.EROFS if read_only else errno.EACCES)
            raise OutputError(f"cannot write into {existing}: {reason}; choose a folder you may write to")


def lock_file(path: Path) -> BinaryIO:
    """Lock a file for this process. The lock ends when the file is closed, also by a kill.

    Folders of network drives that support no locks are used without one.

    Args:
        path: the file; it is created if it is missing.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be created.
    """
    file = path.open("ab")
    try:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            import msvcrt

            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            except PermissionError as error:
                raise BlockingIOError(*error.args) from error
    except BlockingIOError:
        file.close()
        raise
    except OSError:  # no locks here
        pass
    return file


def existing_path(name: str | Path) -> Path | None:
    """The file or folder at a path, with ``~`` expanded; None if there is none or the path is invalid."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no permission, or no such user
        return None


def existing_folder(name: str | Path) -> Path | None:
    """The folder at a path, with ``~`` expanded; None if there is none or the path is invalid."""
    path = existing_path(name)
    return path if path is not None and path.is_dir() else None


def resolved(path: Path) -> Path:
    """The absolute path without links; that of a link that leads to itself, or nowhere to be seen, as it is.

    ``Path.resolve`` raises a RuntimeError for the former before Python 3.13.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def parse_json(path: Path, *, largest: int | None = None) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        largest: bytes of the largest file to read; None: any.

    Raises:
        OSError: the file cannot be read, or is too large.
        ValueError: it is not UTF-8, not JSON, or nested too deeply.
    """
    check_regular(path, largest=largest)
    return json_of(path.read_text(encoding="utf-8-sig"))


def json_of(content: str | bytes) -> Any:
    """The value of a text in JSON.

    Raises:
        ValueError: it is not JSON, or nested too deeply.

    >>> json_of('{"a": [1]}')
    {'a': [1]}
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


UNFINISHED = ".deop-"
"""Names of temporary folders begin with it; a process that is killed leaves them."""


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Write the files of a model folder into a temporary folder, and move them to ``folder`` once they are complete.

    A new folder appears at once, with all its files. Into one that exists, ``config.json`` is moved last: without it a
    folder is no model. If anything fails, nothing is left behind.

    Args:
        folder: the model folder; it is created if it is missing.

    Yields:
        The temporary folder.

    Raises:
        OutputError: the folder cannot be created or written to, or the disk is full.
    """
    place = folder if folder.exists() else folder.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=UNFINISHED, dir=place) as temporary:
            beside = Path(temporary, "model")
            beside.mkdir()
            yield beside
            _move_into_place(beside, folder, last="config.json")
    except BaseException as error:
        if isinstance(error, DeopError):
            raise
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":  # also for I/O errors
            raise OutputError(
                f"cannot write the model to {folder}: {getattr(error, 'strerror', None) or error}. Choose a folder you "
                "may write to"
            ) from error
        raise


@contextmanager
def folder_of_results(path: Path, *, empty: bool = False) -> Iterator[Path]:
    """Write a folder of results into a temporary folder beside ``path``, whose files move to ``path`` at the end.

    A missing folder appears in one step; into an existing one the files are moved one by one. If anything fails before,
    ``path`` stays as it was.

    Args:
        path: the folder.
        empty: refuse a folder that has files; an empty one is replaced in one step.

    Yields:
        The temporary folder.

    Raises:
        OutputError: ``path`` is a file, has files although it should be empty, or cannot be written.
    """
    temporary = path.with_name(f".{path.name[:60]}.{uuid.uuid4().hex[:8]}.part")
    try:
        if empty and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"cannot write {path}: it exists and is not an empty directory; choose another name")
        if path.exists() and not path.is_dir():
            raise OutputError(f"cannot write {path}: it is a file; choose another name")
        temporary.mkdir(parents=True)
        yield temporary
        if empty and path.exists():
            path.rmdir()
        _move_into_place(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(finished: Path, folder: Path, *, last: str = "") -> None:
    """Move a finished folder to its place: in one step where there is none, else file by file.

    Args:
        finished: the folder, on the same disk.
        folder: its place.
        last: name of the file that is moved after all others.

    Raises:
        OSError: a folder or a file cannot be moved.
    """
    if not folder.exists():
        try:
            finished.rename(folder)
            return
        except OSError:
            if not folder.exists():  # else another process has made it meanwhile
                raise
    files = [file for file in finished.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: (file == finished / last, file)):
        target = folder / file.relative_to(finished)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        CheckpointError: no such file, or one without a JSON object.
    """
    try:
        values = parse_json(path, largest=_LARGEST_CONFIG)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is not a model folder: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Fetch the folder again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON object. Fetch the folder again.")
    return values


def convert_command(weights: str | Path) -> str:
    """The shell command that converts pickled weights, in a file or a folder, to safetensors.

    >>> convert_command("my clip.pt")
    "deop convert 'my clip.pt' FOLDER"
    """
    return shlex.join(["deop", "convert", str(weights), "FOLDER"])


def read_weight_index(path: Path) -> dict[str, str]:
    """The ``weight_map`` of a folder's ``WEIGHT_INDEX`` or ``PICKLE_INDEX``: which file holds which tensor.

    Raises:
        CheckpointError: a damaged index, or one that names anything but weights of its kind in the same folder.
    """
    suffix = ".bin" if path.name == PICKLE_INDEX else ".safetensors"
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f'{path} has no "weight_map" of tensors to files. Fetch the folder again.')
    for name in files.values():
        if not isinstance(name, str) or not name.endswith(suffix) or set(name) & set("/\\:\0"):
            raise CheckpointError(
                f"{path} names the file {name!r}: expected the name of a {suffix} file in the same folder. "
                "Fetch the folder again from a source you trust."
            )
    return files


def read_names(path: Path) -> list[str]:
    """The class names in a text file in UTF-8: one per line, without blank lines and lines that start with ``#``.

    A line is one name, as the class lists of data sets have it. ``deop.text.names_file`` also separates names at
    commas, as in names that are typed.

    Raises:
        SettingError: a file that cannot be read.
    """
    try:
        check_regular(path, pipes=True, largest=LARGEST_TEXT)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise SettingError(
            f"cannot read names from {path}: {error}. It must be a text file in UTF-8, with one name per line."
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, as 64 hexadecimal digits.

    Raises:
        CheckpointError: a file that cannot be read.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error

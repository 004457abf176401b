"""Writing files so that none is ever left half-written, and reading them with errors that name the file."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from deop.errors import CheckpointError, OutputError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Endings of weights that only ``deop convert`` reads."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing, and put it in its place once all is written.

    Missing parent folders are made. When anything fails, what was at ``path`` before stays as it was.

    Args:
        path: where the file is to be.

    Yields:
        The binary file to write to.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name[:60]}.{uuid.uuid4().hex[:8]}.part")
    try:
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder; give a file name in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            yield file
        beside.replace(target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):  # gone after success; not there where the folder could not be made
            beside.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object on disk.

    Raises:
        CheckpointError: no such file, or something else in it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is no model folder: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Fetch the folder again.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} holds no JSON object. Fetch the folder again.")
    return entries


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits.

    Raises:
        CheckpointError: a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error

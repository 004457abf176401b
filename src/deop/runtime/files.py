"""The files of an exported folder, whose SHA-256 is checked whenever one is read."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from deop.errors import CheckpointError
from deop.files import check_regular, sha256


def read_checked(folder: Path, name: str, hashes: Mapping[str, str]) -> bytes:
    """The content of a file, which is exactly what the config of the folder describes.

    Args:
        folder: the exported folder.
        name: name of the file.
        hashes: SHA-256 of the files of the folder by name, as in its config.

    Raises:
        CheckpointError: a file that the config does not list, or that is missing, empty or changed.
    """
    path = _listed(folder, name, hashes)
    try:
        check_regular(path)
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not content:
        raise _empty(path)
    _compare(path, hashlib.sha256(content).hexdigest(), hashes[name])
    return content


def check_files(folder: Path, names: Iterable[str], hashes: Mapping[str, str]) -> None:
    """Check files without keeping their content; arguments and errors as for ``read_checked``."""
    for name in names:
        path = _listed(folder, name, hashes)
        try:
            if not path.stat().st_size:
                raise _empty(path)
            digest = sha256(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        _compare(path, digest, hashes[name])


def _listed(folder: Path, name: str, hashes: Mapping[str, str]) -> Path:
    if name not in hashes:
        raise CheckpointError(
            f"{folder / name} is not listed in the config of its folder. Fetch or export the folder again"
        )
    return folder / name


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{path.parent} has no {path.name}. Fetch or export the folder again")
    return CheckpointError(f"cannot read {path}: {error.strerror or error}")


def _empty(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is empty: it was not written completely. Fetch or export the folder again")


def _compare(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise CheckpointError(
            f"{path} is damaged or belongs to another model: its SHA-256 is {actual[:12]}..., and the config says "
            f"{expected[:12]}.... Fetch or export the folder again"
        )

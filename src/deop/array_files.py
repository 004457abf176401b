"""Reading .npy and .npz files of strangers: no pickles, and no more memory than their files and a limit allow."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from deop.files import check_regular

LARGEST = 8_000_000_000
"""Bytes of all arrays of a file once they are unpacked: 300 masks of 24 million pixels."""


def load_arrays(path: Path) -> Any:
    """``numpy.load`` without pickles, after a check of what the headers announce.

    Args:
        path: a ``.npy`` or ``.npz`` file.

    Returns:
        An array, or an ``NpzFile`` to close.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
        ValueError: its arrays are larger than ``LARGEST`` or than their data, or contain objects.
        Exception: it is damaged. NumPy and zipfile raise errors of many kinds, also when an array is read later.
    """
    check_regular(path)
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            _check(file, path.stat().st_size, path.name)
        return np.load(path, allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if (total := sum(entry.file_size for entry in entries)) > LARGEST:
            raise ValueError(
                f"its arrays have {total:,} bytes once they are unpacked, and at most {LARGEST:,} are read"
            )
        for entry in entries:
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as stream:
                    _check(stream, entry.file_size, entry.filename)
    return np.load(path, allow_pickle=False)


def _check(file: IO[bytes], size: int, name: str) -> None:
    """Compare the header of an array with the number of bytes that its file has."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    needed = math.prod(shape) * dtype.itemsize
    if needed > size:
        raise ValueError(f"{name} announces {needed:,} bytes, and has {size:,}")

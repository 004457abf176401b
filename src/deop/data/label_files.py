"""The official label files of the public data sets as arrays of their own values.

None of them is trusted: ADE20K's classes are read off the pictures and not from its index, which is a pickle.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from deop.data.folder import read_mask
from deop.data.official import Item
from deop.errors import DataError
from deop.images.panoptic_ids import colours_to_ids, find_ids


def read_labels(item: Item) -> np.ndarray:
    """The official value of each pixel, (H, W) uint8 or uint16.

    Raises:
        DataError: a file that cannot be read or has another form, by name.
    """
    return FORMS[item.form](item)


def _indexed(item: Item) -> np.ndarray:
    """A grey or palette PNG: the indices are the values, whatever the palette's colours."""
    return read_mask(item.labels)


def _sbd(item: Item) -> np.ndarray:
    """SBD: the struct ``GTcls`` of a MATLAB file, field ``Segmentation``; 0 is background, 1 to 20 as in VOC."""
    return _matrix(item.labels, _matlab(item.labels, "GTcls")["Segmentation"][0, 0])


def _context(item: Item) -> np.ndarray:
    """Pascal Context: the matrix ``LabelMap`` of a MATLAB file, 1 to 459."""
    return _matrix(item.labels, _matlab(item.labels, "LabelMap"))


def _ade_full(item: Item) -> np.ndarray:
    """ADE20K's ``*_seg.png``: red // 10 * 256 + green is the number of the object; blue tells instances apart."""
    colours = _colours(item.labels)
    return (colours[..., 0] // 10).astype(np.uint16) * 256 + colours[..., 1]


def _panoptic(item: Item) -> np.ndarray:
    """COCO panoptic: red + 256 green + 65536 blue is a segment's id; the value is its category, 0 for none."""
    segments = sorted(item.segments)
    positions = find_ids(colours_to_ids(_colours(item.labels)), [segment for segment, _ in segments])
    categories = np.array([*(category for _, category in segments), 0])  # position -1: none
    return categories[positions].astype(np.uint16)


def _colours(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise DataError(f"cannot read the labels {path}: {error}") from error


def _matlab(path: Path, variable: str) -> np.ndarray:
    try:
        return loadmat(path, variable_names=[variable])[variable]
    except Exception as error:  # scipy raises almost anything on a damaged file
        raise DataError(f"cannot read {variable} of the labels {path}: {error!r}") from error


def _matrix(path: Path, values: np.ndarray) -> np.ndarray:
    if (
        values.ndim != 2
        or values.dtype.kind not in "ui"
        or (values.size and not 0 <= values.min() <= values.max() < 1 << 16)
    ):
        raise DataError(f"the labels {path} are {values.dtype} of shape {values.shape}: expected whole numbers (H, W)")
    return values.astype(np.uint16)


FORMS: Mapping[str, Callable[[Item], np.ndarray]] = {
    "indexed": _indexed,
    "sbd": _sbd,
    "context": _context,
    "ade_full": _ade_full,
    "panoptic": _panoptic,
}

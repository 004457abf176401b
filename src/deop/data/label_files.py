"""Reading the official label files of the public data sets.

Pickled files are never read: the classes of ADE20K come from its PNG files, not from its index, which is a pickle.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from deop.data.labelled import opening_image, read_mask
from deop.data.official import Item
from deop.dependencies import missing
from deop.errors import DataError
from deop.images.bit_depth import has_16_bit_colours
from deop.images.file_types import FileWarning
from deop.images.id_maps import MAX_ID
from deop.images.panoptic_ids import colours_to_ids, find_ids


def read_labels(item: Item) -> np.ndarray:
    """The official value of every pixel of a photo.

    Returns:
        (H, W) uint8 or uint16.

    Raises:
        DataError: a file that cannot be read or has another format, by name.
    """
    return FORMS[item.form](item)


def _indexed(item: Item) -> np.ndarray:
    """A grey or palette PNG; of a palette PNG the indices are the values, not the colours."""
    return read_mask(item.labels)


def _sbd(item: Item) -> np.ndarray:
    """SBD: field ``Segmentation`` of the struct ``GTcls`` in a MATLAB file. 0 is background, 1 to 20 as in VOC."""
    struct = _matlab(item.labels, "GTcls")
    try:
        values = np.asarray(struct["Segmentation"][0, 0])
    except (ValueError, IndexError) as error:  # numpy: no such field, or another shape
        raise DataError(f"the labels {item.labels} have no field Segmentation in GTcls: {error}") from error
    return _matrix(item.labels, values)


def _context(item: Item) -> np.ndarray:
    """Pascal Context: the matrix ``LabelMap`` in a MATLAB file, values 1 to 459."""
    return _matrix(item.labels, _matlab(item.labels, "LabelMap"))


def _ade_full(item: Item) -> np.ndarray:
    """ADE20K's ``*_seg.png``: the class is red // 10 * 256 + green; blue distinguishes instances."""
    colours = _colours(item.labels)
    return (colours[..., 0] // 10).astype(np.uint16) * 256 + colours[..., 1]


def _panoptic(item: Item) -> np.ndarray:
    """COCO panoptic: the colour is the id of a segment; the value is the category of the segment, 0 for no segment."""
    segments = sorted(item.segments)
    with opening_image(item.labels, "labels") as image:
        ids = read_segment_ids(image, item.labels)
    warn_of_unlisted_segments(ids, [segment for segment, _ in segments], item.labels)
    positions = find_ids(ids, [segment for segment, _ in segments])
    categories = np.array([*(category for _, category in segments), 0])  # position -1: no segment
    return categories[positions].astype(np.uint16)


def read_segment_ids(image: Image.Image, path: Path) -> np.ndarray:
    """The segment ids in a panoptic PNG, which its colours encode: (H, W) int64.

    Args:
        image: the opened file.
        path: where it is, for errors.

    Raises:
        DataError: it is not a picture of 8-bit colours.
    """
    return colours_to_ids(_colours_of(image, path))


def warn_of_unlisted_segments(ids: np.ndarray, listed: Collection[int], path: Path) -> None:
    """Warn if a panoptic PNG has segments that its listing does not describe; id 0 is no segment."""
    unlisted = np.setdiff1d(ids, [0, *listed])
    if unlisted.size:
        share = np.isin(ids, unlisted).mean()
        more = ", ..." if unlisted.size > 3 else ""
        warnings.warn(
            f"{path}: {100 * share:.1f} % of the pixels belong to segments that the panoptic JSON file does not list "
            f"({', '.join(map(str, unlisted[:3]))}{more}); they count as no segment",
            FileWarning,
            stacklevel=2,
        )


def _colours(path: Path) -> np.ndarray:
    with opening_image(path, "labels") as image:
        return _colours_of(image, path)


def _colours_of(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode not in ("RGB", "RGBA", "P") or has_16_bit_colours(image):
        raise DataError(
            f"the labels {path} have mode {image.mode}: expected colours of 8 bits, which encode the labels"
        )
    return np.asarray(image.convert("RGB"))


def check_readers(forms: Collection[str]) -> None:
    """Check that the label files of some forms can be read.

    Raises:
        MissingDependencyError: MATLAB files need scipy, which is not installed.
    """
    if {"sbd", "context"} & set(forms):
        _matlab_reader()


def _matlab_reader() -> Callable[..., dict[str, np.ndarray]]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing("reading MATLAB files (.mat)", "scipy") from error
    reader: Callable[..., dict[str, np.ndarray]] = loadmat
    return reader


def _matlab(path: Path, variable: str) -> np.ndarray:
    loadmat = _matlab_reader()
    try:
        return np.asarray(loadmat(path, variable_names=[variable])[variable])
    except MemoryError:
        raise
    except Exception as error:  # damaged files make scipy raise errors of many kinds
        raise DataError(f"cannot read {variable} of the labels {path}: {error!r}") from error


def _matrix(path: Path, values: np.ndarray) -> np.ndarray:
    if (
        values.ndim != 2
        or values.dtype.kind not in "ui"
        or (values.size and not 0 <= values.min() <= values.max() <= MAX_ID)
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

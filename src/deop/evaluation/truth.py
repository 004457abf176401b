"""The true segments of a photo: from panoptic files where the folder has them, else from its mask."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deop.data.label_files import read_segment_ids, warn_of_unlisted_segments
from deop.data.labelled import LabelledData, Pair, opening_image
from deop.errors import DataError, SettingError
from deop.files import parse_json
from deop.images.connected_regions import connected_regions
from deop.images.panoptic_ids import find_ids


@dataclass(frozen=True)
class TrueSegments:
    """The true segments of a photo. They do not overlap.

    Attributes:
        segment_map: (H, W) int32, index of the segment at each pixel, -1 if unknown.
        classes: (T,) int64, index of each segment's class.
        crowd: (T,) bool, whether a segment is a crowd: several things that were not annotated one by one.
    """

    segment_map: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)


def components(truth: np.ndarray, things: np.ndarray) -> TrueSegments:
    """Segments from a label map: each connected part of a thing, and each stuff class as a whole.

    Args:
        truth: (H, W) integers, the class of each pixel, -1 if unknown.
        things: (K,) bool, which classes are countable things. Diagonal neighbours are connected, and parts of any size
            count.
    """
    regions = connected_regions(truth, diagonal=True)  # diagonal neighbours keep thin things in one piece
    known = np.flatnonzero(regions.labels >= 0)
    labels = regions.labels[known].astype(np.int64)
    parts = np.where(things[labels], known, -1)
    (classes, _), number = np.unique(np.stack([labels, parts]), axis=1, return_inverse=True)
    segments = np.full(len(regions.labels), -1, np.int32)
    segments[known] = number.ravel()
    return TrueSegments(regions.paint(segments), classes, np.zeros(len(classes), bool))


class PanopticTruth:
    """The segments in COCO's panoptic format: ``panoptic.json`` and ``panoptic/*.png`` beside ``images/``.

    Category ids are those of ``classes.json``. Pixels of other categories are unknown; a warning names them.

    Args:
        root: folder of the split.
        ids: id of each of the K classes, in order.

    Raises:
        DataError: a ``panoptic.json`` that cannot be read or has another form.
        SettingError: ids in a set, which has no order.
    """

    def __init__(self, root: Path | str, ids: Sequence[int] | np.ndarray) -> None:
        if isinstance(ids, (set, frozenset)):
            raise SettingError("the class ids are a set, which has no order: give a list")
        root = Path(root)
        self.folder = root / "panoptic"
        self._class = {int(class_id): index for index, class_id in enumerate(ids)}
        self._segments = _read_segments(root / "panoptic.json")
        categories = {entry["category_id"] for listed in self._segments.values() for entry in listed}
        if unlisted := sorted(categories - self._class.keys()):
            warnings.warn(
                f"{root / 'panoptic.json'} has categories that classes.json does not list, whose segments are ignored: "
                f"{', '.join(map(str, unlisted[:10]))}{', ...' if len(unlisted) > 10 else ''}",
                stacklevel=2,
            )

    def segments(self, pair: Pair, shape: tuple[int, int]) -> TrueSegments:
        """The true segments of a photo of (H, W) pixels.

        Pixels of segments that ``panoptic.json`` does not list are unknown; a warning names the file.

        Raises:
            DataError: a photo that is not listed, or a PNG file that cannot be read or has another size.
        """
        path = self.folder / f"{pair.key}.png"
        if pair.key not in self._segments:
            raise DataError(f"panoptic.json beside {self.folder} does not list {pair.key}.png")
        with opening_image(path, "panoptic file") as image:
            if (image.height, image.width) != shape:
                size = f"{image.width} x {image.height}"
                raise DataError(f"{path} is {size}, its photo {pair.photo.name} {shape[1]} x {shape[0]}")
            ids = read_segment_ids(image, path)
        warn_of_unlisted_segments(ids, [entry["id"] for entry in self._segments[pair.key]], path)
        listed = [entry for entry in self._segments[pair.key] if entry["category_id"] in self._class]
        listed.sort(key=lambda entry: entry["id"])
        return TrueSegments(
            find_ids(ids, [entry["id"] for entry in listed]),
            np.array([self._class[entry["category_id"]] for entry in listed], np.int64),
            np.array([bool(entry.get("iscrowd", 0)) for entry in listed], bool),
        )


def _read_segments(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The ``segments_info`` of each photo in a panoptic.json, by file name without extension."""
    try:
        segments: dict[str, list[dict[str, Any]]] = {
            Path(entry["file_name"]).with_suffix("").as_posix(): list(entry["segments_info"])
            for entry in parse_json(path)["annotations"]
        }
        for name, listed in segments.items():
            ids = [entry["id"] for entry in listed]
            categories = [entry["category_id"] for entry in listed]
            if not all(type(number) is int for number in (*ids, *categories)) or len(set(ids)) < len(ids):
                raise ValueError(f"the segments of {name}.png need different integer ids and integer category ids")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"cannot read {path}: {error!r}. Expected COCO's panoptic annotations.") from error
    return segments


def panoptic_truth(data: LabelledData, ids: Sequence[int] | np.ndarray) -> PanopticTruth | None:
    """The panoptic files of a data set; None if it has none. Only folders can have some.

    Args:
        data: the data set.
        ids: id of each of the K classes, in order.

    Raises:
        DataError: as ``PanopticTruth``.
    """
    root = data.root
    if not isinstance(root, Path) or not ((root / "panoptic").is_dir() and (root / "panoptic.json").is_file()):
        return None
    return PanopticTruth(root, ids)

"""What segments a photo truly has: from panoptic files where the folder has them, else from its mask."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from deop.data.folder import Pair
from deop.errors import DataError
from deop.images.panoptic_ids import colours_to_ids, find_ids

_EVERY_SIDE = np.ones((3, 3), bool)  # pixels that touch at a corner belong together: thin things stay one


@dataclass(frozen=True)
class TrueSegments:
    """The true segments of a photo; they share no pixel.

    Attributes:
        segment_map: (H, W) int32, index of the segment, -1 where nothing is known.
        classes: (T,) int64, index of each one's class.
        crowd: (T,) bool, whether it stands for many things that were not told apart.
    """

    segment_map: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)


def components(truth: np.ndarray, things: np.ndarray) -> TrueSegments:
    """Segments of a photo of which only the classes are known: pieces of things, and each stuff whole.

    Args:
        truth: (H, W) integers, class of each pixel, -1 where it is not known.
        things: (K,) bool, which classes are countable things. Each connected piece of one is a segment, however small;
            pixels that touch at a corner are connected.
    """
    segments = np.full(truth.shape, -1, np.int32)
    classes: list[int] = []
    for label in np.unique(truth[truth >= 0]).tolist():
        where = truth == label
        pieces, count = ndimage.label(where, _EVERY_SIDE) if things[label] else (where.astype(np.int32), 1)
        segments[where] = pieces[where] - 1 + len(classes)
        classes += [label] * count
    return TrueSegments(segments, np.array(classes, np.int64), np.zeros(len(classes), bool))


class PanopticTruth:
    """The segments that COCO's panoptic files list: ``panoptic.json`` and ``panoptic/*.png`` beside images/.

    Category ids are those of ``classes.json``; segments of others are taken for pixels of which nothing is known.

    Args:
        root: the folder of the split.
        ids: (K,) id of each class.

    Raises:
        DataError: a panoptic.json that cannot be read.
    """

    def __init__(self, root: Path, ids: Iterable[int]) -> None:
        self.folder = root / "panoptic"
        self._class = {int(label): index for index, label in enumerate(ids)}
        listing = root / "panoptic.json"
        try:
            annotations = json.loads(listing.read_text(encoding="utf-8"))["annotations"]
            self._segments: dict[str, list[dict[str, Any]]] = {
                Path(entry["file_name"]).stem: entry["segments_info"] for entry in annotations
            }
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"cannot read {listing}: {error!r}. Expected COCO's panoptic annotations.") from error

    def segments(self, pair: Pair, shape: tuple[int, int]) -> TrueSegments:
        """The true segments of a photo of (H, W) pixels.

        Raises:
            DataError: a photo that is not listed, or a picture that cannot be read or has another size.
        """
        stem = pair.photo.stem
        path = self.folder / f"{stem}.png"
        if stem not in self._segments:
            raise DataError(f"panoptic.json beside {self.folder} does not list {stem}.png")
        try:
            with Image.open(path) as picture:
                colours = np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise DataError(f"cannot read the panoptic picture {path}: {error}") from error
        if colours.shape[:2] != shape:
            size = f"{colours.shape[1]} x {colours.shape[0]}"
            raise DataError(f"{path} is {size}, its photo {pair.photo.name} {shape[1]} x {shape[0]}")
        listed = [entry for entry in self._segments[stem] if entry["category_id"] in self._class]
        listed.sort(key=lambda entry: entry["id"])
        return TrueSegments(
            find_ids(colours_to_ids(colours), [entry["id"] for entry in listed]),
            np.array([self._class[entry["category_id"]] for entry in listed], np.int64),
            np.array([bool(entry.get("iscrowd", 0)) for entry in listed], bool),
        )


def has_panoptic(root: Path) -> bool:
    """Whether the folder of a split has panoptic files."""
    return (root / "panoptic").is_dir() and (root / "panoptic.json").is_file()

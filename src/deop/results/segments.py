"""One segment of a photo with its name, and conversions between segments and maps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from deop.arguments import check_fields
from deop.errors import SettingError
from deop.images.rle import compress_counts, encode_crop

Box = tuple[int, int, int, int]

_RUNS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment of a photo, with a name.

    Masks are computed on access, so that many segments need little memory: the segments of one map share that map,
    and overlapping segments store one bit for each pixel of their box.

    Args:
        name: one of the requested names.
        class_id: index of the name in ``Segmentation.names``.
        score: confidence in [0, 1].
        box: (x0, y0, x1, y1) in pixels, right and bottom exclusive.
        area: number of pixels of the mask.
        shape: (H, W) of the photo, pixels.
        isthing: True for countable things, False for stuff, None if not known.
        pixels: (H, W) int32, a map that equals ``value`` inside the mask; or (n,) uint8, the packed bits of the mask
            inside the box.
        value: see ``pixels``; not used with packed bits.

    Raises:
        SettingError: box, area or pixels do not fit the photo.
    """

    name: str
    class_id: int
    score: float
    box: Box
    area: int
    shape: tuple[int, int]
    isthing: bool | None = None
    pixels: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0, np.uint8))
    value: int = field(repr=False, default=-1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.isthing is not None:
            object.__setattr__(self, "isthing", bool(self.isthing))  # json does not support NumPy's bool
        (x0, y0, x1, y1), (height, width) = self.box, self.shape
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise SettingError(f"segment {self.name!r}: box {self.box} is not inside a photo {width} x {height}")
        if not 0 < self.area <= (x1 - x0) * (y1 - y0):
            raise SettingError(f"segment {self.name!r}: area {self.area} does not fit its box {self.box}")
        shared = self.pixels.shape == self.shape and self.pixels.dtype == np.int32
        packed = self.pixels.dtype == np.uint8 and self.pixels.shape == (((x1 - x0) * (y1 - y0) + 7) // 8,)
        if not (shared or packed):
            raise SettingError(
                f"segment {self.name!r}: pixels {self.pixels.shape} {self.pixels.dtype} are neither a map of the photo "
                "nor packed bits of the box; build the segment with Segment.from_mask"
            )

    @classmethod
    def from_mask(
        cls, name: str, class_id: int, score: float, mask: np.ndarray, isthing: bool | None = None
    ) -> "Segment | None":
        """Build a segment from a mask.

        Args:
            name: one of the requested names.
            class_id: index of the name.
            score: confidence in [0, 1].
            mask: (H, W) bool.
            isthing: True for a thing, False for stuff, None if not known.

        Returns:
            The segment, or None if the mask is empty.

        Raises:
            SettingError: the mask is not two-dimensional.

        >>> Segment.from_mask("cat", 0, 0.9, np.eye(3, dtype=bool)).box
        (0, 0, 3, 3)
        """
        if mask.ndim != 2:
            raise SettingError(f"the mask must be (H, W), not {mask.shape}")
        mask = mask.astype(bool, copy=False)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        crop = mask[box[1] : box[3], box[0] : box[2]]
        area, shape = int(crop.sum()), (mask.shape[0], mask.shape[1])
        return cls(name, int(class_id), float(score), box, area, shape, isthing, np.packbits(crop))

    @property
    def crop(self) -> np.ndarray:
        """The mask inside the box, (y1 - y0, x1 - x0) bool."""
        x0, y0, x1, y1 = self.box
        if self.pixels.ndim == 2:
            return self.pixels[y0:y1, x0:x1] == self.value
        bits = np.unpackbits(self.pixels, count=(y1 - y0) * (x1 - x0))
        return bits.reshape(y1 - y0, x1 - x0).astype(bool)

    @property
    def mask(self) -> np.ndarray:
        """The mask, (H, W) bool; a new array on each access."""
        x0, y0, x1, y1 = self.box
        mask = np.zeros(self.shape, bool)
        mask[y0:y1, x0:x1] = self.crop
        return mask

    @property
    def share(self) -> float:
        """The share of the photo that the segment covers, in [0, 1]."""
        return self.area / (self.shape[0] * self.shape[1])


class Runs(NamedTuple):
    """The rows of a map, divided into runs of pixels of one value; a map has far fewer runs than pixels.

    Attributes:
        values: (R,) int32, the value of each run.
        starts: (R,) int64, the index of its first pixel in the flattened map; ascending, the first is 0.
        lengths: (R,) int64, the number of its pixels.
    """

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Runs":
        """The runs of a map (H, W) of at least one pixel."""
        flat = np.ascontiguousarray(values).ravel()
        begins = np.empty(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=begins[1:])
        begins[:: values.shape[1]] = True
        starts = np.flatnonzero(begins)
        return cls(flat[starts], starts, np.diff(starts, append=flat.size))

    def mean(self, numbers: np.ndarray, count: int) -> np.ndarray:
        """The mean of ``numbers`` (H, W) over the pixels of each value in [0, count): (count,) float64, 0 without any.

        Summed in float64 over a few thousand runs at a time, so that only their pixels are converted.
        """
        flat, total = numbers.ravel(), np.zeros(count + 1)
        for first in range(0, len(self.starts), _RUNS_AT_ONCE):
            runs = slice(first, first + _RUNS_AT_ONCE)
            starts, end = self.starts[runs], self.starts[runs][-1] + self.lengths[runs][-1]
            sums = np.add.reduceat(flat[starts[0] : end].astype(np.float64), starts - starts[0])
            total += np.bincount(self.values[runs] + 1, sums, minlength=count + 1)
        pixels = np.bincount(self.values + 1, self.lengths, minlength=count + 1)
        return (total / np.maximum(1, pixels))[1:]


def segments_of_map(
    values: np.ndarray,
    names: Sequence[str],
    class_ids: Sequence[int],
    scores: Sequence[float],
    isthing: Sequence[bool | None],
    runs: Runs | None = None,
) -> list[Segment]:
    """The segments of a map, the largest first (those of equal area by name); values without a pixel are dropped.

    Args:
        values: (H, W) int32 in [-1, n), -1 where there is no segment; shared by the segments, not copied.
        names: all names.
        class_ids: (n) index into ``names`` of each value.
        scores: (n) confidence of each value.
        isthing: (n) True for a thing, False for stuff, None if not known, of each value.
        runs: the runs of ``values``, if the caller has them.
    """
    boxes, areas = _measure(runs or Runs.of(values), values.shape, len(class_ids))
    shape = (values.shape[0], values.shape[1])
    segments: list[Segment] = []
    for value in np.flatnonzero(areas).tolist():
        x0, y0, x1, y1 = boxes[value].tolist()
        class_id, area = int(class_ids[value]), int(areas[value])
        score, box = float(scores[value]), (x0, y0, x1, y1)
        segments.append(Segment(names[class_id], class_id, score, box, area, shape, isthing[value], values, value))
    return sorted(segments, key=lambda segment: (-segment.area, segment.name, segment.box))


def _measure(runs: Runs, shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The box (count, 4) and the area (count,) of each value of a map; 0 for a value without a pixel."""
    height, width = shape
    named = runs.values >= 0
    run_values, starts, lengths = runs.values[named], runs.starts[named], runs.lengths[named]
    rows, left = np.divmod(starts, width)
    boxes = np.tile(np.array([width, height, 0, 0]), (count, 1))
    np.minimum.at(boxes[:, 0], run_values, left)
    np.minimum.at(boxes[:, 1], run_values, rows)
    np.maximum.at(boxes[:, 2], run_values, left + lengths)
    np.maximum.at(boxes[:, 3], run_values, rows + 1)
    areas = np.bincount(run_values, lengths, minlength=count).astype(np.int64)
    boxes[areas == 0] = 0
    return boxes, areas


def paint_segments(segments: Sequence[Segment], shape: tuple[int, int]) -> np.ndarray:
    """The map of segments; where they overlap, the segment with the highest score is on top.

    Args:
        segments: S segments.
        shape: (H, W) of the photo, pixels.

    Returns:
        Array (H, W) int32, index into ``segments``, -1 where there is no segment.
    """
    shared = segments[0].pixels if segments else None
    if shared is not None and shared.ndim == 2 and all(segment.pixels is shared for segment in segments):
        position = np.full(int(shared.max()) + 2, -1, np.int32)
        position[[segment.value + 1 for segment in segments]] = np.arange(len(segments), dtype=np.int32)
        return position[shared + 1]
    painted = np.full(shape, -1, np.int32)
    for index in sorted(range(len(segments)), key=lambda i: segments[i].score):
        x0, y0, x1, y1 = segments[index].box
        painted[y0:y1, x0:x1][segments[index].crop] = index
    return painted


def grouped(segments: Iterable[Segment]) -> dict[str, list[int]]:
    """The indices of the segments of each name, in the order of the list."""
    groups: dict[str, list[int]] = {}
    for index, segment in enumerate(segments):
        groups.setdefault(segment.name, []).append(index)
    return groups


def encode_segment(segment: Segment, compressed: bool = False) -> dict[str, Any]:
    """The mask of a segment as COCO's RLE: ``{"size": [H, W], "counts": list or, compressed, string}``."""
    counts = encode_crop(segment.crop, segment.box[0], segment.box[1], segment.shape)
    return {"size": list(segment.shape), "counts": compress_counts(counts) if compressed else counts}

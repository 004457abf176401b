"""Reading what ``deop batch`` wrote: the rows of a batch as results, one after the other."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from deop.batch.plan import Plan, part_name, read_plan
from deop.batch.settings import NAME
from deop.batch.storage import Storage
from deop.batch.stores import file_system
from deop.batch.table import arrow
from deop.errors import DataError
from deop.files import json_of
from deop.images.rle import decode_rle
from deop.results.segmentation import Segmentation
from deop.results.segments import Segment, paint_segments

_ROWS = 64
"""Rows that are in memory at a time."""

_COLUMNS = ["id", "path", "width", "height", "segments", "labels", "error"]


@dataclass(frozen=True)
class BatchRow:
    """One input of a batch.

    Attributes:
        number: its place among the inputs of the batch, from 0.
        id: the input in its source, such as the path below a directory.
        path: path or address of the photo.
        error: why there is no result; "" if there is one.
        result: the result, whose photo is black, since a batch does not store photos; None: there is none.
    """

    number: int
    id: str
    path: str
    error: str
    result: Segmentation | None


class BatchResults:
    """The output of a batch, read row by row: memory does not depend on the number of rows.

    Args:
        place: the output of ``deop batch``; a path or an address of fsspec.

    Attributes:
        place: the same.
        names: the class names.
        mode: "semantic", "panoptic" or "instance".
        input: the input of the batch.
        total: number of inputs; None: it is not known, because tar files have not all been read.
        files: number of files of the finished batch.
        missing: number of files that are missing, because the batch is not finished.

    Raises:
        DataError: there is no batch at this place, or its record is damaged.
        MissingDependencyError: pyarrow or fsspec is not installed.
    """

    def __init__(self, place: str) -> None:
        arrow()
        self.place = place
        self._storage = Storage(place)
        settings = self._settings()
        self.names: tuple[str, ...] = tuple(texts[0] for texts in settings["names"])
        self.mode: str = settings["mode"]
        self.input: str = settings["input"]
        self._plan: Plan = read_plan(self._storage)
        self._unfinished = frozenset(self._plan.unfinished().tolist())
        self.total = self._plan.inputs
        self.files = len(self._plan)
        self.missing = len(self._unfinished)

    def _settings(self) -> dict[str, Any]:
        content = self._storage.read(NAME)
        if content is None:
            raise DataError(f"{self.place} is not the output of deop batch: it has no {NAME}")
        try:
            settings: dict[str, Any] = json_of(content)
            return {key: settings[key] for key in ("names", "mode", "input")}
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{self._storage.address(NAME)} is damaged") from None

    def __iter__(self) -> Iterator[BatchRow]:
        """The rows in the order of the inputs. Those of missing files are left out, and their numbers with them."""
        number = 0
        for shard in range(len(self._plan)):
            if shard in self._unfinished:
                number += self._plan.count(shard) or 0
                continue
            for columns in self._rows(part_name(shard)):
                error = columns["error"] or ""
                result = None if error else self._result(columns)
                yield BatchRow(number, columns["id"], columns["path"], error, result)
                number += 1

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        pa = arrow()
        address = self._storage.address(name)
        system, path = file_system(address)
        try:
            with system.open(path, "rb") as file, pa.parquet.ParquetFile(file) as table:
                for batch in table.iter_batches(_ROWS, columns=_COLUMNS):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {address}: {error}") from error

    def _result(self, columns: Mapping[str, Any]) -> Segmentation:
        try:
            return result_of(columns, self.names, self.mode)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.place}, row {columns['id']}: {error}") from error


def result_of(row: Mapping[str, Any], names: tuple[str, ...], mode: str) -> Segmentation:
    """The result in a row of a batch's Parquet file, the inverse of ``table.row_of``.

    Args:
        row: the columns, as Python values (``Table.to_pylist``).
        names: the class names of the batch.
        mode: its mode.

    Returns:
        The result, with a black photo that takes no memory.

    Raises:
        DataError: the row has an error instead of a result, or no masks.
    """
    if row["segments"] is None:
        raise DataError(f"no result: {row.get('error')}")
    shape = (row["height"], row["width"])
    photo = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (*shape, 3))
    labels = _labels(row.get("labels"))
    if labels is not None and mode == "semantic":
        scores = np.zeros(len(names))
        isthing: list[bool | None] = [None] * len(names)
        for segment in row["segments"]:
            scores[segment["class_id"]] = _score(segment)
            isthing[segment["class_id"]] = segment["isthing"]
        return Segmentation.from_semantic(photo, names, labels, scores, isthing=isthing, source=row["path"])
    segments = [_segment(segment, shape) for segment in row["segments"]]
    if labels is None:
        painted = paint_segments(segments, shape)
        labels = np.array([-1, *(segment.class_id for segment in segments)], np.int32)[painted + 1]
    return Segmentation(names, labels, segments, photo, mode, source=row["path"])


def _labels(content: bytes | None) -> np.ndarray | None:
    if content is None:
        return None
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image).astype(np.int32) - 1


def _segment(columns: Mapping[str, Any], shape: tuple[int, int]) -> Segment:
    if columns["rle"] is None:
        raise DataError(
            "label maps do not tell the segments of a name apart: segment the photos again with --masks rle or both"
        )
    mask = decode_rle({"size": list(shape), "counts": columns["rle"]})
    score = _score(columns)
    segment = Segment.from_mask(columns["name"], columns["class_id"], score, mask, columns["isthing"])
    if segment is None:
        raise DataError(f"the mask of {columns['name']!r} is empty")
    return segment


def _score(columns: Mapping[str, Any]) -> float:
    return float(f"{columns['score']:.7g}")  # without the further digits that float32 has as a double

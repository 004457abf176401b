"""What a photo was found to show: Segmentation and its segments, as arrays, pictures and files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import ImageError, SettingError
from deop.results import formats
from deop.results.legend import percent
from deop.results.overlay import draw_overlay
from deop.results.segments import Segment, paint_segments, segments_of_map

__all__ = ["MODES", "Segment", "Segmentation"]

MODES = ("semantic", "panoptic", "instance")


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """One photo, divided among names.

    Args:
        names: the K names asked for.
        label_map: (H, W) int32 at the photo's own size: index into names, -1 = none of them.
        segments: what was found; largest first, in instance mode best first.
        photo: (H, W, 3) uint8.
        mode: "semantic" (one segment a name), "panoptic" (one a thing, one for all of a stuff) or "instance"
            (one a thing; they may overlap).
        settings: how it was made; must be JSON's own types to be saved.
        source: path of the photo, where it came from a file.

    Raises:
        SettingError: an unknown mode, or maps, photo and segments that do not fit each other.
    """

    names: tuple[str, ...]
    label_map: np.ndarray
    segments: list[Segment]
    photo: np.ndarray
    mode: str = "semantic"
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SettingError(f"unknown mode {self.mode!r}: use one of {', '.join(MODES)}")
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "label_map", _as_map(self.label_map, len(self.names), "label_map"))
        if self.photo.shape != (*self.label_map.shape, 3) or self.photo.dtype != np.uint8:
            raise SettingError(
                f"photo must be {(*self.label_map.shape, 3)} uint8 like the label map, "
                f"not {self.photo.shape} {self.photo.dtype}"
            )
        for segment in self.segments:
            if segment.shape != self.label_map.shape:
                raise SettingError(f"segment {segment.name!r} is of a photo {segment.shape}, not {self.shape}")
            if not 0 <= segment.class_id < len(self.names) or self.names[segment.class_id] != segment.name:
                raise SettingError(f"segment {segment.name!r} is not name {segment.class_id} of the names")

    @classmethod
    def from_semantic(
        cls,
        photo: np.ndarray,
        names: Sequence[str],
        label_map: np.ndarray,
        confidence: np.ndarray | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        isthing: Sequence[bool | None] | None = None,
        source: str | None = None,
    ) -> "Segmentation":
        """A result with one segment for each name that some pixel has.

        Args:
            photo: (H, W, 3) uint8.
            names: K names.
            label_map: (H, W) integers in [-1, K).
            confidence: of each pixel (H, W) in [0, 1]: a segment's score is its mean; or of each name (K,). 1 where
                not given.
            settings: how it was made.
            isthing: thing, stuff or not known, for each name.
            source: path of the photo.
        """
        label_map = _as_map(label_map, len(names), "label_map")
        scores = np.ones(len(names))
        if confidence is not None and confidence.ndim == 1:
            scores = confidence
        elif confidence is not None:
            raised = (label_map + 1).ravel()
            total = np.bincount(raised, confidence.ravel().astype(np.float64), minlength=len(names) + 1)
            scores = (total / np.maximum(1, np.bincount(raised, minlength=len(names) + 1)))[1:]
        kinds = isthing if isthing is not None else [None] * len(names)
        segments = segments_of_map(label_map, names, range(len(names)), scores.tolist(), kinds)
        return cls(tuple(names), label_map, segments, photo, "semantic", settings or {}, source)

    @classmethod
    def from_panoptic(
        cls,
        photo: np.ndarray,
        names: Sequence[str],
        segment_map: np.ndarray,
        pieces: Sequence[tuple[int, float, bool | None]],
        settings: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> "Segmentation":
        """A result from a map of pieces.

        Args:
            photo: (H, W, 3) uint8.
            names: K names.
            segment_map: (H, W) integers, index into pieces, -1 = none.
            pieces: each (class_id, score, isthing); those that no pixel has are left out.
            settings: how it was made.
            source: path of the photo.
        """
        segment_map = _as_map(segment_map, len(pieces), "segment_map")
        class_ids = [int(piece[0]) for piece in pieces]
        scores, kinds = [float(piece[1]) for piece in pieces], [piece[2] for piece in pieces]
        segments = segments_of_map(segment_map, names, class_ids, scores, kinds)
        label_map = np.array([-1, *class_ids], np.int32)[segment_map + 1]
        return cls(tuple(names), label_map, segments, photo, "panoptic", settings or {}, source)

    @classmethod
    def from_instances(
        cls,
        photo: np.ndarray,
        names: Sequence[str],
        instances: Iterable[tuple[tuple[int, float, bool | None], np.ndarray]],
        settings: Mapping[str, Any] | None = None,
        *,
        label_map: np.ndarray | None = None,
        source: str | None = None,
    ) -> "Segmentation":
        """A result from masks that may overlap; only one of them need be in memory at a time.

        Args:
            photo: (H, W, 3) uint8.
            names: K names.
            instances: each ((class_id, score, isthing), mask (H, W) bool); empty masks are left out.
            settings: how it was made.
            label_map: (H, W) integers; made from the instances where not given, higher scores on top.
            source: path of the photo.
        """
        found = (
            Segment.from_mask(names[class_id], class_id, score, mask, isthing)
            for (class_id, score, isthing), mask in instances
        )
        segments = sorted((s for s in found if s), key=lambda s: (-s.score, -s.area, s.name, s.box))
        if label_map is None:
            painted = paint_segments(segments, (photo.shape[0], photo.shape[1]))
            label_map = np.array([-1, *(segment.class_id for segment in segments)], np.int32)[painted + 1]
        return cls(tuple(names), label_map, segments, photo, "instance", settings or {}, source)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the photo, pixels."""
        return self.label_map.shape[0], self.label_map.shape[1]

    @cached_property
    def segment_map(self) -> np.ndarray:
        """(H, W) int32, position in ``segments``, -1 = none; where some overlap, the higher score is on top."""
        return paint_segments(self.segments, self.shape)

    def overlay(
        self,
        alpha: float = 0.55,
        *,
        legend: bool = True,
        borders: bool = True,
        labels: bool | None = None,
        max_names: int | None = None,
        font: str | None = None,
    ) -> Image.Image:
        """The photo with its segments in colour, and a legend beside or below it.

        A name's colour does not depend on the order of the names. Up to 24 names keep theirs in every photo; of
        more, those in the photo are told apart as well as can be. Things of one name differ in shade.
        What has no name keeps the photo's colours. Letters grow with the photo; with a legend or labels, photos
        below 320 pixels are magnified by a whole number.

        Args:
            alpha: strength of the colours in [0, 1].
            legend: False gives a picture of exactly the photo's size, unless it is small and labelled.
            borders: outline the segments.
            labels: write names on things; by default in panoptic and instance mode.
            max_names: most lines of the legend; the rest is counted in its last line. By default as many as fit.
            font: path of a TrueType or OpenType file; by default one of this machine that has the letters.

        Returns:
            RGB picture.

        Raises:
            SettingError: an option outside its range.
        """
        return draw_overlay(
            self.photo,
            self.names,
            self.segments,
            self.segment_map,
            alpha=alpha,
            borders=borders,
            labels=self.mode != "semantic" if labels is None else labels,
            legend=legend,
            most=max_names,
            font=font,
        )

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write to a file, in the form that its ending names.

        Args:
            path: ``.png``, ``.jpg``, ``.jpeg``, ``.webp``: the overlay; ``.json``: ``summary()``; ``.npz``:
                everything, for ``Segmentation.load``. Missing folders are made.
            **options: for pictures, those of ``overlay``.

        Returns:
            The path.

        Raises:
            OutputError: an unknown ending or a place that cannot be written; what was there before stays.
        """
        target = Path(path)
        if target.suffix.lower() == ".npz":
            formats.save_archive(
                target,
                names=self.names,
                label_map=self.label_map,
                segments=self.segments,
                photo=self.photo,
                mode=self.mode,
                settings=self.settings,
                source=self.source,
            )
        elif target.suffix.lower() == ".json":
            formats.save_json(self.summary(), target)
        else:
            formats.check_picture_ending(target)  # before the work of drawing
            formats.save_picture(self.overlay(**options), target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Segmentation":
        """Read a result back from the ``.npz`` that ``save`` wrote.

        Raises:
            ImageError: no such file, or none that deop wrote.
        """
        try:
            return cls(**formats.load_archive(path))
        except SettingError as error:
            raise ImageError(f"cannot read {path}: damaged ({error})") from error

    def save_labels(self, path: str | os.PathLike[str]) -> Path:
        """Write the label map as a grey PNG of 8 or 16 bits: index + 1, 0 = none, names in its text chunk "names".

        Read it with any program, or with ``deop.results.formats.read_labels``.

        Raises:
            OutputError: another ending than .png, over 65,535 names, or a place that cannot be written.
        """
        formats.save_labels(Path(path), self.label_map, self.names)
        return Path(path)

    def summary(self) -> dict[str, Any]:
        """What was found, without the pixels; ready for JSON. Boxes are (x0, y0, x1, y1), shares in [0, 1]."""
        return {
            "photo": self.source,
            "size": [self.shape[1], self.shape[0]],
            "mode": self.mode,
            "names": list(self.names),
            "segments": [
                {
                    "id": index,
                    "name": segment.name,
                    "score": round(segment.score, 4),
                    "box": list(segment.box),
                    "area": segment.area,
                    "share": round(segment.share, 6),
                    **({} if segment.isthing is None else {"isthing": segment.isthing}),
                }
                for index, segment in enumerate(self.segments)
            ],
            "settings": dict(self.settings),
        }

    def to_coco(self, image_id: int = 1, file_name: str | None = None, first_id: int = 1) -> dict[str, Any]:
        """COCO's instance format: "images", "annotations", "categories".

        Args:
            image_id: id of the photo.
            file_name: of the photo; by default that of ``source``.
            first_id: id of the first annotation, to join the results of several photos.

        Returns:
            A dict ready for JSON; category ids are index + 1, masks uncompressed run lengths.
        """
        return formats.coco(self.segments, self.names, self.shape, image_id, self._file_name(file_name), first_id)

    def to_panoptic(self, image_id: int = 1, file_name: str | None = None) -> tuple[Image.Image, dict[str, Any]]:
        """COCO's panoptic format.

        Args:
            image_id: id of the photo.
            file_name: of the PNG; by default that of ``source`` with ending .png.

        Returns:
            The picture whose pixels are ids (R + 256 G + 65536 B, 0 = none), and a dict with "annotation" (with
            its "segments_info") and "categories".
        """
        name = file_name or str(Path(self._file_name(None)).with_suffix(".png"))
        return formats.coco_panoptic(self.segments, self.names, self.segment_map, image_id, name)

    def to_supervision(self) -> Any:
        """``supervision.Detections``: xyxy, mask (n, H, W), confidence, class_id, data["class_name"].

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return formats.supervision(self.segments, self.shape)

    def __repr__(self) -> str:
        parts = [f"{segment.name} {percent(segment.share)}" for segment in self.segments[:4]]
        if len(self.segments) > 4:
            parts.append(f"{len(self.segments) - 4} more")
        found = ", ".join(parts) or "nothing found"
        return f"Segmentation({self.mode}, {self.shape[1]} x {self.shape[0]} px: {found})"

    def _repr_png_(self) -> bytes:
        """What a notebook shows; at most 1,280 pixels wide, so that notebooks stay small."""
        picture = self.overlay()
        picture.thumbnail((1280, 1280))
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _file_name(self, given: str | None) -> str:
        return given or (Path(self.source).name if self.source else "photo.jpg")


def check_request(mode: str, threshold: float | None, batch: int = 1) -> None:
    """Check options of ``DeOP.segment`` before a photo is read.

    Args:
        mode: one of ``MODES``.
        threshold: a number in [0, 1], or None.
        batch: an integer of at least 1.

    Raises:
        SettingError: naming the option.
    """
    if isinstance(batch, bool) or not isinstance(batch, Integral) or batch < 1:
        raise SettingError(f"batch must be an integer of at least 1, not {batch!r}")
    if not isinstance(mode, str) or mode not in MODES:
        raise SettingError(f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, Real)):
        raise SettingError(f"threshold must be a number in [0, 1], not {threshold!r}")
    if threshold is not None and not 0 <= threshold <= 1:  # also NaN
        raise SettingError(f"threshold {threshold} is not in [0, 1]")


def _as_map(values: np.ndarray, count: int, label: str) -> np.ndarray:
    """Check a map of indices and bring it to int32."""
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iu":
        raise SettingError(f"{label} must be (H, W) integers, not {values.shape} {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < -1 or high >= count:
        raise SettingError(f"{label} must lie in [-1, {count}), not from {low} to {high}")
    return np.ascontiguousarray(values, np.int32)

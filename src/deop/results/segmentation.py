"""The result for one photo: ``Segmentation``, as arrays, pictures and files."""

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import ImageError, SettingError
from deop.results import formats
from deop.results.checks import MODES, as_map, as_names
from deop.results.legend import percent
from deop.results.overlay import draw_overlay
from deop.results.segments import Segment, paint_segments, segments_of_map


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The segmentation of one photo.

    Args:
        names: the K requested names.
        label_map: (H, W) int32 at the size of the photo: index into ``names``, -1 = none of them.
        segments: the segments; the largest first, in instance mode the best first.
        photo: (H, W, 3) uint8.
        mode: "semantic" (one segment per name), "panoptic" (one per thing and one per kind of stuff) or "instance"
            (one per thing; instances may overlap).
        settings: the settings of the model for this result, in types that JSON supports.
        source: path of the photo; None if it was not read from a file.

    Raises:
        SettingError: the mode is unknown, the names are not a list of strings, or names, maps, photo and segments do
            not fit each other.

    >>> photo, labels = np.zeros((2, 4, 3), np.uint8), np.array([[0, 0, 0, 1], [0, 0, 1, -1]])
    >>> result = Segmentation.from_semantic(photo, ["wall", "cat"], labels)
    >>> result
    Segmentation(semantic, 4 x 2 px: wall 62%, cat 25%)
    >>> result.segments[1].box
    (2, 0, 4, 2)
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
        object.__setattr__(self, "names", as_names(self.names))
        object.__setattr__(self, "label_map", as_map(self.label_map, len(self.names), "label_map"))
        if self.photo.shape != (*self.label_map.shape, 3) or self.photo.dtype != np.uint8:
            raise SettingError(
                f"the photo must be {(*self.label_map.shape, 3)} uint8 to match the label map, "
                f"not {self.photo.shape} {self.photo.dtype}"
            )
        for segment in self.segments:
            if segment.shape != self.label_map.shape:
                raise SettingError(
                    f"segment {segment.name!r} belongs to a photo of shape {segment.shape}, not {self.shape}"
                )
            if not 0 <= segment.class_id < len(self.names) or self.names[segment.class_id] != segment.name:
                raise SettingError(
                    f"segment {segment.name!r} has class_id {segment.class_id}, which is not the index of its name"
                )

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
        """Build a result with one segment for each name that at least one pixel has.

        Args:
            photo: (H, W, 3) uint8.
            names: K names.
            label_map: (H, W) integers in [-1, K).
            confidence: in [0, 1], of each pixel (H, W), whose mean over a segment is its score, or of each name (K,).
                None: 1.
            settings: see ``Segmentation``.
            isthing: for each name True for a thing, False for stuff, None if not known.
            source: path of the photo.
        """
        names = as_names(names)
        label_map = as_map(label_map, len(names), "label_map")
        scores = np.ones(len(names))
        if confidence is not None and confidence.ndim == 1:
            scores = confidence
        elif confidence is not None:
            raised = (label_map + 1).ravel()
            total = np.bincount(raised, confidence.ravel().astype(np.float64), minlength=len(names) + 1)
            scores = (total / np.maximum(1, np.bincount(raised, minlength=len(names) + 1)))[1:]
        kinds = isthing if isthing is not None else [None] * len(names)
        segments = segments_of_map(label_map, names, range(len(names)), scores.tolist(), kinds)
        return cls(names, label_map, segments, photo, "semantic", settings or {}, source)

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
        """Build a result from a map of segments.

        Args:
            photo: (H, W, 3) uint8.
            names: K names.
            segment_map: (H, W) integers, index into ``pieces``, -1 = none.
            pieces: (class_id, score, isthing) of each segment; segments without a pixel are dropped.
            settings: see ``Segmentation``.
            source: path of the photo.
        """
        names = as_names(names)
        segment_map = as_map(segment_map, len(pieces), "segment_map")
        class_ids = [int(piece[0]) for piece in pieces]
        scores, kinds = [float(piece[1]) for piece in pieces], [piece[2] for piece in pieces]
        segments = segments_of_map(segment_map, names, class_ids, scores, kinds)
        label_map = np.array([-1, *class_ids], np.int32)[segment_map + 1]
        return cls(names, label_map, segments, photo, "panoptic", settings or {}, source)

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
        """Build a result from masks that may overlap; of an iterator, only one mask is in memory at a time.

        Args:
            photo: (H, W, 3) uint8.
            names: K names.
            instances: ((class_id, score, isthing), mask (H, W) bool) of each instance; empty masks are dropped.
            settings: see ``Segmentation``.
            label_map: (H, W) integers in [-1, K); None: painted from the instances, higher scores on top.
            source: path of the photo.
        """
        names = as_names(names)
        candidates = (
            Segment.from_mask(names[class_id], class_id, score, mask, isthing)
            for (class_id, score, isthing), mask in instances
        )
        segments = sorted((s for s in candidates if s), key=lambda s: (-s.score, -s.area, s.name, s.box))
        if label_map is None:
            painted = paint_segments(segments, (photo.shape[0], photo.shape[1]))
            label_map = np.array([-1, *(segment.class_id for segment in segments)], np.int32)[painted + 1]
        return cls(names, label_map, segments, photo, "instance", settings or {}, source)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the photo, pixels."""
        return self.label_map.shape[0], self.label_map.shape[1]

    @cached_property
    def segment_map(self) -> np.ndarray:
        """(H, W) int32, index into ``segments``, -1 = none; where segments overlap, the highest score is on top."""
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
        """Draw the segments in colour over the photo, with a legend beside or below it.

        The colours do not depend on the order of the names. With up to 24 names, a name has the same colour in every
        photo; with more, colours are chosen among the names in the photo, so that they differ clearly. Things of one
        name differ in shade. Pixels without a name keep the colours of the photo. The font size grows with the photo;
        with a legend or labels, photos below 320 pixels are enlarged by an integer factor.

        Args:
            alpha: opacity of the colours in [0, 1].
            legend: add a legend. Without it the picture has the size of the photo, unless it is small and has labels.
            borders: outline the segments.
            labels: write names on things; None: in panoptic and instance mode.
            max_names: maximum number of lines of the legend; its last line counts the names left out. None: as many
                as fit.
            font: path of a TrueType or OpenType file; None: an installed font that has the characters of the names.

        Returns:
            The picture, RGB.

        Raises:
            SettingError: an option is outside its range.
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
            max_lines=max_names,
            font=font,
        )

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the result to a file, in the format that its suffix names.

        Args:
            path: ``.png``, ``.jpg``, ``.jpeg``, ``.webp``: the overlay; ``.json``: ``summary()``; ``.npz``:
                everything, for ``Segmentation.load``. Missing folders are created.
            **options: the options of ``overlay``, for pictures only.

        Returns:
            The path.

        Raises:
            SettingError: an option is unknown, outside its range, or does not apply to the format.
            OutputError: the suffix is unknown, or the file cannot be written. An existing file is kept in that case.
        """
        target = Path(path)
        _check_save_options(target, options)
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
            formats.check_picture_suffix(target)  # before drawing, which takes longer
            formats.save_picture(self.overlay(**options), target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Segmentation":
        """Read the ``.npz`` file that ``save`` wrote.

        Raises:
            ImageError: the file is missing, damaged, or was not written by ``save``.
        """
        content = formats.load_archive(path)
        try:
            return cls(**content)
        except (SettingError, TypeError, AttributeError, ValueError) as error:
            raise ImageError(f"cannot read {path}: the file is damaged ({error})") from error

    def save_labels(self, path: str | os.PathLike[str]) -> Path:
        """Write the label map as a grey PNG of 8 or 16 bits: index + 1, 0 = none, names in its text chunk "names".

        Any program can read it; ``deop.results.read_labels`` also returns the names.

        Raises:
            OutputError: the suffix is not .png, there are more than 65,535 names, or the file cannot be written.
        """
        formats.save_labels(Path(path), self.label_map, self.names)
        return Path(path)

    def summary(self) -> dict[str, Any]:
        """The result without pixels, in types that JSON supports. Boxes are (x0, y0, x1, y1), shares in [0, 1]."""
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
            file_name: file name of the photo; None: that of ``source``.
            first_id: id of the first annotation; with it, the results of several photos can be joined.

        Returns:
            A dict in types that JSON supports; category ids are index + 1, masks uncompressed run lengths.
        """
        return formats.coco(self.segments, self.names, self.shape, image_id, self._file_name(file_name), first_id)

    def to_panoptic(self, image_id: int = 1, file_name: str | None = None) -> tuple[Image.Image, dict[str, Any]]:
        """COCO's panoptic format.

        Args:
            image_id: id of the photo.
            file_name: file name of the PNG; None: that of ``source`` with the suffix .png.

        Returns:
            The image whose colours are segment ids (R + 256 G + 65536 B, 0 = none), and a dict with "annotation"
            (which has "segments_info") and "categories".
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
        content = ", ".join(parts) or "nothing found"
        return f"Segmentation({self.mode}, {self.shape[1]} x {self.shape[0]} px: {content})"

    def _repr_png_(self) -> bytes:
        """The picture in a notebook, at most 1,280 x 1,280 pixels so that notebooks stay small."""
        picture = self.overlay()
        picture.thumbnail((1280, 1280))
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _file_name(self, file_name: str | None) -> str:
        return file_name or (Path(self.source).name if self.source else "photo.jpg")


def _check_save_options(path: Path, options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(Segmentation.overlay).parameters if name != "self"]
    if unknown := [name for name in options if name not in known]:
        raise SettingError(f"unknown option {unknown[0]!r} of save: the options of pictures are {', '.join(known)}")
    if options and path.suffix.lower() in (".json", ".npz"):
        raise SettingError(f"option {next(iter(options))!r} applies to pictures only: omit it for {path.name}")

"""The result for one photo: ``Segmentation``, as arrays, pictures and files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import SettingError
from deop.results.checks import MODES, as_map, as_names
from deop.results.colours import name_colours
from deop.results.exports import Exports
from deop.results.legend import percent
from deop.results.overlay import draw_overlay
from deop.results.segments import Segment, paint_segments, segments_of_map


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Exports):
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
        heatmaps: for some of the names the score at each pixel, (H, W) float32 in [0, 1].

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
    heatmaps: Mapping[str, np.ndarray] = field(default_factory=dict)

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

    @cached_property
    def colours(self) -> np.ndarray:
        """(K, 3) uint8, the sRGB colour of each name."""
        return name_colours(self.names)

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

    def __repr__(self) -> str:
        parts = [f"{segment.name} {percent(segment.share)}" for segment in self.segments[:4]]
        if len(self.segments) > 4:
            parts.append(f"{len(self.segments) - 4} more")
        content = ", ".join(parts) or "nothing found"
        return f"Segmentation({self.mode}, {self.shape[1]} x {self.shape[0]} px: {content})"

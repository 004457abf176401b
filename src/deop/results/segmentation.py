"""The result for one photo: ``Segmentation``, as arrays, pictures and files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from deop.arguments import check_arguments, check_fields
from deop.errors import NotFoundInPhotoError, SettingError
from deop.results.checks import MODES, as_map, as_names, check_kinds, check_numbers, check_piece
from deop.results.colours import vocabulary_colours
from deop.results.cutout import cut_out
from deop.results.exports import Exports
from deop.results.heatmap import draw_heatmap
from deop.results.legend import percent
from deop.results.name_lookup import find_names
from deop.results.overlay import STYLES, check_alpha, draw_segments
from deop.results.segments import Runs, Segment, paint_segments, segments_of_map
from deop.text.vocabulary import quoted


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
        check_fields(self)
        if self.mode not in MODES:
            raise SettingError(f"unknown mode {self.mode!r}: use one of {', '.join(MODES)}")
        object.__setattr__(self, "names", as_names(self.names))
        object.__setattr__(self, "label_map", as_map(self.label_map, len(self.names), "label_map"))
        if self.photo.shape != (*self.label_map.shape, 3) or self.photo.dtype != np.uint8:
            raise SettingError(
                f"the photo must be {(*self.label_map.shape, 3)} uint8 to match the label map, "
                f"not {self.photo.shape} {self.photo.dtype}"
            )
        for name, values in self.heatmaps.items():
            if not isinstance(values, np.ndarray) or values.shape != self.shape:
                raise SettingError(f"the heatmap of {name!r} must be an array {self.shape}, the size of the label map")
        for segment in self.segments:
            if not isinstance(segment, Segment):
                raise SettingError(f"segments must be a list of Segment, not of {type(segment).__name__}")
            if segment.shape != self.label_map.shape:
                raise SettingError(
                    f"segment {segment.name!r} belongs to a photo of shape {segment.shape}, not {self.shape}"
                )
            if not 0 <= segment.class_id < len(self.names) or self.names[segment.class_id] != segment.name:
                raise SettingError(
                    f"segment {segment.name!r} has class_id {segment.class_id}, which is not the index of its name"
                )

    @classmethod
    @check_arguments
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

        Raises:
            SettingError: names, maps and photo do not fit each other.
        """
        names = as_names(names)
        label_map = as_map(label_map, len(names), "label_map")
        scores, runs = np.ones(len(names)), Runs.of(label_map)
        kinds = check_kinds(isthing, len(names))
        if confidence is not None:
            check_numbers(confidence, (label_map.shape, (len(names),)), "confidence")
            scores = confidence if confidence.ndim == 1 else runs.mean(confidence, len(names))
        segments = segments_of_map(label_map, names, range(len(names)), scores.tolist(), kinds, runs)
        return cls(names, label_map, segments, photo, "semantic", settings or {}, source)

    @classmethod
    @check_arguments
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
        checked = [check_piece(piece, len(names)) for piece in pieces]
        segment_map = as_map(segment_map, len(checked), "segment_map")
        class_ids = [class_id for class_id, _, _ in checked]
        scores, kinds = [score for _, score, _ in checked], [kind for _, _, kind in checked]
        segments = segments_of_map(segment_map, names, class_ids, scores, kinds)
        label_map = np.array([-1, *class_ids], np.int32)[segment_map + 1]
        return cls(names, label_map, segments, photo, "panoptic", settings or {}, source)

    @classmethod
    @check_arguments
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
        shape = photo.shape[:2]

        def segment_of(instance: Any) -> Segment | None:
            if not isinstance(instance, Sequence) or len(instance) != 2 or isinstance(instance, str | bytes):
                raise SettingError(f"an instance is {quoted(instance)}: give ((class_id, score, isthing), mask)")
            class_id, score, isthing = check_piece(instance[0], len(names))
            mask = instance[1]
            if not isinstance(mask, np.ndarray) or mask.shape != shape:
                raise SettingError(f"the mask of an instance must be an array {shape}, the size of the photo")
            return Segment.from_mask(names[class_id], class_id, score, mask, isthing)

        candidates = map(segment_of, instances)
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
        """(K, 3) uint8, the sRGB colour of each name. They depend on the names alone, not on their order or a photo."""
        return vocabulary_colours(self.names)

    @check_arguments
    def overlay(
        self,
        alpha: float | None = None,
        *,
        style: str = "overlay",
        names: Sequence[str] | str | None = None,
        legend: bool = True,
        borders: bool = True,
        labels: bool | None = None,
        max_names: int | None = None,
        font: str | None = None,
    ) -> Image.Image:
        """Draw the result as a picture.

        The styles are:

        - "overlay": the segments in the colours of their names, with the lightness of the photo. Pixels without a name
          are grey.
        - "outline": the photo, with coloured outlines of the segments.
        - "labels": the colours alone.
        - "side-by-side": the photo, and the overlay at its right.
        - "cutout": the segments of ``names`` on a transparent background, as in ``cutout``.
        - "heatmap": the heatmap of the one name in ``names``, as in ``heatmap``.

        A name has the same colour in every picture of the same names. Names with a colour that people expect have that
        one, such as blue for the sky, and names such as "background" are grey. Things of one name differ slightly. The
        swatches of the legend show the colours as they appear in the picture. The font size grows with the photo; with
        a legend or labels, photos below 320 pixels are enlarged by an integer factor.

        Args:
            alpha: opacity of the colours in [0, 1]; None: 0.5, and 0.7 for heatmaps. Outlines, labels and cut-outs do
                not have one.
            style: one of the styles above.
            names: the names that a cut-out or a heatmap is of.
            legend: add a legend beside or below the picture, which also lists the names that were not found. Without it
                the picture has the size of the photo, unless it is small and has labels. Cut-outs have none.
            borders: outline the segments.
            labels: write names on the segments that are large enough; None: yes, if the photo has at least 96 pixels.
            max_names: maximum number of lines of the legend; its last line counts the names left out. None: as many
                as fit.
            font: path of a TrueType or OpenType file; None: an installed font that has the characters of the names.

        Returns:
            The picture, RGB; a cut-out is RGBA.

        Raises:
            SettingError: an option is unknown, outside its range, or does not apply to the style.
            NotFoundInPhotoError: a cut-out of names that no pixel has.
        """
        if style not in STYLES:
            raise SettingError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
        if style == "cutout":
            return self.cutout(names)
        if style == "heatmap":
            if names is None:
                raise SettingError('style="heatmap" needs a name: give names=...')
            chosen = self._find(names)
            if len(chosen) != 1:
                raise SettingError(f"a heatmap is of one name, not of {len(chosen)}: draw one for each")
            heat_alpha = 0.7 if alpha is None else alpha
            return self.heatmap(self.names[chosen[0]], alpha=heat_alpha, legend=legend, font=font)
        if names is not None:
            raise SettingError(f"names apply to the styles cutout and heatmap, not to {style}: omit them")
        return draw_segments(
            self.photo,
            self.names,
            self.segments,
            self.segment_map,
            self.colours,
            style=style,
            alpha=0.5 if alpha is None else alpha,
            borders=borders,
            labels=max(self.shape) >= 96 if labels is None else labels,
            legend=legend,
            max_lines=max_names,
            font=font,
            list_not_found=self.settings.get("vocabulary") is None,  # built-in lists have hundreds of names
        )

    def _find(self, names: Sequence[str] | str) -> list[int]:
        """The indices of names or synonyms; there is at least one."""
        found = find_names(names, self.names, self.settings.get("synonyms"))
        if not found:
            raise SettingError("no name is given: give one or more of the names of the result")
        return found

    @check_arguments
    def cutout(
        self, names: Sequence[str] | str | None = None, *, soft_edge: bool = True, crop: bool = False
    ) -> Image.Image:
        """Cut the segments of some names out of the photo, on a transparent background.

        Args:
            names: names or synonyms, as a list or a string with commas; None: all names.
            soft_edge: make the outermost pixels of the segments partly transparent, so that the edge is smooth. Pixels
                outside stay fully transparent. False: opacity 255 inside and 0 outside, exactly the mask.
            crop: crop the picture to the box of the segments.

        Returns:
            RGBA picture of the size of the photo, unless it is cropped.

        Raises:
            SettingError: a name is not one of ``names``.
            NotFoundInPhotoError: no pixel has one of the names.
        """
        chosen = range(len(self.names)) if names is None else self._find(names)
        mask = np.zeros(self.shape, bool)
        for segment in self.segments:
            if segment.class_id in chosen:
                x0, y0, x1, y1 = segment.box
                mask[y0:y1, x0:x1] |= segment.crop
        if not mask.any():
            what = "any of the names" if names is None else " or ".join(repr(self.names[index]) for index in chosen)
            raise NotFoundInPhotoError(f"nothing to cut out: no pixel of {self.source or 'the photo'} is {what}")
        return cut_out(self.photo, mask, soft_edge=soft_edge, crop=crop)

    @check_arguments
    def heatmap(
        self,
        name: str,
        alpha: float = 0.7,
        *,
        maximum: float = 1.0,
        legend: bool = True,
        font: str | None = None,
    ) -> Image.Image:
        """Draw the heatmap of a name: its score at each pixel, from black over red to pale yellow, with a scale.

        Args:
            name: a name in ``heatmaps``; the model computes those that it is asked for
                (``model.segment(..., heatmaps="cup")``).
            alpha: opacity of the colours in [0, 1]; the photo's contrast is reduced to 1 - alpha.
            maximum: the score at the upper end of the scale, in (0, 1].
            legend: add the scale below the picture.
            font: path of a TrueType or OpenType file; None: an installed font that has the characters of the name.

        Returns:
            The picture, RGB.

        Raises:
            SettingError: the result has no heatmap of the name, or an option is outside its range.
        """
        check_alpha(alpha)
        if not 0 < maximum <= 1:
            raise SettingError(f"the maximum of a heatmap must be in (0, 1], not {maximum}")
        shown = self.names[self._find([name])[0]]
        if shown not in self.heatmaps:
            raise SettingError(
                f"this result has no heatmap of {shown!r}: segment the photo with heatmaps={shown!r} (--heatmap)"
            )
        return draw_heatmap(
            self.photo, self.heatmaps[shown], shown, alpha=alpha, maximum=maximum, legend=legend, font=font
        )

    def __repr__(self) -> str:
        parts = [f"{segment.name} {percent(segment.share)}" for segment in self.segments[:4]]
        if len(self.segments) > 4:
            parts.append(f"{len(self.segments) - 4} more")
        content = ", ".join(parts) or "nothing found"
        return f"Segmentation({self.mode}, {self.shape[1]} x {self.shape[0]} px: {content})"

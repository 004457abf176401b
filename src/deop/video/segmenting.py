"""Segmenting a video frame by frame."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import DeopError, ImageError, SettingError
from deop.results.segmentation import Segmentation
from deop.video.reading import DecodedFrame
from deop.video.smoothing import LabelSmoother

if TYPE_CHECKING:
    from deop.model_names import Names
    from deop.surface import ModelSurface


@dataclass(frozen=True)
class SegmentedFrame:
    """The result for one frame.

    Attributes:
        frame: the frame.
        result: its segmentation, or the error of a frame that cannot be decoded or segmented.
    """

    frame: DecodedFrame
    result: Segmentation | DeopError


_OF_NAMES = ("background", "templates", "things", "bank", "bank_weight")
"""Options that become part of the vocabulary, which is the same for all frames."""


def segment_frames(
    model: "ModelSurface",
    frames: Iterable[DecodedFrame],
    names: "Names | None",
    *,
    smoothing: float = 0.0,
    every: int = 1,
    **options: Any,
) -> Iterator[SegmentedFrame]:
    """Segment the frames of a video in order.

    Args:
        model: the model.
        frames: from ``open_video``.
        names: the class names, as in ``DeOP.segment``.
        smoothing: in [0, 1); how much the labels of earlier frames count (``LabelSmoother``). 0: each frame alone.
            Semantic mode only.
        every: segment each n-th frame; the frames between show the labels of the last one. At least 1.
        **options: the other options of ``DeOP.segment``.

    Returns:
        An iterator with one item per frame. A frame that cannot be decoded does not end it.

    Raises:
        VocabularyError, SettingError: an argument is wrong. They are raised by this call, before a frame is decoded.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise SettingError(f"every must be an integer of at least 1, not {every!r}")
    if smoothing and options.get("mode", "semantic") != "semantic":
        raise SettingError(
            f"smoothing applies to semantic mode only, not to {options['mode']!r}, whose segments are not followed "
            "over time: omit one of them"
        )
    smoother = LabelSmoother(smoothing)
    vocabulary = model.vocabulary(names, **{key: options.pop(key) for key in _OF_NAMES if key in options})
    model.embed(vocabulary)
    return _segment(model, frames, vocabulary, smoother, every, options)


def _segment(
    model: "ModelSurface",
    frames: Iterable[DecodedFrame],
    vocabulary: Any,
    smoother: LabelSmoother,
    every: int,
    options: Any,
) -> Iterator[SegmentedFrame]:
    last: Segmentation | None = None
    since = 0  # frames since the last one that was segmented
    for frame in frames:
        if frame.pixels is None:
            yield SegmentedFrame(frame, ImageError(f"frame {frame.index}: {frame.error}"))
            continue
        if last is not None and since < every and last.shape == frame.pixels.shape[:2]:
            since += 1
            yield SegmentedFrame(frame, replace(last, photo=frame.pixels))
            continue
        try:
            result = model.segment(frame.pixels, vocabulary, **options)
        except DeopError as error:
            yield SegmentedFrame(frame, error)
            continue
        assert isinstance(result, Segmentation)  # a list only for a list of photos
        last, since = smooth(result, smoother) if smoother.smoothing else result, 1
        yield SegmentedFrame(frame, last)


def smooth(result: Segmentation, smoother: LabelSmoother) -> Segmentation:
    """The semantic result of a frame with smoothed labels.

    The score of a name is that of this frame; of a name that only earlier frames have, 0.
    """
    labels = smoother(result.photo, result.label_map)
    scores = np.zeros(len(result.names))
    kinds: list[bool | None] = [None] * len(result.names)
    for segment in result.segments:
        scores[segment.class_id], kinds[segment.class_id] = segment.score, segment.isthing
    settings = {**result.settings, "smoothing": smoother.smoothing}
    return Segmentation.from_semantic(result.photo, result.names, labels, scores, settings, isthing=kinds)

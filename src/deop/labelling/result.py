"""From scored proposals to a result: the map of a mode, with calibrated scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling import segments
from deop.labelling.assembly import semantic
from deop.labelling.maps import SemanticMap, divide_things, drop_weak_things, only_things
from deop.labelling.masks import PhotoMasks
from deop.labelling.same_thing import mask_cells
from deop.results.segmentation import Segmentation
from deop.settings import Settings
from deop.text.vocabulary import Vocabulary


class MaskedPhoto(Protocol):
    """What labelling needs of an encoded photo, of any engine.

    Attributes:
        photo: (H, W, 3) uint8.
        canvas: position of the photo in the masks.
        masks: N masks.
        source: path of the photo, or None if it was not a file.
        masks_are_instances: whether each mask of a thing is one whole thing.
    """

    @property
    def photo(self) -> np.ndarray: ...  # noqa: D102
    @property
    def canvas(self) -> Canvas: ...  # noqa: D102
    @property
    def masks(self) -> PhotoMasks: ...  # noqa: D102
    @property
    def source(self) -> str | None: ...  # noqa: D102
    @property
    def masks_are_instances(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class PhotoWithMasks:
    """A ``MaskedPhoto`` with masks other than those that were encoded."""

    photo: np.ndarray
    canvas: Canvas
    masks: PhotoMasks
    source: str | None
    masks_are_instances: bool


def assemble(
    encoded: MaskedPhoto,
    scores: np.ndarray,
    vocabulary: Vocabulary,
    settings: Settings,
    mode: str,
    thresholds: Sequence[float],
    record: Mapping[str, Any],
) -> Segmentation:
    """Assemble the result of one photo (docs/method.md §6).

    Args:
        encoded: the photo and its N proposals.
        scores: (N, K + 1) probabilities of the K names and, last, "none of these".
        vocabulary: the K names.
        settings: the model's settings.
        mode: "semantic", "panoptic" or "instance", as in ``DeOP.segment``.
        thresholds: minimum calibrated score of each name, K numbers in [0, 1].
        record: how the result was made, which is saved with it.

    Returns:
        The result, at the photo's own size.
    """
    photo, names, source = encoded.photo, vocabulary.names, encoded.source
    isthing = np.array(vocabulary.things, dtype=bool)
    masks, canvas, rest = encoded.masks, encoded.canvas, vocabulary.everything_else
    limits = raw_limits(vocabulary, settings, thresholds)
    if mode == "semantic":
        named = semantic_map(encoded, scores, vocabulary, settings, limits)
        result = Segmentation.from_semantic(photo, names, *named, record, isthing=vocabulary.things, source=source)
    elif not encoded.masks_are_instances:
        named = semantic_map(encoded, scores, vocabulary, settings, limits)
        # As in the other way to find segments, a kind of stuff needs a mask: not every second-best name is a segment.
        stuff = segments.names_of_masks(scores, masks, threshold=limits) if mode == "panoptic" else None
        cells = mask_cells(masks, canvas)
        panoptic = divide_things(named, isthing, smallest_thing=settings.smallest_thing, stuff=stuff, cells=cells)
        if mode == "panoptic":
            panoptic = drop_weak_things(panoptic, settings.thing_score)
        if rest is not None and not vocabulary.background:
            panoptic = segments.label_rest(panoptic, rest)
        if mode == "instance":
            panoptic = only_things(panoptic)
        result = Segmentation.from_panoptic(photo, names, *panoptic, record, source=source)
        if mode == "instance":
            best_first = sorted(result.segments, key=lambda segment: (-segment.score, -segment.area, segment.box))
            result = replace(result, mode=mode, segments=best_first)
    elif mode == "panoptic":
        panoptic = segments.panoptic(
            scores, masks, canvas, isthing, threshold=limits, smallest_region=settings.smallest_region
        )
        if rest is not None and not vocabulary.background:
            panoptic = segments.label_rest(panoptic, rest)
        result = Segmentation.from_panoptic(photo, names, *panoptic, record, source=source)
    else:
        things = segments.instances(scores, masks, canvas, isthing, threshold=limits)
        result = Segmentation.from_instances(photo, names, things, record, source=source)
    calibration = settings.calibration
    if not calibration.curve:
        return result
    calibrated = [replace(segment, score=calibration.score(segment.score)) for segment in result.segments]
    return replace(result, segments=calibrated)


def semantic_map(
    encoded: MaskedPhoto, scores: np.ndarray, vocabulary: Vocabulary, settings: Settings, limits: np.ndarray
) -> SemanticMap:
    """The name of each pixel and its confidence, before calibration.

    Args:
        encoded: as for ``assemble``, also ``scores``, ``vocabulary`` and ``settings``.
        scores: (N, K + 1).
        vocabulary: the K names.
        settings: the model's settings.
        limits: the minimum score of each name before calibration, from ``raw_limits``.
    """
    return semantic(
        scores,
        encoded.masks,
        encoded.canvas,
        threshold=limits,
        claim=settings.claim,
        none_competes=bool(vocabulary.background),
        smallest_region=settings.smallest_region,
        everything_else=-1 if vocabulary.everything_else is None else vocabulary.everything_else,
    )


def raw_limits(vocabulary: Vocabulary, settings: Settings, thresholds: Sequence[float]) -> np.ndarray:
    """The minimum score of each name before calibration, (K,) float32."""
    raw = {limit: settings.calibration.raw(limit) for limit in set(thresholds)}  # mostly one for all names
    limits = np.array([raw[limit] for limit in thresholds], np.float32)
    if vocabulary.everything_else is not None:
        limits[vocabulary.everything_else] = 0  # it also gets the pixels of names below their minimum score
    return limits

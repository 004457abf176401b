"""From scored proposals to a result: the map of a mode, with calibrated scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deop.regions import assembly
from deop.regions.encoding import EncodedPhoto
from deop.regions.maps import SemanticMap, divide_things, only_things
from deop.results.segmentation import Segmentation
from deop.settings import Settings
from deop.text.vocabulary import Vocabulary


def assemble(
    encoded: EncodedPhoto,
    scores: Tensor,
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
    masks, canvas, rest = encoded.proposals, encoded.canvas, vocabulary.everything_else
    limits = _raw_limits(vocabulary, settings, thresholds)
    if mode == "semantic":
        semantic = semantic_map(encoded, scores, vocabulary, settings, thresholds)
        result = Segmentation.from_semantic(photo, names, *semantic, record, isthing=vocabulary.things, source=source)
    elif not encoded.masks_are_instances:
        semantic = semantic_map(encoded, scores, vocabulary, settings, thresholds)
        # As in the other way to find segments, a kind of stuff needs a mask: not every second-best name is a segment.
        stuff = assembly.names_of_masks(scores, masks, threshold=limits) if mode == "panoptic" else None
        panoptic = divide_things(semantic, isthing, smallest_thing=settings.smallest_thing, stuff=stuff)
        if rest is not None and not vocabulary.background:
            panoptic = assembly.label_rest(panoptic, rest)
        if mode == "instance":
            panoptic = only_things(panoptic)
        result = Segmentation.from_panoptic(photo, names, *panoptic, record, source=source)
        if mode == "instance":
            best_first = sorted(result.segments, key=lambda segment: (-segment.score, -segment.area, segment.box))
            result = replace(result, mode=mode, segments=best_first)
    elif mode == "panoptic":
        panoptic = assembly.panoptic(
            scores, masks, canvas, isthing, threshold=limits, smallest_region=settings.smallest_region
        )
        if rest is not None and not vocabulary.background:
            panoptic = assembly.label_rest(panoptic, rest)
        result = Segmentation.from_panoptic(photo, names, *panoptic, record, source=source)
    else:
        things = assembly.instances(scores, masks, canvas, isthing, threshold=limits)
        result = Segmentation.from_instances(photo, names, things, record, source=source)
    calibration = settings.calibration
    if not calibration.curve:
        return result
    calibrated = [replace(segment, score=calibration.score(segment.score)) for segment in result.segments]
    return replace(result, segments=calibrated)


def semantic_map(
    encoded: EncodedPhoto, scores: Tensor, vocabulary: Vocabulary, settings: Settings, thresholds: Sequence[float]
) -> SemanticMap:
    """The name of each pixel and its confidence, before calibration; arguments as for ``assemble``."""
    return assembly.semantic(
        scores,
        encoded.proposals,
        encoded.canvas,
        threshold=_raw_limits(vocabulary, settings, thresholds),
        claim=settings.claim,
        none_competes=bool(vocabulary.background),
        smallest_region=settings.smallest_region,
        everything_else=-1 if vocabulary.everything_else is None else vocabulary.everything_else,
    )


def _raw_limits(vocabulary: Vocabulary, settings: Settings, thresholds: Sequence[float]) -> Tensor:
    """The minimum score of each name before calibration, (K,) float on the CPU, from where copies do not wait."""
    limits = torch.tensor([settings.calibration.raw(limit) for limit in thresholds])
    if vocabulary.everything_else is not None:
        limits[vocabulary.everything_else] = 0  # it also gets the pixels of names below their minimum score
    return limits

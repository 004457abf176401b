"""Which names of a built-in vocabulary a photo shows; the pixels of the others get the best of the rest."""

import numpy as np
import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.proposals.types import Proposals
from deop.regions import assembly

SMALLEST_SHARE = 0.01
"""A name whose pixels are a smaller share of the photo is dropped."""

SMALLEST_SCORE = 0.3
"""A name whose pixels have a lower mean score is dropped."""


def keep_present(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    *,
    claim: float = 0.0,
    smallest_share: float = SMALLEST_SHARE,
    smallest_score: float = SMALLEST_SCORE,
) -> Tensor:
    """Drop the names that a photo does not show: of some hundred names, many win a few pixels by chance.

    The photo is labelled with all names. A name is kept if its pixels are a large enough share of the photo and have a
    high enough mean score; the name with the most pixels is always kept. benchmarks/builtin_vocabularies.py measures
    other limits.

    Args:
        probabilities: (N, K + 1), softmax over the names and, last, "none of these".
        proposals: N masks.
        canvas: position of the photo in the masks.
        claim: as in ``assembly.semantic``.
        smallest_share: in [0, 1].
        smallest_score: in [0, 1].

    Returns:
        (N, K + 1): the softmax over the names that are kept and "none of these"; 0 for the others.
    """
    labels, confidence = assembly.semantic(probabilities, proposals, canvas, claim=claim)
    count = probabilities.shape[1] - 1
    kept = present_names(labels, confidence, count, smallest_share, smallest_score)
    if kept.all():
        return probabilities
    columns = torch.from_numpy(np.append(kept, True)).to(probabilities.device)
    remaining = probabilities * columns
    return remaining / remaining.sum(-1, keepdim=True).clamp_min(torch.finfo(remaining.dtype).tiny)


def present_names(
    labels: np.ndarray, confidence: np.ndarray, count: int, smallest_share: float, smallest_score: float
) -> np.ndarray:
    """The names that a map shows.

    Args:
        labels: (H, W) int32, index of the name, or -1.
        confidence: (H, W) float in [0, 1].
        count: K, number of names.
        smallest_share: in [0, 1], as in ``keep_present``.
        smallest_score: in [0, 1], as in ``keep_present``.

    Returns:
        (K,) bool; at least one is True if a pixel has a name.

    >>> present_names(np.array([[0, 0, 0, 1]]), np.array([[0.9, 0.9, 0.9, 0.2]]), 3, 0.1, 0.3)
    array([ True, False, False])
    """
    named = labels >= 0
    pixels = np.bincount(labels[named], minlength=count)
    scores = np.bincount(labels[named], confidence[named], minlength=count) / np.maximum(pixels, 1)
    kept = (pixels > 0) & (pixels >= smallest_share * labels.size) & (scores >= smallest_score)
    if pixels.any():
        kept[pixels.argmax()] = True
    return kept

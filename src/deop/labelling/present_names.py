"""Which names of a built-in vocabulary a photo shows; the pixels of the others get the best of the rest."""

from collections.abc import Sequence

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.assembly import semantic
from deop.labelling.masks import PhotoMasks

Limits = Sequence[tuple[float, float]]
"""Pairs (share of the photo, mean score), both in [0, 1]: a name is kept if it reaches both numbers of one pair."""

LIMITS: Limits = ((0.005, 0.4),)
"""Chosen by benchmarks/builtin_vocabularies.py on training photos."""


def keep_present(
    probabilities: np.ndarray,
    masks: PhotoMasks,
    canvas: Canvas,
    *,
    claim: float = 0.0,
    limits: Limits = LIMITS,
) -> np.ndarray:
    """Drop the names that a photo does not show: of some hundred names, many win a few pixels by chance.

    The photo is labelled with all names. A name is kept if its pixels are a large enough share of the photo and have a
    high enough mean score; the name with the most pixels is always kept. Of the others, the weaker half is dropped and
    the photo is labelled again, until all names are kept. So a cup is not lost because mug, bowl and cloth share its
    score: the weakest of them are dropped first, and the cup gets their share.

    Args:
        probabilities: (N, K + 1), softmax over the names and, last, "none of these".
        masks: N masks.
        canvas: position of the photo in the masks.
        claim: as in ``assembly.semantic``.
        limits: what a name must reach.

    Returns:
        (N, K + 1): the softmax over the names that are kept and "none of these"; 0 for the others.
    """
    count = probabilities.shape[1] - 1
    kept = np.ones(count, bool)
    remaining = probabilities
    while True:
        labels, confidence = semantic(remaining, masks, canvas, claim=claim)
        pixels, scores = _shares_and_scores(labels, confidence, count)
        present = present_names(labels, confidence, count, limits)
        weak = np.flatnonzero((pixels > 0) & ~present)
        first = np.argsort(scores[weak], kind="stable")[: -(-len(weak) // 2)]
        dropped = kept & ((pixels == 0) | np.isin(np.arange(count), weak[first]))
        if not pixels.any() or not dropped.any():
            return remaining
        kept &= ~dropped
        remaining = probabilities * np.append(kept, True)
        remaining /= np.maximum(remaining.sum(-1, keepdims=True), np.finfo(remaining.dtype).tiny)


def present_names(labels: np.ndarray, confidence: np.ndarray, count: int, limits: Limits = LIMITS) -> np.ndarray:
    """The names that a map shows.

    Args:
        labels: (H, W) int32, index of the name, or -1.
        confidence: (H, W) float in [0, 1].
        count: K, number of names.
        limits: as in ``keep_present``.

    Returns:
        (K,) bool; at least one is True if a pixel has a name.

    >>> present_names(np.array([[0, 0, 0, 1]]), np.array([[0.9, 0.9, 0.9, 0.2]]), 3, [(0.1, 0.3)])
    array([ True, False, False])
    """
    pixels, scores = _shares_and_scores(labels, confidence, count)
    reached = [(pixels >= share * labels.size) & (scores >= score) for share, score in limits]
    kept = (pixels > 0) & np.any(reached, 0)
    if pixels.any():
        kept[pixels.argmax()] = True
    return kept


def _shares_and_scores(labels: np.ndarray, confidence: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of pixels (K,) int64 and the mean score (K,) float of each name."""
    named = labels >= 0
    pixels = np.bincount(labels[named], minlength=count)
    return pixels, np.bincount(labels[named], confidence[named], minlength=count) / np.maximum(pixels, 1)

"""Classification of regions in numpy, for engines without torch: equal to ``deop.regions.classification``."""

import numpy as np

from deop.settings import TEMPERATURE
from deop.text.embedded_classes import Classes


def classify(
    regions: np.ndarray, classes: Classes, no_object: np.ndarray | None = None, temperature: float = TEMPERATURE
) -> np.ndarray:
    """Logits of each region for each name (docs/method.md §6).

    Args:
        regions: (N, C) float, L2-normalised.
        classes: embeddings of K names, their synonyms and the background.
        no_object: (C,) float, the learned "no object" vector, or None; need not be normalised.
        temperature: factor of the cosine similarities.

    Returns:
        (N, K + 1) float32 logits. A name has the logit of its best synonym, or -inf if it has no row. The last column
        is "none of these": the best of the background names and the "no object" vector, or -inf without either. If a
        name means everything else, the "no object" vector counts for that name instead.
    """
    logits = class_logits(regions, classes, temperature)
    if no_object is not None:
        column = logits.shape[1] - 1 if classes.everything_else is None else classes.everything_else
        learned = no_object_logits(regions, no_object, temperature)
        np.maximum(logits[:, column], learned, out=logits[:, column])
    return logits


def class_logits(regions: np.ndarray, classes: Classes, temperature: float = TEMPERATURE) -> np.ndarray:
    """As ``classify`` without a "no object" vector: the last column is the background, or -inf without one."""
    # The factor goes to the regions, which are fewer than the rows or the similarities.
    scaled = np.float32(temperature) * regions.astype(np.float32)
    columns = classes.columns
    count = len(columns.rows)
    logits = np.empty((len(regions), len(classes.names) + 1), np.float32)
    np.matmul(scaled, columns.rows.T, out=logits[:, :count])
    if columns.offset is not None:
        logits[:, :count] += columns.offset
    logits[:, count:] = -np.inf
    if len(columns.more):
        further = columns.more @ scaled.T
        if columns.more_offset is not None:
            further += columns.more_offset[:, None]
        best = np.maximum.reduceat(further, columns.starts).T
        logits[:, columns.columns] = np.maximum(logits[:, columns.columns], best)
    return logits


def no_object_logits(regions: np.ndarray, no_object: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Logits (N,) float32 of the learned "no object" vector (C,)."""
    vector = no_object.astype(np.float32)
    vector = vector / max(float(np.sqrt(np.square(vector).sum())), 1e-12)
    return np.float32(temperature) * (regions.astype(np.float32) @ vector)


def probabilities(logits: np.ndarray, bias: float | None = None, *, in_place: bool = False) -> np.ndarray:
    """Scores of the names and "none of these" (N, K + 1) in float32: their softmax, or sigmoid(logit + bias).

    ``in_place`` may overwrite the logits, which saves memory and its time with many names.
    """
    if bias is not None:
        return np.exp(-np.logaddexp(np.float32(0), -(logits + np.float32(bias))))  # exact for small scores, too
    exponentials = np.subtract(logits, logits.max(-1, keepdims=True), out=logits if in_place else None)
    np.exp(exponentials, out=exponentials)
    exponentials /= exponentials.sum(-1, keepdims=True)
    return exponentials

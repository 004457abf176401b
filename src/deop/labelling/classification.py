"""Classification of regions in numpy, for engines without torch: equal to ``deop.regions.classification``."""

import numpy as np

from deop.settings import TEMPERATURE
from deop.text.embedding import Classes


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
    logits = np.empty((len(regions), len(classes.names) + 1), np.float32)
    # Mostly, the first rows are one for each name. Their similarities need no other array, which saves time with many.
    first = classes.owner[: logits.shape[1]]
    lead = len(first) - np.count_nonzero(np.logical_or.accumulate(first != np.arange(len(first))))
    np.matmul(scaled, classes.rows[:lead].T, out=logits[:, :lead])
    if classes.offset is not None:
        logits[:, :lead] += classes.offset[:lead]
    logits[:, lead:] = -np.inf
    if lead == len(classes.owner):
        return logits
    similarity = scaled @ classes.rows[lead:].T
    if classes.offset is not None:
        similarity += classes.offset[lead:]
    # Of the other rows, those of one name together; NumPy's reduceat takes several times as long.
    order = np.argsort(classes.owner[lead:], kind="stable")
    owner = classes.owner[lead:][order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    ends = np.append(starts[1:], len(order))
    best = similarity[:, order[starts]]
    for group in np.flatnonzero(ends - starts > 1).tolist():
        best[:, group] = similarity[:, order[starts[group] : ends[group]]].max(1)
    owner = owner[starts]
    logits[:, owner] = np.maximum(logits[:, owner], best)
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

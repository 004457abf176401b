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
    similarity = (np.float32(temperature) * regions.astype(np.float32)) @ classes.rows.T
    if classes.offset is not None:
        similarity += classes.offset
    logits = np.full((len(regions), len(classes.names) + 1), -np.inf, np.float32)
    # The first row of each name, which is the only one of most. NumPy's reduceat takes several times as long.
    order = np.argsort(classes.owner, kind="stable")
    owner = classes.owner[order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    logits[:, _slice(owner[starts])] = similarity[:, _slice(order[starts])]
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        logits[:, owner[start]] = similarity[:, order[start:end]].max(1)
    return logits


def _slice(index: np.ndarray) -> slice | np.ndarray:
    """An ascending index as a slice if it has no gaps, which saves a copy of what is selected."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def no_object_logits(regions: np.ndarray, no_object: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Logits (N,) float32 of the learned "no object" vector (C,)."""
    vector = no_object.astype(np.float32)
    vector = vector / max(float(np.sqrt(np.square(vector).sum())), 1e-12)
    return np.float32(temperature) * (regions.astype(np.float32) @ vector)


def probabilities(logits: np.ndarray, bias: float | None = None) -> np.ndarray:
    """Scores of the names and "none of these" (N, K + 1) in float32: their softmax, or sigmoid(logit + bias)."""
    if bias is not None:
        return np.exp(-np.logaddexp(np.float32(0), -(logits + np.float32(bias))))  # exact for small scores, too
    exponentials = logits - logits.max(-1, keepdims=True)
    np.exp(exponentials, out=exponentials)
    exponentials /= exponentials.sum(-1, keepdims=True)
    return exponentials

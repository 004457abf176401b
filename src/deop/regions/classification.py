"""Classification of regions: cosine similarities to class names, the best synonym of each, and "none of these"."""

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.settings import TEMPERATURE
from deop.text.embedding import Classes


def classify(
    regions: Tensor, classes: Classes, no_object: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Logits of each region for each name (docs/method.md §6).

    Args:
        regions: (..., N, C) float, L2-normalised.
        classes: embeddings of K names, their synonyms and the background.
        no_object: (C,) float, the learned "no object" vector, or None; need not be normalised.
        temperature: factor of the cosine similarities.

    Returns:
        (..., N, K + 1) float32 logits. A name has the logit of its best synonym. The last column is "none of these":
        the best of the background names and the "no object" vector, or -inf without either. If a name means everything
        else, the "no object" vector counts for that name instead.
    """
    logits = class_logits(regions, classes, temperature)
    if no_object is not None:
        column = logits.shape[-1] - 1 if classes.everything_else is None else classes.everything_else
        none = torch.maximum(logits[..., column], no_object_logits(regions, no_object, temperature))
        logits = torch.cat([logits[..., :column], none[..., None], logits[..., column + 1 :]], -1)
    return logits


def class_logits(regions: Tensor, classes: Classes, temperature: float = TEMPERATURE) -> Tensor:
    """As ``classify`` without a "no object" vector: the last column is the background, or -inf without one."""
    # In float32, since bfloat16 has steps of 1/8 at a logit of 25: similar names would tie.
    rows = classes.rows.to(regions.device, torch.float32)
    similarity = temperature * (regions.float() @ rows.T)
    if classes.offset is not None:
        similarity = similarity + classes.offset.to(similarity)
    owner = classes.owner.to(regions.device).expand_as(similarity)
    logits = similarity.new_full((*similarity.shape[:-1], len(classes.names) + 1), float("-inf"))
    return logits.scatter_reduce(-1, owner, similarity, "amax")


def no_object_logits(regions: Tensor, no_object: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Logits (..., N) float32 of the learned "no object" vector (C,)."""
    return temperature * (regions.float() @ F.normalize(no_object.to(regions.device, torch.float32), dim=-1))


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the names and "none of these" (..., N, K + 1), in float32."""
    return logits.float().softmax(-1)

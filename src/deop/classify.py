"""Regions against classes: cosine similarities, the best synonym of each name, and "none of these"."""

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.vocabulary import Classes

TEMPERATURE = 100.0
"""What similarities are multiplied by; the original's constant (CLIP's learned scale is not used)."""


def classify(
    regions: Tensor, classes: Classes, no_object: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Score every region against every name (METHOD section 6).

    Args:
        regions: (..., N, C) float, L2-normalised.
        classes: embeddings of K names, their synonyms and the background names.
        no_object: (C,) float, the learned "no object" vector of the model where it has one; normalised here.
        temperature: what cosine similarities are multiplied by.

    Returns:
        (..., N, K + 1) float32 logits, whatever the precision of the regions. A name scores as its best synonym does.
        The last column is "none of these": the best of the background names and the no-object vector, -inf where there
        is neither.
    """
    # bfloat16 knows eighths at a logit of 25: names would tie, and their order would decide.
    regions = regions.float()
    rows = classes.rows.to(regions)
    owner = classes.owner.to(regions.device)
    if no_object is not None:
        rows = torch.cat([rows, F.normalize(no_object.to(regions).reshape(1, -1), dim=-1)])
        owner = torch.cat([owner, owner.new_tensor([len(classes.names)])])
    similarity = temperature * (regions @ rows.T)
    if classes.offset is not None:
        similarity[..., : len(classes.offset)] += classes.offset.to(similarity)
    logits = similarity.new_full((*similarity.shape[:-1], len(classes.names) + 1), float("-inf"))
    return logits.scatter_reduce(-1, owner.expand_as(similarity), similarity, "amax")


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the names and "none of these" (..., N, K + 1), in float32."""
    return logits.float().softmax(-1)

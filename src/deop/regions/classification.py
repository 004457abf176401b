"""Classification of regions: cosine similarities to class names, the best synonym of each, and "none of these"."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop.settings import TEMPERATURE
from deop.text.embedded_classes import Classes


@dataclass(frozen=True)
class ClassTensors:
    """``deop.text.embedded_classes.Classes`` as tensors on one device, possibly with gradients.

    Attributes:
        rows: (M, C) float32 of unit length.
        owner: (M,) int64 in [0, K].
        names: the K display names.
        offset: (M,) float32, or None.
        everything_else: index of a name, or None.
    """

    rows: Tensor
    owner: Tensor
    names: tuple[str, ...]
    offset: Tensor | None = None
    everything_else: int | None = None

    @classmethod
    def of(cls, classes: "Classes | ClassTensors", device: torch.device | str) -> "ClassTensors":
        """Classes on a device; arrays are not copied if it is the CPU. Gradients can pass through the result."""
        rows, owner, offset = (
            None if value is None else _on_device(value, device)
            for value in (classes.rows, classes.owner, classes.offset)
        )
        assert rows is not None
        assert owner is not None
        return cls(rows, owner, classes.names, offset, classes.everything_else)


def _on_device(value: Tensor | np.ndarray, device: torch.device | str) -> Tensor:
    with torch.inference_mode(False):  # inference tensors could not be used in training
        return (torch.from_numpy(value) if isinstance(value, np.ndarray) else value).to(device)


def classify(
    regions: Tensor,
    classes: Classes | ClassTensors,
    no_object: Tensor | None = None,
    temperature: float = TEMPERATURE,
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


def class_logits(regions: Tensor, classes: Classes | ClassTensors, temperature: float = TEMPERATURE) -> Tensor:
    """As ``classify`` without a "no object" vector: the last column is the background, or -inf without one."""
    tensors = ClassTensors.of(classes, regions.device)
    # In float32, since bfloat16 has steps of 1/8 at a logit of 25: similar names would tie.
    similarity = temperature * (regions.float() @ tensors.rows.float().T)
    if tensors.offset is not None:
        similarity = similarity + tensors.offset.float()
    owner = tensors.owner.expand_as(similarity)
    logits = similarity.new_full((*similarity.shape[:-1], len(classes.names) + 1), float("-inf"))
    return logits.scatter_reduce(-1, owner, similarity, "amax")


def no_object_logits(regions: Tensor, no_object: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Logits (..., N) float32 of the learned "no object" vector (C,)."""
    return temperature * (regions.float() @ F.normalize(no_object.to(regions.device, torch.float32), dim=-1))


def probabilities(logits: Tensor, bias: float | None = None) -> Tensor:
    """Scores of the names and "none of these" (..., N, K + 1) in float32: their softmax, or sigmoid(logit + bias)."""
    return logits.float().softmax(-1) if bias is None else (logits.float() + bias).sigmoid()


def cell_votes(cells: Tensor, heatmaps: Tensor) -> Tensor:
    """Shares of the names among the cells of each mask: each cell votes for its best name (``anchors="patch"``).

    Args:
        cells: (L, K + 1) float, logits or probabilities of each cell.
        heatmaps: (N, L) float, how much of each cell a mask covers.

    Returns:
        (N, K + 1) float32, rows with the sum 1; 0 for masks that cover nothing.
    """
    votes = F.one_hot(cells.argmax(-1), cells.shape[-1]).float()
    weights = heatmaps.float()
    return weights @ votes / weights.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)

"""The masks of proposals as arrays for labelling; on a GPU, label maps are computed there."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.labelling.assembly import limits_of
from deop.labelling.masks import PhotoMasks, SemanticRule
from deop.proposals.types import Proposals
from deop.regions.windows import mask_blocks

MANY_NAMES = 256
"""Number of names above which windows on the CPU, which exclude names early, are used instead of the GPU."""
GPU_BLOCK = 1 << 26
"""Numbers in memory at once on a GPU (256 MiB in float32), where small steps would not use the device."""


def photo_masks(proposals: Proposals) -> PhotoMasks:
    """The masks of proposals as arrays: those on the CPU share memory, those on a device are copied when needed."""
    if proposals.logits.device.type == "cpu":
        return PhotoMasks(_logits(proposals), _exact(proposals))
    return _DeviceMasks(proposals)


class _DeviceMasks(PhotoMasks):
    """Masks on a device; the first use of their arrays waits for it and copies them."""

    def __init__(self, proposals: Proposals) -> None:
        self.proposals = proposals

    def __len__(self) -> int:
        return len(self.proposals)

    @cached_property
    def logits(self) -> np.ndarray:
        return _logits(self.proposals)

    @cached_property
    def exact(self) -> np.ndarray | None:
        return _exact(self.proposals)

    def semantic_at_once(
        self, votes: np.ndarray, canvas: Canvas, rule: SemanticRule
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if self.proposals.exact is not None or votes.shape[1] > MANY_NAMES:
            return None
        device = self.proposals.logits.device
        labels, confidence = label_without_waiting(
            torch.from_numpy(np.ascontiguousarray(votes)).to(device, non_blocking=True),
            self.proposals,
            canvas,
            names=len(rule.limits) - 1,
            threshold=rule.limits[:-1],
            claim=rule.claim,
            everything_else=rule.everything_else,
        )
        return labels.cpu().numpy(), confidence.cpu().numpy()


def _logits(proposals: Proposals) -> np.ndarray:
    return proposals.logits.detach().cpu().float().numpy()


def _exact(proposals: Proposals) -> np.ndarray | None:
    return None if proposals.exact is None else proposals.exact.numpy()


def label_without_waiting(
    votes: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    *,
    names: int,
    threshold: float | np.ndarray = 0.0,
    claim: float = 0.0,
    everything_else: int = -1,
) -> tuple[Tensor, Tensor]:
    """Compute the map of ``labelling.assembly.semantic`` in a few large steps, and leave it on the device.

    ``semantic`` saves work by looking at the values in each window, and each look waits for the device. On a GPU, doing
    all of the work takes less time than the waits.

    Args:
        votes: (N, K) float32, or (N, K + 1) if "none of these" takes part.
        proposals: N masks, at least one.
        canvas: position of the photo in the masks.
        names: K, at least 1.
        threshold: as in ``semantic``.
        claim: as in ``semantic``.
        everything_else: as in ``semantic``.

    Returns:
        Labels (H, W) int32, -1 for none, before small regions are absorbed; and confidences (H, W) float32 in [0, 1].
    """
    labels = torch.empty(canvas.photo, dtype=torch.int32, device=votes.device)
    confidence = torch.empty(canvas.photo, device=votes.device)
    limits = torch.from_numpy(limits_of(threshold, names)).to(votes.device, non_blocking=True)  # without a wait
    for first, last, masks in mask_blocks(proposals, canvas, votes.shape[1] + 3, limit=GPU_BLOCK):
        coverage = masks.sum(0)
        best, winner = (values.view_as(coverage) for values in (votes.T @ masks.flatten(1)).max(0))
        score = best / coverage.clamp_min(1.0)
        unsure = (coverage <= claim) | (score < limits[winner])
        labels[first:last] = winner.int().masked_fill_(winner == names, -1).masked_fill_(unsure, everything_else)
        confidence[first:last] = score.clamp_(0, 1)
    return labels, confidence

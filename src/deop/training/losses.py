"""The losses of the three training stages, as pure functions (METHOD section 7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.training.matching import DEOP_COSTS, MatchingCosts, match

IGNORE = 255
"""Label of pixels that belong to no class."""


def prompt_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Stage 1: plain cross-entropy over the seen names, no "no object" among them.

    Args:
        class_logits: (B, K) float.
        labels: (B,) int64 in [0, K).

    Returns:
        A number: the mean over the batch.
    """
    return F.cross_entropy(class_logits.float(), labels)


@dataclass(frozen=True)
class Targets:
    """What one image shows.

    Attributes:
        labels: (T,) int64, class of each mask.
        masks: (T, H, W) bool or 0/1.
    """

    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class ProposalWeights:
    """How much each part of the stage-2 loss counts, and "no object" within the label part."""

    label: float = 1.0
    focal: float = 20.0
    dice: float = 1.0
    no_object: float = 0.1


@dataclass(frozen=True)
class ProposalLosses:
    """The parts of the stage-2 loss for one decoder layer, each a number, not yet weighted."""

    label: Tensor
    focal: Tensor
    dice: Tensor

    def total(self, weights: ProposalWeights) -> Tensor:
        """The weighted sum."""
        return weights.label * self.label + weights.focal * self.focal + weights.dice * self.dice


def targets_of(labels: Tensor, ignore: int = IGNORE) -> Targets:
    """One binary mask for each class that a label map shows (METHOD section 1).

    Args:
        labels: (H, W) integers.
        ignore: label of pixels without a class.
    """
    present = labels.unique()
    present = present[present != ignore]
    return Targets(present.long(), labels == present[:, None, None])


def target_count(targets: Sequence[Targets]) -> float:
    """Masks in the batch, averaged over the processes that train together, at least 1: what mask losses divide by."""
    count = torch.tensor(float(sum(len(target.labels) for target in targets)))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = count.to(targets[0].masks.device)
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return max(1.0, float(count))


def focal_mask_loss(mask_logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each mask, averaged over its pixels.

    Args:
        mask_logits: (M, H, W) float.
        masks: (M, H, W) float, 0 or 1.
        alpha: weight of pixels inside the mask; those outside have 1 - alpha.
        gamma: exponent that quiets pixels already right.

    Returns:
        (M,).
    """
    probability = mask_logits.sigmoid()
    right = probability * masks + (1 - probability) * (1 - masks)
    weight = alpha * masks + (1 - alpha) * (1 - masks)
    entropy = F.binary_cross_entropy_with_logits(mask_logits, masks, reduction="none")
    return (weight * (1 - right) ** gamma * entropy).flatten(1).mean(1)


def dice_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 overlap + 1) / (sum + sum + 1), over all but the first dimension.

    Args:
        probability: (M, ...) float in [0, 1].
        truth: (M, ...) float or bool, 0 or 1.

    Returns:
        (M,).
    """
    overlap = (probability * truth).flatten(1).sum(1)
    return 1 - (2 * overlap + 1) / (probability.flatten(1).sum(1) + truth.flatten(1).sum(1) + 1)


def proposal_losses(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Sequence[Targets],
    *,
    weights: ProposalWeights = ProposalWeights(),
    costs: MatchingCosts = DEOP_COSTS,
    count: float | None = None,
) -> ProposalLosses:
    """Stage 2, one decoder layer: match queries to targets, then label, focal and dice loss.

    Call it again for every auxiliary layer: each has its own matching.

    Args:
        class_logits: (B, N, K + 1) float, no object last.
        mask_logits: (B, N, h, w) float; upsampled bilinearly to the size of the targets.
        targets: of each image.
        weights: only ``no_object`` is used here.
        costs: of the matching.
        count: what mask losses are divided by; ``target_count(targets)`` if None.
    """
    count = target_count(targets) if count is None else count
    class_logits, mask_logits = class_logits.float(), mask_logits.float()
    classes = class_logits.shape[-1] - 1
    wanted = torch.full(class_logits.shape[:2], classes, device=class_logits.device)
    focal = dice = mask_logits.sum() * 0  # a batch without targets still has a gradient: zero
    for image, target in enumerate(targets):
        queries, chosen = match(mask_logits[image], target.masks, costs, class_logits[image], target.labels)
        wanted[image, queries] = target.labels[chosen]
        if len(queries):
            truth = target.masks[chosen].to(mask_logits)
            logits = _resized(mask_logits[image, queries], truth.shape[-2:])
            focal = focal + focal_mask_loss(logits, truth).sum()
            dice = dice + dice_loss(logits.sigmoid(), truth).sum()
    importance = torch.ones(classes + 1, device=class_logits.device)
    importance[-1] = weights.no_object
    label = F.cross_entropy(class_logits.flatten(0, 1), wanted.flatten(), importance)
    return ProposalLosses(label, focal / count, dice / count)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(N, h, w) -> (N, H, W), bilinear."""
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True)
class AnchorWeights:
    """How much each part of the stage-3 loss counts; the defaults are the training script's."""

    focal: float = 2.0
    dice: float = 0.8


@dataclass(frozen=True)
class AnchorLosses:
    """The parts of the stage-3 loss, each a number, not yet weighted."""

    focal: Tensor
    dice: Tensor

    def total(self, weights: AnchorWeights) -> Tensor:
        """The weighted sum."""
        return weights.focal * self.focal + weights.dice * self.dice


def activated_map(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int], sharpness: float = 3.0) -> Tensor:
    """Stage 3: what every pixel says of every class, O = sigmoid(tau S - tau), S the sum over proposals.

    Args:
        class_logits: (B, N, K + 1) float, no object last; its column is kept.
        mask_logits: (B, N, h, w) float.
        size: (H, W) of the labels.
        sharpness: tau.

    Returns:
        (B, K + 1, H, W) float32 in (0, 1).
    """
    masks = F.interpolate(mask_logits.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
    scores = torch.einsum("bnk,bnhw->bkhw", class_logits.float().softmax(-1), masks)
    return torch.sigmoid(sharpness * scores - sharpness)


def focal_map_loss(activated: Tensor, labels: Tensor, ignore: int = IGNORE) -> Tensor:
    """Stage 3: focal loss over all channels and pixels; ignored pixels count, as "no object".

    Args:
        activated: (B, K + 1, H, W) float in (0, 1).
        labels: (B, H, W) integers in [0, K) or ``ignore``.
        ignore: label of pixels without a class.

    Returns:
        A number: the mean.
    """
    truth = _one_hot(labels, activated.shape[1], ignore)
    right = torch.where(truth, activated, 1 - activated)
    weight = torch.where(truth, 0.25, 0.75)
    return -(weight * (1 - right) ** 2 * right.clamp(1e-4, 1 - 1e-4).log()).mean()


def map_dice_loss(activated: Tensor, labels: Tensor, ignore: int = IGNORE) -> Tensor:
    """Stage 3: dice over channels and pixels together, without "no object"; mean over images.

    Args:
        activated: (B, K + 1, H, W) float in (0, 1). What it says of ignored pixels still counts.
        labels: (B, H, W) integers in [0, K) or ``ignore``.
        ignore: label of pixels without a class.

    Returns:
        A number: the mean over images.
    """
    truth = _one_hot(labels, activated.shape[1], ignore)
    return dice_loss(activated[:, :-1], truth[:, :-1]).mean()


def anchor_losses(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, *, sharpness: float = 3.0, ignore: int = IGNORE
) -> AnchorLosses:
    """Stage 3: no matching; the assembled map against the labels.

    Args:
        class_logits: (B, N, K + 1) float, no object last.
        mask_logits: (B, N, h, w) float.
        labels: (B, H, W) integers in [0, K) or ``ignore``.
        sharpness: tau of ``activated_map``.
        ignore: label of pixels without a class.
    """
    activated = activated_map(class_logits, mask_logits, (labels.shape[-2], labels.shape[-1]), sharpness)
    return AnchorLosses(focal_map_loss(activated, labels, ignore), map_dice_loss(activated, labels, ignore))


def _one_hot(labels: Tensor, channels: int, ignore: int) -> Tensor:
    """(B, H, W) -> (B, channels, H, W) bool; ignored pixels are put into the last channel."""
    place = torch.where(labels == ignore, channels - 1, labels.long())
    truth = torch.zeros(len(labels), channels, *labels.shape[1:], dtype=torch.bool, device=labels.device)
    return truth.scatter_(1, place[:, None], True)

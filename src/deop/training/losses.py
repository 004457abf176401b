"""Losses of the three training stages, as pure functions (docs/method.md §7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.networks.resampling import resize_bilinear
from deop.training.matching import DEOP_COSTS, MatchingCosts, match

IGNORE = 255
"""Label of pixels without a class."""


def prompt_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Stage 1: cross-entropy over the seen names, without "no object".

    Args:
        class_logits: (B, K) float.
        labels: (B,) int64 in [0, K).

    Returns:
        Scalar: the mean over the batch.
    """
    return F.cross_entropy(class_logits.float(), labels)


@dataclass(frozen=True)
class Targets:
    """The target masks of one image.

    Attributes:
        labels: (T,) int64, the class of each mask.
        masks: (T, H, W) bool or 0/1.
    """

    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class ProposalWeights:
    """Weights of the parts of the stage-2 loss; ``no_object`` is the weight of that class in the label loss.

    Raises:
        SettingError: a negative weight.
    """

    label: float = 1.0
    focal: float = 20.0
    dice: float = 1.0
    no_object: float = 0.1

    def __post_init__(self) -> None:
        if not all(weight >= 0 for weight in (self.label, self.focal, self.dice, self.no_object)):
            raise SettingError(f"the loss weights are {self}: expected weights of 0 or more")


@dataclass(frozen=True)
class ProposalLosses:
    """The parts of the stage-2 loss for one decoder layer: scalars, not weighted."""

    label: Tensor
    focal: Tensor
    dice: Tensor

    def total(self, weights: ProposalWeights) -> Tensor:
        """The weighted sum."""
        return weights.label * self.label + weights.focal * self.focal + weights.dice * self.dice


def target_count(targets: Sequence[Targets]) -> float:
    """The divisor of mask losses: target masks in the batch, averaged over all processes; at least 1."""
    count = torch.tensor(float(sum(len(target.labels) for target in targets)))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = count.to(targets[0].masks.device)
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return max(1.0, float(count))


def focal_mask_loss(mask_logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each mask, averaged over the pixels.

    Args:
        mask_logits: (M, H, W) float.
        masks: (M, H, W) float, 0 or 1.
        alpha: weight of pixels inside the mask; pixels outside have weight 1 - alpha.
        gamma: exponent that reduces the weight of pixels that are already correct.

    Returns:
        (M,) float.
    """
    probability = mask_logits.sigmoid()
    correct = probability * masks + (1 - probability) * (1 - masks)
    weight = alpha * masks + (1 - alpha) * (1 - masks)
    entropy = F.binary_cross_entropy_with_logits(mask_logits, masks, reduction="none")
    return (weight * (1 - correct) ** gamma * entropy).flatten(1).mean(1)


def dice_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Dice loss, 1 - (2 overlap + 1) / (sum + sum + 1), over all dimensions but the first.

    Args:
        probability: (M, ...) float in [0, 1].
        truth: (M, ...) float or bool, 0 or 1.

    Returns:
        (M,) float.

    >>> dice_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.2500])
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
    """Stage 2, one decoder layer: match queries to targets, then compute label, focal and dice loss.

    Call it once for each auxiliary layer too: every layer has its own matching.

    Args:
        class_logits: (B, N, K + 1) float, "no object" last.
        mask_logits: (B, N, h, w) float; resized bilinearly to the size of the targets.
        targets: target masks of each image.
        weights: loss weights; only ``no_object`` is used here.
        costs: weights of the matching costs.
        count: divisor of the mask losses; None: ``target_count(targets)``.
    """
    count = target_count(targets) if count is None else count
    class_logits, mask_logits = class_logits.float(), mask_logits.float()
    classes = class_logits.shape[-1] - 1
    expected = torch.full(class_logits.shape[:2], classes, device=class_logits.device)
    focal = dice = mask_logits.sum() * 0  # so that a batch without targets has a gradient of zero
    for image, target in enumerate(targets):
        queries, chosen = match(mask_logits[image], target.masks, costs, class_logits[image], target.labels)
        expected[image, queries] = target.labels[chosen]
        if len(queries):
            truth = target.masks[chosen].to(mask_logits)
            logits = resize_bilinear(mask_logits[image, queries][None], truth.shape[-2:])[0]
            focal = focal + focal_mask_loss(logits, truth).sum()
            dice = dice + dice_loss(logits.sigmoid(), truth).sum()
    importance = torch.ones(classes + 1, device=class_logits.device)
    importance[-1] = weights.no_object
    label = F.cross_entropy(class_logits.flatten(0, 1), expected.flatten(), importance)
    return ProposalLosses(label, focal / count, dice / count)


@dataclass(frozen=True)
class AnchorWeights:
    """Weights of the parts of the stage-3 loss. The defaults are those of the original's training script.

    Raises:
        SettingError: a negative weight.
    """

    focal: float = 2.0
    dice: float = 0.8

    def __post_init__(self) -> None:
        if not all(weight >= 0 for weight in (self.focal, self.dice)):
            raise SettingError(f"the loss weights are {self}: expected weights of 0 or more")


@dataclass(frozen=True)
class AnchorLosses:
    """The parts of the stage-3 loss: scalars, not weighted."""

    focal: Tensor
    dice: Tensor

    def total(self, weights: AnchorWeights) -> Tensor:
        """The weighted sum."""
        return weights.focal * self.focal + weights.dice * self.dice


def activated_map(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int], sharpness: float = 3.0) -> Tensor:
    """Stage 3: the score of every class at every pixel, O = sigmoid(tau S - tau), where S sums over the proposals.

    Args:
        class_logits: (B, N, K + 1) float, "no object" last; it has a score too.
        mask_logits: (B, N, h, w) float.
        size: (H, W) of the labels.
        sharpness: tau.

    Returns:
        (B, K + 1, H, W) float32 in (0, 1).
    """
    masks = resize_bilinear(mask_logits.float(), size).sigmoid()
    scores = torch.einsum("bnk,bnhw->bkhw", class_logits.float().softmax(-1), masks)
    return torch.sigmoid(sharpness * scores - sharpness)


def focal_map_loss(activated: Tensor, labels: Tensor, ignore: int = IGNORE) -> Tensor:
    """Stage 3: focal loss over all channels and pixels. Ignored pixels count as "no object".

    Args:
        activated: (B, K + 1, H, W) float in (0, 1).
        labels: (B, H, W) integers in [0, K) or ``ignore``.
        ignore: label of pixels without a class.

    Returns:
        Scalar: the mean.
    """
    truth = _one_hot(labels, activated.shape[1], ignore)
    correct = torch.where(truth, activated, 1 - activated)
    weight = torch.where(truth, 0.25, 0.75)
    return -(weight * (1 - correct) ** 2 * correct.clamp(1e-4, 1 - 1e-4).log()).mean()


def map_dice_loss(activated: Tensor, labels: Tensor, ignore: int = IGNORE) -> Tensor:
    """Stage 3: dice loss over all channels but "no object" and all pixels together.

    Args:
        activated: (B, K + 1, H, W) float in (0, 1). Scores at ignored pixels count as wrong.
        labels: (B, H, W) integers in [0, K) or ``ignore``.
        ignore: label of pixels without a class.

    Returns:
        Scalar: the mean over the images.
    """
    truth = _one_hot(labels, activated.shape[1], ignore)
    return dice_loss(activated[:, :-1], truth[:, :-1]).mean()


def anchor_losses(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, *, sharpness: float = 3.0, ignore: int = IGNORE
) -> AnchorLosses:
    """Stage 3: losses of the assembled map against the labels, without matching.

    Args:
        class_logits: (B, N, K + 1) float, "no object" last.
        mask_logits: (B, N, h, w) float.
        labels: (B, H, W) integers in [0, K) or ``ignore``.
        sharpness: tau of ``activated_map``.
        ignore: label of pixels without a class.
    """
    activated = activated_map(class_logits, mask_logits, (labels.shape[-2], labels.shape[-1]), sharpness)
    return AnchorLosses(focal_map_loss(activated, labels, ignore), map_dice_loss(activated, labels, ignore))


def _one_hot(labels: Tensor, channels: int, ignore: int) -> Tensor:
    """(B, H, W) -> (B, channels, H, W) bool. Ignored pixels get the last channel."""
    channel = torch.where(labels == ignore, channels - 1, labels.long())
    truth = torch.zeros(len(labels), channels, *labels.shape[1:], dtype=torch.bool, device=labels.device)
    return truth.scatter_(1, channel[:, None], True)

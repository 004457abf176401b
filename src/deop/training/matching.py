"""Hungarian matching of queries to target masks, for stage 2 (docs/method.md §7)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deop.errors import SettingError


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of the costs by which queries are matched to targets. The defaults are DeOP's: masks only.

    Attributes:
        focal: weight of the focal loss.
        dice: weight of the dice loss.
        label: weight of the classification cost; SimBaseline has 1.

    Raises:
        SettingError: a negative weight.
    """

    focal: float = 20.0
    dice: float = 1.0
    label: float = 0.0

    def __post_init__(self) -> None:
        if not all(weight >= 0 for weight in (self.focal, self.dice, self.label)):
            raise SettingError(f"the matching costs are {self}: expected weights of 0 or more")


DEOP_COSTS = MatchingCosts()
"""The costs of DeOP's stage 2: masks only."""


def focal_costs(mask_logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of every query against every target, averaged over the pixels.

    Args:
        mask_logits: (N, L) float, flattened masks.
        masks: (T, L) float, 0 or 1.
        alpha: weight of pixels inside the target; pixels outside have weight 1 - alpha.
        gamma: exponent that reduces the weight of pixels that are already correct.

    Returns:
        (N, T) float.
    """
    probability = mask_logits.sigmoid()
    inside = alpha * (1 - probability) ** gamma * F.softplus(-mask_logits)
    outside = (1 - alpha) * probability**gamma * F.softplus(mask_logits)
    return (inside @ masks.T + outside @ (1 - masks).T) / mask_logits.shape[1]


def dice_costs(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss, 1 - (2 overlap + 1) / (sum + sum + 1), of every query against every target.

    Args:
        mask_logits: (N, L) float, flattened masks.
        masks: (T, L) float, 0 or 1.

    Returns:
        (N, T) float.
    """
    probability = mask_logits.sigmoid()
    sums = probability.sum(1)[:, None] + masks.sum(1)
    return 1 - (2 * probability @ masks.T + 1) / (sums + 1)


def label_costs(class_logits: Tensor, labels: Tensor) -> Tensor:
    """The negative probability of each target's class for every query.

    Args:
        class_logits: (N, K + 1) float, "no object" last.
        labels: (T,) int64 in [0, K).

    Returns:
        (N, T) float.
    """
    return -class_logits.softmax(1)[:, labels]


@torch.no_grad()
def match(
    mask_logits: Tensor,
    masks: Tensor,
    costs: MatchingCosts = DEOP_COSTS,
    class_logits: Tensor | None = None,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The one-to-one assignment of queries to the targets of one image with the lowest total cost.

    Args:
        mask_logits: (N, h, w) float.
        masks: (T, H, W) bool or 0/1; resized to (h, w) with nearest-neighbour sampling. With T > N, some targets get
            no query.
        costs: weights of the costs. If ``costs.label`` is not 0, ``class_logits`` and ``labels`` are required.
        class_logits: (N, K + 1) float, "no object" last.
        labels: (T,) int64 in [0, K).

    Returns:
        (M,) int64 queries in ascending order and (M,) int64 targets, M = min(N, T), on the device of ``mask_logits``.

    Raises:
        ValueError: a label cost without ``class_logits`` and ``labels``.
    """
    logits = mask_logits.float().flatten(1)
    small = F.interpolate(masks[:, None].to(logits), size=mask_logits.shape[-2:], mode="nearest").flatten(1)
    total = costs.focal * focal_costs(logits, small) + costs.dice * dice_costs(logits, small)
    if costs.label:
        if class_logits is None or labels is None:
            raise ValueError("a label cost needs class_logits and labels")
        total = total + costs.label * label_costs(class_logits.float(), labels)
    queries, targets = linear_sum_assignment(total.cpu().numpy())
    device = mask_logits.device
    return torch.as_tensor(queries, device=device), torch.as_tensor(targets, device=device)

"""Which query answers for which target mask: Hungarian matching of stage 2 (METHOD section 7)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class MatchingCosts:
    """How much each part counts when queries are matched to targets."""

    focal: float = 20.0
    dice: float = 1.0
    label: float = 0.0


DEOP_COSTS = MatchingCosts()
"""What DeOP's stage 2 matches by: masks alone."""

SIMBASELINE_COSTS = MatchingCosts(label=1.0)
"""What SimBaseline matches by: the class as well."""


def focal_costs(mask_logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of every query against every target, averaged over the cells.

    Args:
        mask_logits: (N, L) float, cells in a row.
        masks: (T, L) float, 0 or 1.
        alpha: weight of cells inside the target; those outside have 1 - alpha.
        gamma: exponent that quiets cells already right.

    Returns:
        (N, T).
    """
    probability = mask_logits.sigmoid()
    inside = alpha * (1 - probability) ** gamma * F.softplus(-mask_logits)
    outside = (1 - alpha) * probability**gamma * F.softplus(mask_logits)
    return (inside @ masks.T + outside @ (1 - masks).T) / mask_logits.shape[1]


def dice_costs(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 overlap + 1) / (sum + sum + 1) of every query with every target.

    Args:
        mask_logits: (N, L) float, cells in a row.
        masks: (T, L) float, 0 or 1.

    Returns:
        (N, T).
    """
    probability = mask_logits.sigmoid()
    sums = probability.sum(1)[:, None] + masks.sum(1)
    return 1 - (2 * probability @ masks.T + 1) / (sums + 1)


def label_costs(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the probability that a query gives to the class of a target.

    Args:
        class_logits: (N, K + 1) float, no object last.
        labels: (T,) int64 in [0, K).

    Returns:
        (N, T).
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
    """The cheapest one-to-one assignment of queries to the targets of one image.

    Args:
        mask_logits: (N, h, w) float.
        masks: (T, H, W) bool or 0/1, T <= N for every target to be matched; shrunk to (h, w) by the nearest pixel.
        costs: the weights; where ``costs.label`` is not 0, ``class_logits`` and ``labels`` are needed.
        class_logits: (N, K + 1) float, no object last.
        labels: (T,) int64 in [0, K).

    Returns:
        (M,) int64 queries, ascending, and (M,) int64 targets, M = min(N, T), on the device of ``mask_logits``.
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

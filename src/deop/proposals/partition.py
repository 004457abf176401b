"""A partition of the photo from overlapping masks, by score (docs/method.md §6)."""

from dataclasses import replace

import torch
from torch import Tensor

from deop.proposals.types import Proposals


def partition_by_score(proposals: Proposals, *, drop_empty: bool = True) -> Proposals:
    """Give each cell to one of the masks that cover it, as ``partition_logits`` does.

    Args:
        proposals: of one image, from a proposer; N may be 0. Given masks are partitioned by their pixels instead
            (``images.masks.partition_masks``).
        drop_empty: drop masks that keep no cell.

    Returns:
        Proposals whose masks (probability above 0.5) do not overlap, in the same order.
    """
    masks = partition_logits(proposals.logits, proposals.scores)
    result = replace(proposals, logits=masks)
    return result.keep((masks > 0).flatten(1).any(1)) if drop_empty else result


def partition_logits(logits: Tensor, scores: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
    """Masks that do not overlap, from masks that may.

    Of the masks M_n that cover a cell (probability above 0.5), those are set aside that contain another one of them:
    mask a is inside b if b covers more than half of a, and a has at most half the area of b. So small objects survive
    inside large masks, whatever their scores. Of the others, the one with the largest score_n * M_n gets the cell;
    where this is equal, the one with the smallest area, and then the first.

    The owner of a cell gets the largest logit u of all masks there, and the others at most -u, so that the border
    between two masks is at the same place for both, and the outer borders stay as they were. Cells that no mask covers
    do not change. Traceable: no shape depends on values.

    Args:
        logits: (N, h, w) float.
        scores: (N,) float, or None if they are all equal.
        valid: (N,) bool, the masks that take part; None: all.

    Returns:
        (N, h, w).
    """
    if not logits.shape[0]:
        return logits
    masks = logits > 0
    if valid is not None:
        masks = masks & valid[:, None, None]
    cells = masks.flatten(1).float()
    area, shared = cells.sum(1), cells @ cells.mT
    inside = (2 * shared > area) & (2 * area <= area[:, None])  # [b, a]: a is inside b
    contains = (inside.float() @ cells > 0).view_as(masks)
    candidates = masks & ~contains
    values = logits.float().sigmoid()
    if scores is not None:
        values = values * scores.float()[:, None, None]
    tied = candidates & (values == torch.where(candidates, values, -1.0).amax(0))
    areas = torch.where(tied, area[:, None, None], float("inf"))
    owner = (tied & (areas == areas.amin(0))).float().argmax(0)  # the first of several
    strength = torch.where(masks, logits, float("-inf")).amax(0)
    owned = torch.arange(logits.shape[0], device=logits.device)[:, None, None] == owner
    divided = torch.where(owned, strength, torch.minimum(logits, -strength))
    return torch.where(masks.any(0), divided, logits)

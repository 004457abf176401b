"""Filters for proposals: empty and duplicate masks, overlaps between masks, and small regions within a mask."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deop.images.connected_regions import connected_regions
from deop.proposals.given import LOGIT_LIMIT
from deop.proposals.types import Proposals


def drop_redundant(proposals: Proposals, *, empty: float | None = 0.5, duplicate_iou: float | None = 0.95) -> Proposals:
    """Drop proposals that are empty or duplicate another one.

    A proposal is empty if no cell has a probability above ``empty``. Two proposals are duplicates if the IoU of their
    binary masks (probability above 0.5) is above ``duplicate_iou``. Masks are visited from the largest to the smallest
    and kept unless they duplicate a mask that was kept before. Masks of equal area are visited in an order that
    depends on their cells, so the order of the proposals has no effect, except that of identical masks the first
    is kept. If the proposals have ``exact`` masks, these are compared instead, and empty means without a pixel.

    Args:
        proposals: of one image; N may be 0.
        empty: probability in (0, 1); None: keep empty proposals.
        duplicate_iou: in [0, 1); None: keep duplicates.

    Returns:
        The remaining proposals, in their original order.
    """
    if len(proposals) and empty is not None:
        threshold = math.log(empty / (1 - empty))
        covered = proposals.logits > threshold if proposals.exact is None else proposals.exact
        proposals = proposals.keep(covered.flatten(1).any(1).to(proposals.logits.device))
    if len(proposals) > 1 and duplicate_iou is not None:
        kept = _first_of_duplicates(proposals, duplicate_iou)
        proposals = proposals.keep(torch.as_tensor(kept, device=proposals.logits.device))
    return proposals


def _first_of_duplicates(proposals: Proposals, limit: float) -> list[int]:
    """Indices of the proposals that do not duplicate a larger one, ascending."""
    if proposals.exact is None:
        masks = proposals.logits > 0
        cells = masks.flatten(1).float()  # sums of 0/1 are exact in float32 up to 2^24 cells
        shared = (cells @ cells.T).cpu().double()
    else:
        masks = proposals.exact
        shared = _shared_pixels(proposals, limit)
    area = shared.diagonal()
    overlapping = (shared > limit * (area[:, None] + area - shared).clamp_min(1)).numpy()
    sizes = area.tolist()
    ties = {size for size, count in Counter(sizes).items() if count > 1}
    weights = order_weights(*masks.shape[1:]).to(masks.device)
    content = [
        (weights * mask).sum((1, 2)).tolist() if size in ties else [] for mask, size in zip(masks, sizes, strict=True)
    ]
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], content[i], i))
    return sorted(keep_first(order, overlapping))


def order_weights(rows: int, columns: int) -> Tensor:
    """What each cell adds to the two numbers that decide between masks of equal area, (2, rows, columns) int64.

    Small, so that float32 sums them up exactly over a million cells, as exported graphs do.
    """
    y, x = torch.arange(rows)[:, None], torch.arange(columns)
    return torch.stack([(7 * y + 5 * x) % 13, (3 * y + 8 * x) % 11])


def _shared_pixels(proposals: Proposals, limit: float) -> Tensor:
    """Number of pixels that two exact masks share, (N, N) float64; 0 for pairs that cannot be duplicates.

    Counting at the size of the photo is slow, so pairs that share no cell or differ too much in area are skipped.
    """
    assert proposals.exact is not None
    exact = proposals.exact
    area = torch.stack([mask.count_nonzero() for mask in exact]).double()
    touched = (proposals.logits > -LOGIT_LIMIT).flatten(1).float()
    similar_area = torch.minimum(area[:, None], area) > limit * torch.maximum(area[:, None], area)
    possible = ((touched @ touched.T) > 0).cpu() & similar_area
    shared = torch.diag(area)
    for i, j in possible.triu(1).nonzero().tolist():
        shared[i, j] = shared[j, i] = (exact[i] & exact[j]).count_nonzero()
    return shared


def keep_first(order: Sequence[int], overlapping: np.ndarray) -> list[int]:
    """Greedy non-maximum suppression: keep each element that does not overlap an element kept before it.

    Args:
        order: indices, in order of preference.
        overlapping: (N, N) bool.

    Returns:
        The kept indices, in that order.

    >>> keep_first([2, 0, 1], np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool))
    [2, 1]
    """
    kept: list[int] = []
    for index in order:
        if not overlapping[index, kept].any():
            kept.append(index)
    return kept


def exclusive_masks(masks: Tensor, min_area: int = 0) -> Tensor:
    """Assign each pixel to the largest mask that contains it (docs/method.md §12); objects inside a mask disappear.

    Args:
        masks: (N, H, W) bool.
        min_area: drop masks that keep fewer pixels; 0 or 1: only those that keep none.

    Returns:
        (M, H, W) bool, disjoint and not empty, sorted by their original area, largest first.
    """
    masks = masks.bool()
    areas = masks.flatten(1).sum(1)
    free = torch.ones(masks.shape[1:], dtype=torch.bool, device=masks.device)
    kept = []
    for index in areas.argsort(descending=True, stable=True).tolist():
        remainder = masks[index] & free
        free &= ~masks[index]
        if remainder.count_nonzero() >= max(min_area, 1):
            kept.append(remainder)
    return torch.stack(kept) if kept else masks.new_zeros((0, *masks.shape[1:]))


def drop_small_regions(mask: np.ndarray, min_area: float) -> np.ndarray:
    """Fill holes and remove connected regions smaller than ``min_area``; diagonal neighbours are connected.

    If all regions are smaller, the largest is kept.

    Args:
        mask: (h, w) bool.
        min_area: in cells.

    Returns:
        (h, w) bool, a new array.
    """
    parts = connected_regions(mask.astype(bool), diagonal=True)
    mask = parts.paint(parts.labels | (parts.areas < min_area))
    parts = connected_regions(mask, diagonal=True)
    keep = parts.labels & (parts.areas >= min_area)
    if parts.labels.any() and not keep.any():
        keep[np.where(parts.labels, parts.areas, 0).argmax()] = True
    return parts.paint(keep)

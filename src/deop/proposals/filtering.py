"""Which proposals to keep: neither empty nor said twice; and masks that share no pixel."""

import math
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from deop.proposals.given import LOGIT_LIMIT
from deop.proposals.types import Proposals


def drop_redundant(proposals: Proposals, *, empty: float | None = 0.5, duplicate_iou: float | None = 0.95) -> Proposals:
    """Drop proposals that are empty or repeat another one.

    The rule. A proposal is empty if no cell has a probability above ``empty``. Of two proposals whose binarised masks
    (probability above 0.5) overlap with an IoU above ``duplicate_iou``, the larger is kept: masks are taken from the
    largest to the smallest and kept unless they duplicate one kept before. Masks of equal area are taken in an order
    fixed by their cells, so the result does not depend on the order of the proposals; only of masks with the very same
    cells the earlier one is kept. Where the proposals carry ``exact`` masks, these are judged instead, pixel by pixel:
    empty means without a pixel.

    Args:
        proposals: of one image; N may be 0.
        empty: probability in (0, 1), or None to keep empty proposals.
        duplicate_iou: in [0, 1), or None to keep duplicates.

    Returns:
        Those kept, in their former order.
    """
    if len(proposals) and empty is not None:
        threshold = math.log(empty / (1 - empty))
        filled = proposals.logits if proposals.exact is None else proposals.exact
        bar = threshold if proposals.exact is None else 0
        proposals = proposals.keep((filled > bar).flatten(1).any(1).to(proposals.logits.device))
    if len(proposals) > 1 and duplicate_iou is not None:
        kept = _first_of_duplicates(proposals, duplicate_iou)
        proposals = proposals.keep(torch.as_tensor(kept, device=proposals.logits.device))
    return proposals


def _first_of_duplicates(proposals: Proposals, limit: float) -> list[int]:
    """Indices of the proposals that duplicate none kept before, ascending."""
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
    content = [_digest(mask) if size in ties else b"" for mask, size in zip(masks, sizes, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], content[i], i))
    return sorted(keep_first(order, overlapping))


def _digest(mask: Tensor) -> bytes:
    return blake2b(np.packbits(mask.cpu().numpy()).tobytes()).digest()


def _shared_pixels(proposals: Proposals, limit: float) -> Tensor:
    """(N, N) float64 pixels that two exact masks share, for pairs that can be duplicates; 0 elsewhere.

    Counting at the photo's size is dear, so only pairs that touch in some cell and whose areas allow it are counted.
    """
    assert proposals.exact is not None
    exact = proposals.exact
    area = torch.stack([mask.count_nonzero() for mask in exact]).double()
    touched = (proposals.logits > -LOGIT_LIMIT).flatten(1).float()
    similar = torch.minimum(area[:, None], area) > limit * torch.maximum(area[:, None], area)
    possible = ((touched @ touched.T) > 0).cpu() & similar
    shared = torch.diag(area)
    for i, j in possible.triu(1).nonzero().tolist():
        shared[i, j] = shared[j, i] = (exact[i] & exact[j]).count_nonzero()
    return shared


def keep_first(order: Sequence[int], overlapping: np.ndarray) -> list[int]:
    """Go through ``order`` and keep whatever does not overlap one kept before.

    Args:
        order: indices, the preferred first.
        overlapping: (N, N) bool.

    Returns:
        The indices kept, in that order.
    """
    kept: list[int] = []
    for index in order:
        if not overlapping[index, kept].any():
            kept.append(index)
    return kept


def exclusive_masks(masks: Tensor, min_area: int = 0) -> Tensor:
    """Give every pixel to the largest mask that has it (METHOD section 12): an object inside a big mask disappears.

    Args:
        masks: (N, H, W) bool.
        min_area: also drop masks that keep fewer pixels than this; 0 or 1 drops only those without any.

    Returns:
        (M, H, W) bool, largest (before anything was taken from it) first, no pixel in two of them, none empty.
    """
    masks = masks.bool()
    areas = masks.flatten(1).sum(1)
    free = torch.ones(masks.shape[1:], dtype=torch.bool, device=masks.device)
    kept = []
    for index in areas.argsort(descending=True, stable=True).tolist():
        own = masks[index] & free
        free &= ~masks[index]
        if own.count_nonzero() >= max(min_area, 1):
            kept.append(own)
    return torch.stack(kept) if kept else masks.new_zeros((0, *masks.shape[1:]))


def visible_masks(masks: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Look at masks on a coarser grid and drop those that vanish there (METHOD section 12).

    Args:
        masks: (N, H, W) bool.
        grid: (h, w); the training-free variant uses four times the patch grid.

    Returns:
        The masks left (M, H, W) bool, and their cells (M, h, w) bool, taken at the nearest pixel.
    """
    masks = masks.bool()
    cells = F.interpolate(masks[:, None].to(torch.uint8), size=grid, mode="nearest")[:, 0].bool()
    seen = cells.flatten(1).any(1)
    return masks[seen], cells[seen]


def drop_small_regions(mask: np.ndarray, min_area: float) -> np.ndarray:
    """Fill holes and drop islands smaller than ``min_area`` cells, diagonal neighbours counted as one region.

    If every island is smaller, the largest stays.

    Args:
        mask: (h, w) bool.
        min_area: in cells.

    Returns:
        (h, w) bool, a new array.
    """
    eight = np.ones((3, 3), int)
    holes, count = ndimage.label(~mask, eight)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    mask = mask | ((sizes < min_area) & (np.arange(count + 1) > 0))[holes]
    islands, count = ndimage.label(mask, eight)
    sizes = np.bincount(islands.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = sizes >= min_area
    if count and not keep[1:].any():
        keep[sizes.argmax()] = True
    keep[0] = False
    return keep[islands]

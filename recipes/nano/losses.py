"""Loss functions of the small model: classification with partial labels, and the partition of a photo into masks."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

AUXILIARY_WEIGHT = 0.4
"""Weight of the partition loss of every decoder layer but the last."""


def region_coverage(numbers: Tensor, max_regions: int, stride: int) -> Tensor:
    """The share of each cell that each region covers, estimated from every fourth pixel.

    Args:
        numbers: (B, H, W) int64 region numbers below ``max_regions``; -1: no region.
        max_regions: N, number of regions per crop.
        stride: side of a cell in pixels.

    Returns:
        (B, N, H / stride, W / stride) float32 in [0, 1].
    """
    numbers, stride = numbers[:, ::2, 1::2], stride // 2
    batch, height, width = numbers.shape
    rows, columns = height // stride, width // stride
    cell = (
        torch.arange(height, device=numbers.device)[:, None] // stride * columns
        + torch.arange(width, device=numbers.device) // stride
    )
    position = (torch.arange(batch, device=numbers.device)[:, None, None] * max_regions + numbers) * (
        rows * columns
    ) + cell
    position = torch.where(numbers >= 0, position, batch * max_regions * rows * columns).flatten()
    # scatter_add_ instead of bincount, which synchronizes with the GPU.
    count = torch.zeros(batch * max_regions * rows * columns + 1, device=numbers.device)
    count.scatter_add_(0, position, torch.ones_like(position, dtype=torch.float))
    return count[:-1].view(batch, max_regions, rows, columns) / stride**2


def pool_regions(patches: Tensor, masks: Tensor) -> Tensor:
    """Average patches (B, C, h, w) under masks (B, N, h, w); returns (B, N, C), L2-normalized."""
    pooled = torch.einsum("bnhw,bchw->bnc", masks.float(), patches.float())
    return F.normalize(pooled, dim=-1, eps=1e-6)


def similarity(regions: Tensor, text: Tensor) -> Tensor:
    """Logits (..., K): 100 x cosine of regions (..., C + 1) and names (K, C).

    The last channel of a region is constant; names have 0 there.
    """
    return 100 * regions[..., :-1] @ text.T


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over all entries; 0 if all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, smoothing: float = 0.0) -> Tensor:
    """Weighted mean of the cross-entropy with target distributions.

    Args:
        logits: (..., K).
        target: (..., K), distributions.
        weight: (...).
        smoothing: label smoothing, in [0, 1].
    """
    log_p = logits.float().log_softmax(-1)
    loss = -(target * log_p).sum(-1) * (1 - smoothing) - smoothing * log_p.mean(-1)
    return weighted_mean(loss, weight)


def label_loss(logits: Tensor, labels: Tensor, allowed: Tensor, smoothing: float = 0.0) -> Tensor:
    """Negative log probability of all names that a label allows, together.

    Args:
        logits: (..., G), of the joint names.
        labels: (...) int64; -1: void, which has loss 0.
        allowed: (L, G) bool, the names that each label allows.
        smoothing: label smoothing, in [0, 1].

    Returns:
        (...).
    """
    log_p = logits.float().log_softmax(-1)
    allowed_names = allowed[labels.clamp_min(0)]
    # The value of labels without names does not matter (their loss is 0), but must be finite for the gradient.
    log_allowed = log_p.masked_fill(~allowed_names, -torch.inf)
    log_allowed = log_allowed.masked_fill(~allowed_names.any(-1, keepdim=True), 0.0).logsumexp(-1)
    loss = -log_allowed * (1 - smoothing) - smoothing * log_p.mean(-1)
    return torch.where(is_informative(labels, allowed), loss, 0.0)


def is_informative(labels: Tensor, allowed: Tensor) -> Tensor:
    """Whether each label (...) allows at least one name, but not all; False for -1."""
    informative = allowed.any(-1) & ~allowed.all(-1)
    return (labels >= 0) & informative[labels.clamp_min(0)]


def label_shares_loss(
    logits: Tensor, shares: Tensor, allowed: Tensor, multi_name_labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """``label_loss`` for masks that contain several labels.

    Args:
        logits: (..., G), of the joint names.
        shares: (..., L), each label's share of a mask; labels 0 to G - 1 are the names. 0 for uninformative labels.
        allowed: (L, G) bool, the names that each label allows.
        multi_name_labels: the informative labels from G on.
        smoothing: label smoothing, in [0, 1].

    Returns:
        (...), not divided by the sum of the shares.
    """
    log_p = logits.float().log_softmax(-1)
    log_allowed = log_p[..., None, :].masked_fill(~allowed[multi_name_labels], -torch.inf).logsumexp(-1)
    informative = torch.cat([shares[..., : log_p.shape[-1]], shares[..., multi_name_labels]], -1)
    loss = -(informative * torch.cat([log_p, log_allowed], -1)).sum(-1)
    return loss * (1 - smoothing) - smoothing * log_p.mean(-1) * informative.sum(-1)


@dataclass
class PartitionLayer:
    """One decoder layer's partition and the ground truth at its resolution of h x w = P pixels.

    Attributes:
        truth: (B, P) int64 segment numbers; -1: unknown, -2: outside all segments.
        one_hot: (B, S, P) float32, the segments as masks.
        log_p: (B, Q, P), log probability that a pixel belongs to a query.
    """

    truth: Tensor
    one_hot: Tensor
    log_p: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, segments: Tensor, max_segments: int) -> "PartitionLayer":
        """Prepare logits (B, Q, h, w) and segments (B, H, W), as in ``partition_loss``."""
        stride = segments.shape[-1] // logits.shape[-1]
        truth = segments[:, stride // 2 :: stride, stride // 2 :: stride].flatten(1)
        one_hot = (F.one_hot(truth.clamp_min(0), max_segments) * (truth >= 0)[..., None]).mT.float()
        return cls(truth, one_hot, logits.float().flatten(2).log_softmax(1))

    @property
    def inside(self) -> Tensor:
        """(B, P) bool, pixels of a segment."""
        return self.truth >= 0

    @property
    def outside(self) -> Tensor:
        """(B, P) bool, pixels that are known to be outside all segments."""
        return self.truth == -2

    @property
    def area(self) -> Tensor:
        """(B, S), pixels of each segment."""
        return self.one_hot.sum(2)

    @property
    def query_masks(self) -> Tensor:
        """(B, Q, P), probabilities, 0 where the ground truth is unknown."""
        return self.log_p.exp() * (self.inside | self.outside)[:, None]

    @torch.no_grad()
    def matching_cost(self) -> Tensor:
        """(B, S, Q), the cost of matching each segment with each query: cross-entropy + 2 x dice loss."""
        area, masks = self.area, self.query_masks
        entropy = -(self.one_hot @ self.log_p.mT) / area.clamp_min(1)[..., None]
        intersection = self.one_hot @ masks.mT
        dice = 1 - (2 * intersection + 1) / (area[..., None] + masks.sum(2)[:, None] + 1)
        return torch.where((area > 0)[..., None], entropy.clamp_max(20) + 2 * dice, 0.0)

    def loss(self, query_of_segment: Tensor, is_matched: Tensor) -> Tensor:
        """Cross-entropy, averaged over pixels and over segments with weight 0.5 each, + 2 x dice loss.

        Args:
            query_of_segment: (B, S) int64.
            is_matched: (B, Q) bool.
        """
        inside, outside, area, masks = self.inside, self.outside, self.area, self.query_masks
        exists = (area > 0).float()
        target = query_of_segment.gather(1, self.truth.clamp_min(0))
        entropy = -self.log_p.gather(1, target[:, None])[:, 0] * inside
        # Outside all segments, a pixel may belong to any query that is not matched.
        log_unmatched = self.log_p.masked_fill(is_matched[..., None], -torch.inf).logsumexp(1)
        pixel_mean = entropy.sum() - (log_unmatched * outside).sum()
        pixel_mean = pixel_mean / (inside.sum() + outside.sum()).clamp_min(1)
        segment_entropy = (self.one_hot @ entropy[..., None])[..., 0] / area.clamp_min(1)
        segment_mean = (segment_entropy * exists).sum() / exists.sum().clamp_min(1)
        matched_masks = masks.gather(1, query_of_segment[..., None].expand(-1, -1, masks.shape[2]))
        dice = 1 - (2 * (matched_masks * self.one_hot).sum(2) + 1) / (area + matched_masks.sum(2) + 1)
        dice = (dice * exists).sum() / exists.sum().clamp_min(1)
        return 0.5 * pixel_mean + 0.5 * segment_mean + 2 * dice


def match_layers(layers: list[PartitionLayer]) -> tuple[Tensor, Tensor]:
    """Match segments with queries by the Hungarian algorithm.

    All layers are matched together, because each copy between GPU and CPU waits for the GPU.

    Returns:
        The query of each segment, (layers, B, S) int64, and whether a query is matched, (layers, B, Q) bool.
    """
    exists = torch.stack([layer.area > 0 for layer in layers]).cpu().numpy()
    costs = torch.stack([layer.matching_cost() for layer in layers]).cpu().numpy()
    query_of_segment = np.zeros(exists.shape, np.int64)
    is_matched = np.zeros((*exists.shape[:2], costs.shape[-1]), bool)
    for index in np.ndindex(exists.shape[:2]):
        segments = np.flatnonzero(exists[index])
        _, queries = linear_sum_assignment(costs[index][segments])
        query_of_segment[index][segments] = queries
        is_matched[index][queries] = True
    device = layers[0].truth.device
    return torch.from_numpy(query_of_segment).to(device), torch.from_numpy(is_matched).to(device)


def partition_loss(outputs: list[Tensor], segments: Tensor, max_segments: int) -> Tensor:
    """How well the queries partition a photo into its segments, summed over decoder layers.

    Args:
        outputs: per layer, logits (B, Q, h, w) of the query that a pixel belongs to.
        segments: (B, H, W) int64 segment numbers; -1: unknown, -2: outside all segments, so that a query that is
            matched with a segment must not cover it.
        max_segments: S, number of segments per photo.
    """
    layers = [PartitionLayer.from_logits(logits, segments, max_segments) for logits in outputs]
    query_of_segment, is_matched = match_layers(layers)
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for index, layer in enumerate(layers):
        weight = 1.0 if index == len(layers) - 1 else AUXILIARY_WEIGHT
        total = total + layer.loss(query_of_segment[index], is_matched[index]) * weight
    return total

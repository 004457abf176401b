"""What the small model is trained with: naming, dividing, and keeping what ImageNet taught the trunk."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def coverage_of(numbers: Tensor, most: int, stride: int) -> Tensor:
    """Region numbers (B, H, W), -1: none -> how far each covers each cell (B, most, H / stride, W / stride)."""
    numbers, stride = numbers[:, ::2, 1::2], stride // 2  # every fourth pixel tells enough
    batch, height, width = numbers.shape
    rows, columns = height // stride, width // stride
    cell = (
        torch.arange(height, device=numbers.device)[:, None] // stride * columns
        + torch.arange(width, device=numbers.device) // stride
    )
    place = (torch.arange(batch, device=numbers.device)[:, None, None] * most + numbers) * (rows * columns) + cell
    place = torch.where(numbers >= 0, place, batch * most * rows * columns)
    # Not bincount, which waits for the device.
    count = torch.zeros(batch * most * rows * columns + 1, device=numbers.device)
    count.scatter_add_(0, place.flatten(), torch.ones_like(place.flatten(), dtype=torch.float))
    return count[:-1].view(batch, most, rows, columns) / stride**2


def pool(patches: Tensor, coverage: Tensor) -> Tensor:
    """Patches (B, C, h, w) under masks (B, N, h, w) -> (B, N, C), L2-normalised, as ``anchors.pool_regions``."""
    pooled = torch.einsum("bnhw,bchw->bnc", coverage.float(), patches.float())
    return F.normalize(pooled, dim=-1, eps=1e-6)


def similarity(regions: Tensor, text: Tensor) -> Tensor:
    """100 x cosine of (..., C + 1) against names (K, C), which have 0 in the constant's place."""
    return 100 * regions[..., :-1] @ text.T


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, smooth: float = 0.0) -> Tensor:
    """Weighted mean over rows (R, K) of the cross-entropy with distributions (R, K)."""
    log_p = logits.float().log_softmax(-1)
    loss = -(target * log_p).sum(-1) * (1 - smooth) - smooth * log_p.mean(-1)
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def label_loss(logits: Tensor, labels: Tensor, allowed: Tensor, smooth: float = 0.0) -> Tensor:
    """Minus the log probability of all that a label allows.

    Args:
        logits: (R, G) of names.
        labels: (R,), -1: void, which costs nothing.
        allowed: (L, G) bool.
        smooth: share of the target that all names have alike.

    Returns:
        (R,).
    """
    log_p = logits.float().log_softmax(-1)
    usable = allowed[labels.clamp_min(0)]
    # What allows no name gets 0 below, whatever it is here.
    inside = log_p.masked_fill(~usable, -torch.inf).masked_fill(~usable.any(-1, keepdim=True), 0.0).logsumexp(-1)
    loss = -inside * (1 - smooth) - smooth * log_p.mean(-1)
    return torch.where(teaches(labels, allowed), loss, 0.0)


def teaches(labels: Tensor, allowed: Tensor) -> Tensor:
    """Whether a label says anything: it allows some name, and not all."""
    some = allowed.any(-1) & ~allowed.all(-1)
    return (labels >= 0) & some[labels.clamp_min(0)]


def shares_loss(logits: Tensor, shares: Tensor, allowed: Tensor, several: Tensor, smooth: float = 0.0) -> Tensor:
    """The same for masks that several labels have a share in.

    Args:
        logits: (..., G).
        shares: (..., L) of the labels, the first G of which are the names; 0 for those that teach nothing.
        allowed: (L, G) bool.
        several: numbers of the labels from G on that teach something.
        smooth: as in ``label_loss``.

    Returns:
        (...), not divided by the sum of the shares.
    """
    log_p = logits.float().log_softmax(-1)
    inside = log_p[..., None, :].masked_fill(~allowed[several], -torch.inf).logsumexp(-1)
    known = torch.cat([shares[..., : log_p.shape[-1]], shares[..., several]], -1)
    exact = -(known * torch.cat([log_p, inside], -1)).sum(-1)
    return exact * (1 - smooth) - smooth * log_p.mean(-1) * known.sum(-1)


def mean(losses: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of all of them; 0 where nothing has weight."""
    return (losses * weight).sum() / weight.sum().clamp_min(1e-6)


def divide_loss(outputs: list[Tensor], segments: Tensor, most: int) -> Tensor:
    """How well queries divide the photo: matched segments, cross-entropy over queries and dice.

    Args:
        outputs: logits (B, Q, h, w) of each layer.
        segments: (B, H, W) numbers of segments; -1: unknown, -2: none of them, so that a query that a segment is
            matched with has no share in it.
        most: segments a photo.

    Returns:
        The loss of all layers together.
    """
    side = segments.shape[-1]
    prepared, costs = [], []
    for logits in outputs:
        stride = side // logits.shape[-1]
        truth = segments[:, stride // 2 :: stride, stride // 2 :: stride].flatten(1)
        valid, other = truth >= 0, truth == -2
        one_hot = (F.one_hot(truth.clamp_min(0), most) * valid[..., None]).mT.float()  # (B, S, L)
        log_p = logits.float().flatten(2).log_softmax(1)  # (B, Q, L)
        share = log_p.exp() * (valid | other)[:, None]
        area = one_hot.sum(2)
        with torch.no_grad():
            entropy = -(one_hot @ log_p.mT) / area.clamp_min(1)[..., None]
            overlap = one_hot @ share.mT
            dice = 1 - (2 * overlap + 1) / (area[..., None] + share.sum(2)[:, None] + 1)
            costs.append(torch.where((area > 0)[..., None], entropy.clamp_max(20) + 2 * dice, 0.0))
        prepared.append((truth, valid, other, one_hot, log_p, share, area))
    # All layers are matched at once: each way to the host and back waits for the device.
    present = torch.stack([area > 0 for *_, area in prepared])
    host, present = torch.stack(costs).cpu().numpy(), present.cpu().numpy()
    match = np.zeros(present.shape, np.int64)  # (layers, B, S) -> query
    taken = np.zeros((*present.shape[:2], outputs[0].shape[1]), bool)
    for place in np.ndindex(present.shape[:2]):
        chosen = np.flatnonzero(present[place])
        _, queries = linear_sum_assignment(host[place][chosen])
        match[place][chosen] = queries
        taken[place][queries] = True
    matches, takens = (torch.from_numpy(found).to(segments.device) for found in (match, taken))
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for layer, (truth, valid, other, one_hot, log_p, share, area) in enumerate(prepared):
        matched = matches[layer]
        there = (area > 0).float()
        target = matched.gather(1, truth.clamp_min(0))
        nll = -log_p.gather(1, target[:, None])[:, 0] * valid
        free = log_p.masked_fill(takens[layer][..., None], -torch.inf).logsumexp(1)
        even = (nll.sum() - (free * other).sum()) / (valid.sum() + other.sum()).clamp_min(1)
        each = (one_hot @ nll[..., None])[..., 0] / area.clamp_min(1)
        each = (each * there).sum() / there.sum().clamp_min(1)
        own = share.gather(1, matched[..., None].expand(-1, -1, share.shape[2]))
        dice = 1 - (2 * (own * one_hot).sum(2) + 1) / (area + own.sum(2) + 1)
        dice = (dice * there).sum() / there.sum().clamp_min(1)
        total = total + (0.5 * even + 0.5 * each + 2 * dice) * (1.0 if layer == len(prepared) - 1 else 0.4)
    return total

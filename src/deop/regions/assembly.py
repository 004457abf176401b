"""From classified masks to maps at the photo's own size: semantic, panoptic, instances.

Everything goes in blocks of rows, so that memory grows neither with the number of names nor with names x pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.proposals.types import Proposals
from deop.regions.small_regions import absorb_small_regions
from deop.regions.windows import BLOCK, Window, mask_blocks, mask_windows, value_range

AT_ONCE = 1 << 18
"""Most votes counted in a window on the CPU before it is looked at in quarters."""
MANY = 256
"""Names above which a short list of them is voted on first."""
LISTED = 8
"""Names of each mask that are on it."""
FEW = 8
"""Names that are compared without a look at which of them can win."""


class SemanticMap(NamedTuple):
    """One name a pixel."""

    labels: np.ndarray  # (H, W) int32, index of the name, -1: none
    confidence: np.ndarray  # (H, W) float32 in [0, 1]: the winning name's share of the masks over the pixel


class Piece(NamedTuple):
    """A thing or a stretch of stuff."""

    class_id: int
    score: float  # in [0, 1]
    isthing: bool


class PanopticMap(NamedTuple):
    """One segment a pixel."""

    segments: np.ndarray  # (H, W) int32, index into pieces, -1: none
    pieces: list[Piece]


def semantic(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    *,
    threshold: float = 0.0,
    claim: float = 0.0,
    none_competes: bool = False,
    smallest_region: float = 0.0,
) -> SemanticMap:
    """Label every pixel with the name that its masks vote for (METHOD section 6).

    A name's vote at a pixel is S_k = sum_n P_n(k) M_n(pixel), with M_n the mask's probability there. Equal to the
    original's map, without ever holding names x pixels.

    Args:
        probabilities: (N, K + 1), softmax over the names and, last, none of them.
        proposals: the N masks.
        canvas: where the photo lies in the masks.
        threshold: pixels whose confidence S_k / max(1, sum_n M_n) is below it are -1.
        claim: pixels whose masks add up to no more than it are claimed by nobody: -1.
        none_competes: whether "none of these" takes part: where its vote is highest, the pixel is -1. The original
            drops that column (and does not renormalise the others).
        smallest_region: share of the photo below which a stretch of one name, or of none, is given to what surrounds
            it; its pixels keep the confidence of their own vote.

    Returns:
        The map at the photo's own size.
    """
    names = probabilities.shape[1] - 1
    votes = (probabilities if none_competes else probabilities[:, :-1]).float().contiguous()  # (N, K or K + 1)
    labels = np.full(canvas.photo, -1, np.int32)
    confidence = np.zeros(canvas.photo, np.float32)
    if not len(proposals) or not names:
        return SemanticMap(labels, confidence)
    short, listed = _shortlist(votes)
    for window in mask_windows(proposals, canvas):
        coverage = window.masks.sum(0) + window.rest.sum()
        best, winner = _vote(short, window)
        if listed is not None:
            if bool((winner == 0).any()):
                best, winner = _vote(votes, window)
            else:
                winner = listed[winner - 1]
        sure = best / coverage.clamp_min(1.0)
        unclaimed = (coverage <= claim) | (sure < threshold) | (winner == names)
        place = window.rows, window.columns
        labels[place] = torch.where(unclaimed, -1, winner).to(torch.int32).cpu().numpy()
        confidence[place] = sure.clamp(0, 1).cpu().numpy()
    return SemanticMap(absorb_small_regions(labels, smallest_region * labels.size), confidence)


def _shortlist(votes: Tensor) -> tuple[Tensor, Tensor | None]:
    """The few of many names that can hope to win, and before them one that stands for all others.

    That one has in each mask the highest probability of any that is left out, so that no pixel's vote for one of these
    is above its vote: where it does not win, neither does any of them.

    Args:
        votes: (N, K).

    Returns:
        (N, 1 + k) votes, and the (k,) int64 indices of the names, rising; the votes themselves and None where names are
        few.
    """
    if votes.shape[1] <= MANY:
        return votes, None
    listed = votes.topk(LISTED, dim=1).indices.unique()
    others = votes.index_fill(1, listed, 0).amax(1, keepdim=True)
    return torch.cat([others, votes[:, listed]], 1), listed


def _vote(votes: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Highest vote and its name of every pixel of a window, of votes (N, K)."""
    # Masks that are the same all over the window vote together, as one more mask that is 1.
    own = torch.cat([votes[window.chosen], (window.rest @ votes)[None]])
    masks = torch.cat([window.masks, window.masks.new_ones(1, *window.masks.shape[1:])])
    return _strongest(own.T, masks)


def _strongest(votes: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Highest vote and its name of every pixel: votes (K, N), masks (N, h, w) -> twice (h, w).

    Names that can be shown to win nowhere are left out first. With j the name whose least vote is the highest, k wins
    only where sum_n (P_n(k) - P_n(j)) M_n reaches 0, and that is at most the sum of its positive terms with max M_n
    and its negative ones with min M_n. Where too many are left, the quarters of the window are asked one by one.
    """
    names, flat = torch.arange(len(votes), device=votes.device), masks.flatten(1)
    if len(votes) > FEW:
        least, most = value_range(flat)
        ahead = votes - votes[(votes @ least).argmax()]
        beaten = ahead.clamp_min(0) @ most + ahead.clamp_max(0) @ least < 0
        names = (~beaten).nonzero()[:, 0]
        votes = votes[names]
    pixels = flat.shape[1]
    if pixels > 1 and len(votes) * pixels > (AT_ONCE if masks.device.type == "cpu" else BLOCK):
        rows = [[_strongest(votes, part) for part in half.chunk(2, 2)] for half in masks.chunk(2, 1)]
        best, winner = (torch.cat([torch.cat([part[i] for part in row], 1) for row in rows]) for i in (0, 1))
    else:
        best, winner = (found.unflatten(0, masks.shape[1:]) for found in (votes @ flat).max(0))
    return best, names[winner]


def panoptic(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    things: np.ndarray,
    *,
    threshold: float = 0.0,
    overlap: float = 0.8,
    smallest_region: float = 0.0,
) -> PanopticMap:
    """One segment a pixel: each thing its own, all of one stuff together (MaskFormer's panoptic inference).

    Each proposal takes its best name and that name's probability as score; one whose best is "none of these", or whose
    score is below ``threshold``, is dropped. A pixel goes to the proposal with the highest score x mask probability,
    where that mask covers it; a proposal that keeps less than ``overlap`` of its own area is dropped.

    Args:
        probabilities: (N, K + 1), as for ``semantic``.
        proposals: the N masks.
        canvas: where the photo lies in the masks.
        things: (K,) bool, which names are countable things.
        threshold: in [0, 1].
        overlap: in [0, 1].
        smallest_region: as for ``semantic``, of stretches of one segment; segments may be left without a pixel.

    Returns:
        The segments at the photo's own size.
    """
    segments = np.full(canvas.photo, -1, np.int32)
    kept, scores, classes = _confident(probabilities, threshold)
    if not len(kept):
        return PanopticMap(segments, [])
    proposals = proposals.keep(kept)
    own, won = np.zeros(len(kept), np.int64), np.zeros(len(kept), np.int64)
    for first, last, masks in mask_blocks(proposals, canvas):
        covers = masks >= 0.5
        winner = (scores[:, None, None] * masks).argmax(0)
        owner = torch.where(covers.gather(0, winner[None])[0], winner, -1).cpu().numpy()
        segments[first:last] = owner
        own += covers.sum((1, 2)).cpu().numpy()
        won += np.bincount(owner[owner >= 0], minlength=len(kept))

    pieces: list[Piece] = []
    area: list[int] = []
    number = np.full(len(kept) + 1, -1, np.int32)  # proposal -> piece; the last entry serves -1
    stuff: dict[int, int] = {}
    for index in np.flatnonzero((won > 0) & (won >= overlap * own)):
        class_id, score = int(classes[index]), float(scores[index])
        if not things[class_id] and class_id in stuff:
            piece = stuff[class_id]
            total = area[piece] + int(won[index])
            mean = (pieces[piece].score * area[piece] + score * int(won[index])) / total
            pieces[piece], area[piece] = pieces[piece]._replace(score=mean), total
        else:
            piece = len(pieces)
            pieces.append(Piece(class_id, score, bool(things[class_id])))
            area.append(int(won[index]))
            if not things[class_id]:
                stuff[class_id] = piece
        number[index] = piece
    return PanopticMap(absorb_small_regions(number[segments], smallest_region * segments.size), pieces)


def instances(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    things: np.ndarray,
    *,
    threshold: float = 0.0,
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Every thing with a mask of its own, best first; masks may overlap.

    The score is the best name's probability times the mean mask probability inside the mask.

    Args:
        probabilities: (N, K + 1), as for ``semantic``.
        proposals: the N masks.
        canvas: where the photo lies in the masks.
        things: (K,) bool, which names are countable things; proposals of others are left out.
        threshold: in [0, 1].

    Yields:
        A piece and its mask (H, W) bool, one at a time.
    """
    kept, scores, classes = _confident(probabilities, threshold)
    chosen = torch.from_numpy(things[classes.cpu().numpy()]).to(kept.device)
    kept, scores, classes = kept[chosen], scores[chosen], classes[chosen]
    if not len(kept):
        return
    proposals = proposals.keep(kept)
    inside, area = torch.zeros_like(scores), torch.zeros_like(scores)
    for _, _, masks in mask_blocks(proposals, canvas):
        covers = masks >= 0.5
        inside += (masks * covers).sum((1, 2))
        area += covers.sum((1, 2))
    scores = scores * inside / area.clamp_min(1)
    for index in scores.argsort(descending=True, stable=True).tolist():
        if area[index] == 0 or scores[index] < threshold:
            continue
        one = proposals.keep(torch.tensor([index], device=kept.device))
        rows = [(masks[0] >= 0.5).cpu().numpy() for _, _, masks in mask_blocks(one, canvas)]
        yield Piece(int(classes[index]), float(scores[index]), True), np.concatenate(rows)


def _confident(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals whose best column is a name with at least ``threshold``: their index, score and name."""
    if probabilities.shape[0] == 0 or probabilities.shape[1] == 1:
        empty = torch.zeros(0, dtype=torch.int64, device=probabilities.device)
        return empty, empty.float(), empty
    scores, classes = probabilities.float().max(1)
    kept = ((classes < probabilities.shape[1] - 1) & (scores >= threshold)).nonzero()[:, 0]
    return kept, scores[kept], classes[kept]

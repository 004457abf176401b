"""From classified masks to results at the size of the photo: semantic, panoptic, instances.

The photo is processed in parts, so that neither names x pixels nor masks x pixels are in memory at once.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from deop.images.canvas import Canvas
from deop.proposals.types import Proposals
from deop.regions.maps import PanopticMap, Piece, SemanticMap
from deop.regions.small_regions import absorb_small_regions
from deop.regions.windows import BLOCK, Window, mask_blocks, mask_windows, value_range

MAX_VOTES = 1 << 18
"""Votes (names x pixels) computed at once on the CPU; larger windows are split into quarters."""
MANY_NAMES = 256
"""Number of names above which a short list is voted on first."""
LISTED_PER_MASK = 8
"""Names of each mask that are on the short list."""
GPU_BLOCK = 1 << 26
"""Numbers in memory at once on a GPU (256 MiB in float32), where small steps would not use the device."""
FEW_NAMES = 8
"""Number of names up to which all are compared, without first excluding names that cannot win."""


def semantic(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    *,
    threshold: float | Tensor = 0.0,
    claim: float = 0.0,
    none_competes: bool = False,
    smallest_region: float = 0.0,
    everything_else: int = -1,
) -> SemanticMap:
    """Label each pixel with the name that its masks vote for (docs/method.md §6).

    The vote for name k at a pixel is S_k = sum_n P_n(k) M_n, with M_n the probability of mask n there. The result
    equals the original's, without computing names x pixels.

    Args:
        probabilities: (N, K + 1), softmax over the names and, last, "none of these".
        proposals: N masks.
        canvas: position of the photo in the masks.
        threshold: pixels whose confidence S_k / max(1, sum_n M_n) is lower are -1; one number, or (K,) float, one for
            each name.
        claim: pixels with sum_n M_n up to this are -1.
        none_competes: whether "none of these" takes part, so that pixels that it wins are -1. The original drops its
            column without renormalising the others.
        smallest_region: share of the photo, in [0, 1); smaller connected regions of one label get the label of their
            surroundings, but keep their confidence.
        everything_else: index of the name that pixels get that would be -1 because of ``threshold`` or ``claim``.

    Returns:
        The map at the size of the photo.
    """
    names = probabilities.shape[1] - 1
    votes = (probabilities if none_competes else probabilities[:, :-1]).float().contiguous()  # (N, K or K + 1)
    labels = np.full(canvas.photo, everything_else, np.int32)
    confidence = np.zeros(canvas.photo, np.float32)
    if not len(proposals) or not names:
        return SemanticMap(labels, confidence)
    if votes.device.type == "cuda" and proposals.exact is None and votes.shape[1] <= MANY_NAMES:
        parts = label_without_waiting(
            votes, proposals, canvas, names=names, threshold=threshold, claim=claim, everything_else=everything_else
        )
        labels, confidence = (part.cpu().numpy() for part in parts)
        return SemanticMap(absorb_small_regions(labels, smallest_region * labels.size), confidence)
    limits = _limits(threshold, names, votes.device)
    short, listed = _shortlist(votes)
    for window in mask_windows(proposals, canvas):
        coverage = window.masks.sum(0) + window.constant.sum()
        best, winner = _vote(short, window)
        if listed is not None:
            if bool((winner == 0).any()):
                best, winner = _vote(votes, window)
            else:
                winner = listed[winner - 1]
        score = best / coverage.clamp_min(1.0)
        unsure = (coverage <= claim) | (score < limits[winner])
        winner = winner.masked_fill(winner == names, -1).masked_fill_(unsure, everything_else)
        part = window.rows, window.columns
        labels[part] = winner.to(torch.int32).cpu().numpy()
        confidence[part] = score.clamp(0, 1).cpu().numpy()
    return SemanticMap(absorb_small_regions(labels, smallest_region * labels.size), confidence)


def label_without_waiting(
    votes: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    *,
    names: int,
    threshold: float | Tensor = 0.0,
    claim: float = 0.0,
    everything_else: int = -1,
) -> tuple[Tensor, Tensor]:
    """Compute the map of ``semantic`` in a few large steps, and leave it on the device.

    ``semantic`` saves work by looking at the values in each window, and each look waits for the device. On a GPU, doing
    all of the work takes less time than the waits.

    Args:
        votes: (N, K) float32, or (N, K + 1) if "none of these" takes part.
        proposals: N masks, at least one.
        canvas: position of the photo in the masks.
        names: K, at least 1.
        threshold: as in ``semantic``.
        claim: as in ``semantic``.
        everything_else: as in ``semantic``.

    Returns:
        Labels (H, W) int32, -1 for none, before small regions are absorbed; and confidences (H, W) float32 in [0, 1].
    """
    labels = torch.empty(canvas.photo, dtype=torch.int32, device=votes.device)
    confidence = torch.empty(canvas.photo, device=votes.device)
    limits = _limits(threshold, names, votes.device)
    for first, last, masks in mask_blocks(proposals, canvas, votes.shape[1] + 3, limit=GPU_BLOCK):
        coverage = masks.sum(0)
        best, winner = (values.view_as(coverage) for values in (votes.T @ masks.flatten(1)).max(0))
        score = best / coverage.clamp_min(1.0)
        unsure = (coverage <= claim) | (score < limits[winner])
        labels[first:last] = winner.int().masked_fill_(winner == names, -1).masked_fill_(unsure, everything_else)
        confidence[first:last] = score.clamp_(0, 1)
    return labels, confidence


def _limits(threshold: float | Tensor, names: int, device: torch.device) -> Tensor:
    """The minimum score of each name and, last, of "none of these", which has none: (K + 1,) float."""
    limits = torch.zeros(names + 1)
    limits[:-1] = threshold
    return limits.to(device, non_blocking=True)  # numbers that are on the CPU are copied to a GPU without a wait


def _shortlist(votes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Reduce many names to the few that are likely to win, plus one column that bounds all others.

    In each mask, that column has the highest probability of any name that is not listed. Its vote at a pixel is at
    least the vote of each of them, so where it does not win, none of them does.

    Args:
        votes: (N, K).

    Returns:
        (N, 1 + k) votes with the bound in column 0, and the (k,) int64 indices of the listed names, ascending; or
        ``votes`` and None if there are few names.
    """
    if votes.shape[1] <= MANY_NAMES:
        return votes, None
    listed = votes.topk(LISTED_PER_MASK, dim=1).indices.unique()
    others = votes.index_fill(1, listed, 0).amax(1, keepdim=True)
    return torch.cat([others, votes[:, listed]], 1), listed


def _vote(votes: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Highest vote of each pixel of a window and its name, from votes (N, K)."""
    # All masks that are constant over the window vote together, as one more mask of probability 1.
    varying = torch.cat([votes[window.varying], (window.constant @ votes)[None]])
    masks = torch.cat([window.masks, window.masks.new_ones(1, *window.masks.shape[1:])])
    return _strongest(varying.T, masks)


def _strongest(votes: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Highest vote of each pixel and its name.

    Names that cannot win any pixel are excluded first. With j the name whose minimum vote is the highest, name k can
    win only if sum_n (P_n(k) - P_n(j)) M_n reaches 0 at some pixel. An upper bound of this sum takes the positive terms
    at the maximum of M_n and the negative terms at its minimum. If too many names remain, the window is split into
    quarters.

    Args:
        votes: (K, N).
        masks: (N, h, w).

    Returns:
        Votes and indices of the names, both (h, w).
    """
    names, flat = torch.arange(len(votes), device=votes.device), masks.flatten(1)
    if len(votes) > FEW_NAMES:
        low, high = value_range(flat)
        lead = votes - votes[(votes @ low).argmax()]
        upper_bound = lead.clamp_min(0) @ high + lead.clamp_max(0) @ low
        names = (~(upper_bound < 0)).nonzero()[:, 0]
        votes = votes[names]
    pixels = flat.shape[1]
    if pixels > 1 and len(votes) * pixels > (MAX_VOTES if masks.device.type == "cpu" else BLOCK):
        rows = [[_strongest(votes, part) for part in half.chunk(2, 2)] for half in masks.chunk(2, 1)]
        best, winner = (torch.cat([torch.cat([part[i] for part in row], 1) for row in rows]) for i in (0, 1))
    else:
        best, winner = (values.unflatten(0, masks.shape[1:]) for values in (votes @ flat).max(0))
    return best, names[winner]


def panoptic(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    things: np.ndarray,
    *,
    threshold: float | Tensor = 0.0,
    overlap: float = 0.8,
    smallest_region: float = 0.0,
) -> PanopticMap:
    """Assign each pixel to one segment: one per thing, and one per kind of stuff (MaskFormer's panoptic inference).

    Each proposal gets its most probable name, with that probability as score; it is dropped if this is "none of these"
    or the score is below ``threshold``. A pixel belongs to the proposal with the highest score x mask probability, if
    that mask covers it. A proposal that keeps less than ``overlap`` of its area is dropped.

    Args:
        probabilities: (N, K + 1), as in ``semantic``.
        proposals: N masks.
        canvas: position of the photo in the masks.
        things: (K,) bool, True for names of countable things.
        threshold: minimum score, in [0, 1]; one number, or (K,) float, one for each name.
        overlap: in [0, 1].
        smallest_region: as in ``semantic``, for regions of one segment; segments may lose all pixels.

    Returns:
        The segments at the size of the photo.
    """
    segments = np.full(canvas.photo, -1, np.int32)
    limits = _limits(threshold, probabilities.shape[1] - 1, probabilities.device)
    kept, scores, classes = _confident(probabilities, limits)
    if not len(kept):
        return PanopticMap(segments, [])
    proposals = proposals.keep(kept)
    covered, won = np.zeros(len(kept), np.int64), np.zeros(len(kept), np.int64)  # pixels of each mask
    for first, last, masks in mask_blocks(proposals, canvas):
        covers = masks >= 0.5
        winner = (scores[:, None, None] * masks).argmax(0)
        owner = torch.where(covers.gather(0, winner[None])[0], winner, -1).cpu().numpy()
        segments[first:last] = owner
        covered += covers.sum((1, 2)).cpu().numpy()
        won += np.bincount(owner[owner >= 0], minlength=len(kept))

    pieces: list[Piece] = []
    area: list[int] = []
    number = np.full(len(kept) + 1, -1, np.int32)  # proposal -> piece; the last entry is for -1
    stuff: dict[int, int] = {}
    for index in np.flatnonzero((won > 0) & (won >= overlap * covered)):
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


def label_rest(panoptic: PanopticMap, class_id: int) -> PanopticMap:
    """Give the pixels of no segment to the name of everything else.

    Args:
        panoptic: the segments.
        class_id: index of that name, which is stuff.

    Returns:
        A map without -1. If no proposal had that name, the score of its segment is 0.
    """
    segments, pieces = panoptic
    rest = segments < 0
    if not rest.any():
        return panoptic
    place = next((index for index, piece in enumerate(pieces) if piece.class_id == class_id), len(pieces))
    if place == len(pieces):
        pieces = [*pieces, Piece(class_id, 0.0, False)]
    return PanopticMap(np.where(rest, place, segments).astype(segments.dtype), pieces)


def instances(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    things: np.ndarray,
    *,
    threshold: float | Tensor = 0.0,
) -> Iterator[tuple[Piece, np.ndarray]]:
    """All things with their masks, highest score first; masks may overlap.

    The score is the probability of the best name times the mean mask probability inside the mask.

    Args:
        probabilities: (N, K + 1), as in ``semantic``.
        proposals: N masks.
        canvas: position of the photo in the masks.
        things: (K,) bool, True for names of countable things; proposals of other names are dropped.
        threshold: minimum score, in [0, 1]; one number, or (K,) float, one for each name.

    Yields:
        A piece and its mask (H, W) bool.
    """
    limits = _limits(threshold, probabilities.shape[1] - 1, probabilities.device)
    kept, scores, classes = _confident(probabilities, limits)
    is_thing = torch.from_numpy(things[classes.cpu().numpy()]).to(kept.device)
    kept, scores, classes = kept[is_thing], scores[is_thing], classes[is_thing]
    limits = limits[classes]
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
        if area[index] == 0 or scores[index] < limits[index]:
            continue
        one = proposals.keep(torch.tensor([index], device=kept.device))
        rows = [(masks[0] >= 0.5).cpu().numpy() for _, _, masks in mask_blocks(one, canvas)]
        yield Piece(int(classes[index]), float(scores[index]), True), np.concatenate(rows)


def names_of_masks(probabilities: Tensor, proposals: Proposals, *, threshold: float | Tensor = 0.0) -> np.ndarray:
    """The names that are the best name of a mask; a pixel can also have a name that is second in all of its masks.

    Args:
        probabilities: (N, K + 1), as in ``semantic``.
        proposals: N masks; those without a cell of probability above 0.5 do not count.
        threshold: minimum score, in [0, 1]; one number, or (K,) float, one for each name.

    Returns:
        (K,) bool.
    """
    names = probabilities.shape[1] - 1
    found = np.zeros(names, bool)
    kept, _, classes = _confident(probabilities, _limits(threshold, names, probabilities.device))
    if len(kept):
        covered = proposals.logits > 0 if proposals.exact is None else proposals.exact
        covered = covered.flatten(1).any(1).to(kept.device)
        found[classes[covered[kept]].cpu().numpy()] = True
    return found


def _confident(probabilities: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index, score and name of the proposals whose best column is a name with at least its minimum score.

    Args:
        probabilities: (N, K + 1), the last column "none of these".
        limits: (K + 1,) minimum scores.
    """
    if probabilities.shape[0] == 0 or probabilities.shape[1] == 1:
        empty = torch.zeros(0, dtype=torch.int64, device=probabilities.device)
        return empty, empty.float(), empty
    scores, classes = probabilities.float().max(1)
    kept = ((classes < probabilities.shape[1] - 1) & (scores >= limits[classes])).nonzero()[:, 0]
    return kept, scores[kept], classes[kept]

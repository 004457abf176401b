"""From classified masks to maps at the photo's own size: semantic, panoptic, instances.

Everything goes in blocks of rows, so that memory grows neither with the number of names nor with names x pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deop.islands import absorb_islands
from deop.masks import interpolate_rows, resize_weights, source_rows
from deop.proposals import Proposals

BLOCK = 1 << 24
"""Numbers held at once (64 MiB in float32)."""
WINDOW = 64
"""Most pixels a side of the windows in which names are voted on, on the CPU."""
AT_ONCE = 1 << 18
"""Most votes counted in a window on the CPU before it is looked at in quarters."""
MANY = 256
"""Names above which a short list of them is voted on first."""
LISTED = 8
"""Names of each mask that are on it."""
FEW = 8
"""Names that are compared without a look at which of them can win."""


@dataclass(frozen=True)
class Canvas:
    """Where the photo lies in what the networks saw; each (height, width) in pixels."""

    photo: tuple[int, int]  # the photo's own size
    resized: tuple[int, int]  # the photo as resized for the networks
    padded: tuple[int, int]  # the networks' input, padded at the bottom and the right


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
    smallest_island: float = 0.0,
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
        smallest_island: share of the photo below which a stretch of one name, or of none, is given to what surrounds
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
    return SemanticMap(absorb_islands(labels, smallest_island * labels.size), confidence)


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


def _vote(votes: Tensor, window: "Window") -> tuple[Tensor, Tensor]:
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
        least, most = _range(flat)
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
    smallest_island: float = 0.0,
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
        smallest_island: as for ``semantic``, of stretches of one segment; segments may be left without a pixel.

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
    return PanopticMap(absorb_islands(number[segments], smallest_island * segments.size), pieces)


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


class Window(NamedTuple):
    """The masks in a part of the photo."""

    rows: slice  # of the photo, h of them
    columns: slice  # of the photo, w of them
    chosen: Tensor  # (n,) int64, those of the N masks that are not the same all over the window
    masks: Tensor  # (n, h, w) float32, their probabilities
    rest: Tensor  # (N,) float32, what each other mask is all over the window; 0 for those chosen


def mask_windows(proposals: Proposals, canvas: Canvas) -> Iterator[Window]:
    """The masks at the photo's size as ``mask_blocks`` has them, in windows, and only where something changes.

    Args:
        proposals: N masks.
        canvas: where the photo lies in the masks.

    Yields:
        Windows that together cover the photo.
    """
    logits, exact = proposals.logits, proposals.exact
    device = logits.device
    side = max(1, int((BLOCK / (3 * len(proposals) + 1)) ** 0.5))
    side = min(side, WINDOW) if device.type == "cpu" else side
    sizes = zip(logits.shape[1:], canvas.padded, canvas.resized, canvas.photo, strict=True)
    rows, columns = ([_strip(*size, first, side, device) for first in range(0, size[-1], side)] for size in sizes)
    for row in rows:
        for column in columns:
            if exact is not None:
                masks = exact[:, row.pixels, column.pixels].to(device, torch.float32)
                low, high = _range(masks.flatten(1))
                chosen = (low < high).nonzero()[:, 0]
                masks = masks[chosen]
            else:
                cells = logits[:, row.cells, column.cells].float()
                low, high = (end.sigmoid() for end in _range(cells.flatten(1)))
                chosen = (low < high).nonzero()[:, 0]
                masks = (row.inner @ cells[chosen] @ column.inner.T).sigmoid()
                masks = masks if row.outer is None else row.outer @ masks
                masks = masks if column.outer is None else masks @ column.outer.T
            yield Window(row.pixels, column.pixels, chosen, masks, low.index_fill(0, chosen, 0))


def _range(values: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most of each row (N, L); five times as fast as ``aminmax``, which is not vectorised."""
    return values.amin(1), values.amax(1)


class _Strip(NamedTuple):
    """Some rows, or columns, of the photo, and the two products that resize masks to them."""

    pixels: slice  # of the photo, p of them
    cells: slice  # of the masks, c of them
    inner: Tensor  # (m, c): to the networks' input
    outer: Tensor | None  # (p, m): from there to the photo; None where the sizes agree


def _strip(cells: int, padded: int, resized: int, photo: int, first: int, side: int, device: torch.device) -> _Strip:
    pixels = middle = slice(first, min(first + side, photo))
    outer = None
    if resized != photo:
        middle, outer = resize_weights(resized, photo, pixels.start, pixels.stop)
        outer = outer.to(device)
    places, inner = resize_weights(cells, padded, middle.start, middle.stop)
    return _Strip(pixels, places, inner.to(device), outer)


def mask_blocks(proposals: Proposals, canvas: Canvas, extra: int = 0) -> Iterator[tuple[int, int, Tensor]]:
    """The masks at the photo's size, some rows at a time, so that about ``BLOCK`` numbers are held.

    Logits are resized bilinearly to the networks' input, cut to the image, put through the sigmoid, and the
    probabilities resized to the photo (METHOD section 6); masks that the caller gave are taken as they are.

    Args:
        proposals: N masks.
        canvas: where the photo lies in the masks.
        extra: further numbers that the caller holds for every pixel, for the size of the blocks.

    Yields:
        first row, one past the last row, and (N, rows, W) float32 probabilities.
    """
    height, width = canvas.photo
    step = max(1, BLOCK // ((3 * len(proposals) + extra + 1) * max(width, canvas.resized[1])))
    for first in range(0, height, step):
        last = min(first + step, height)
        if proposals.exact is not None:
            yield first, last, proposals.exact[:, first:last].to(proposals.logits.device, torch.float32)
            continue
        low, high = source_rows(canvas.resized[0], height, first, last)
        logits = interpolate_rows(proposals.logits.float(), canvas.padded, low, high)
        masks = logits[:, :, : canvas.resized[1]].sigmoid()
        yield first, last, interpolate_rows(masks, canvas.photo, first, last, source=(low, canvas.resized[0]))

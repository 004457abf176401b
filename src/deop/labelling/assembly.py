"""From classified masks to one name per pixel, at the size of the photo.

The photo is processed in parts, so that neither names x pixels nor masks x pixels are in memory at once.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.maps import SemanticMap
from deop.labelling.masks import PhotoMasks, SemanticRule
from deop.labelling.small_regions import absorb_small_regions
from deop.labelling.windows import Strip, Window, mask_strips

MAX_VOTES = 1 << 17
"""Votes (names x pixels) computed at once; larger windows are split into quarters."""
SHORT_LIST = 512
"""Number of names that are compared first; the others only where one of them can win."""
FEW_NAMES = 4
"""Number of names up to which all are compared, without first excluding names that cannot win."""
SLACK = 1e-5
"""Relative difference of votes that rounding can cause; names within it are not excluded."""


def semantic(
    probabilities: np.ndarray,
    masks: PhotoMasks,
    canvas: Canvas,
    *,
    threshold: float | np.ndarray = 0.0,
    claim: float = 0.0,
    none_competes: bool = False,
    smallest_region: float = 0.0,
    everything_else: int = -1,
) -> SemanticMap:
    """Label each pixel with the name that its masks vote for (docs/method.md §6).

    The vote for name k at a pixel is S_k = sum_n P_n(k) M_n, with M_n the probability of mask n there. The result
    equals the original's, without computing names x pixels.

    Args:
        probabilities: (N, K + 1) float, softmax over the names and, last, "none of these".
        masks: N masks.
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
    votes = (probabilities if none_competes else probabilities[:, :-1]).astype(np.float32, copy=False)
    if not len(masks) or not names:
        empty = np.full(canvas.photo, everything_else, np.int32)
        return SemanticMap(empty, np.zeros(canvas.photo, np.float32))
    rule = SemanticRule(limits_of(threshold, names), claim, everything_else)
    labels, confidence = masks.semantic_at_once(votes, canvas, rule) or _in_windows(votes, masks, canvas, rule)
    return SemanticMap(absorb_small_regions(labels, smallest_region * labels.size), confidence)


def limits_of(threshold: float | np.ndarray, names: int) -> np.ndarray:
    """The minimum score of each name and, last, of "none of these", which has none: (K + 1,) float32."""
    limits = np.zeros(names + 1, np.float32)
    limits[:-1] = threshold
    return limits


def _in_windows(
    votes: np.ndarray, masks: PhotoMasks, canvas: Canvas, rule: SemanticRule
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (H, W) int32 and confidences (H, W) float32, one strip of windows at a time."""
    labels, confidence = np.empty(canvas.photo, np.int32), np.empty(canvas.photo, np.float32)
    names, lists = len(rule.limits) - 1, _NameLists(votes)
    for strip in mask_strips(masks, canvas):
        best, winner = confidence[strip.rows], labels[strip.rows]  # views
        coverage = np.empty_like(best)
        for window, (table, ids) in zip(strip.windows, lists.of_windows(strip), strict=True):
            part = slice(None), window.columns
            winner[part], best[part], coverage[part] = _label_window(table, ids, window)
        best /= np.maximum(coverage, 1)
        unsure = (coverage <= rule.claim) | (best < rule.limits[winner])
        if votes.shape[1] > names:
            winner[winner == names] = -1
        winner[unsure] = rule.everything_else
        np.clip(best, 0, 1, out=best)
    return labels, confidence


class _NameLists:
    """The names that can win a pixel of a window, by bounds of their votes there.

    Of many names, nearly all have a small share of every mask. Those with the largest shares are compared first. The
    others cannot win in a window where the largest share that any of them has of any mask, times the sum of the masks'
    maxima, is below what one of the first reaches everywhere.

    Args:
        votes: (N, K) float32, at least 0.
    """

    def __init__(self, votes: np.ndarray) -> None:
        self._votes = votes
        self._everything: np.ndarray | None = None
        count = votes.shape[1]
        self._ids, self._rest = np.arange(count, dtype=np.int32), -np.inf
        if count > SHORT_LIST:
            share = votes.max(0)
            order = np.argpartition(share, count - SHORT_LIST)
            self._rest = float(share[order[: count - SHORT_LIST]].max())
            self._ids = np.sort(order[count - SHORT_LIST :]).astype(np.int32)
            votes = votes[:, self._ids]
        self._table = np.ascontiguousarray(votes.T)

    def of_windows(self, strip: Strip) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each window the votes (k, N) of the k names that can win, at least one, and their indices, ascending."""
        possible, least = _within_bounds(self._table, strip.low, strip.high)
        others = self._rest * strip.high.sum(0) >= least if np.isfinite(self._rest) else np.zeros(len(least), bool)
        for index, window in enumerate(strip.windows):
            kept = np.flatnonzero(possible[:, index])
            if others[index]:
                yield self._of_all(window.low, window.high)
            else:
                yield self._table[kept], self._ids[kept]

    def _of_all(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same with all names, for bounds (N,) of the masks."""
        if self._everything is None:
            self._everything = np.ascontiguousarray(self._votes.T)
        kept = np.flatnonzero(_within_bounds(self._everything, low, high)[0])
        return self._everything[kept], kept.astype(np.int32)


def _within_bounds(votes: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, Any]:
    """The names whose votes, at the masks' maxima, reach what one of them has at the masks' minima.

    Args:
        votes: (k, N) float32, at least 0.
        low: (N,) or (N, windows) float32, the minima of the masks in one window or in several.
        high: the same of the maxima.

    Returns:
        Whether each name reaches it, (k,) or (k, windows), and what is to be reached, of each window.
    """
    reached = (votes @ low).max(0)
    least = reached - SLACK * (1 + reached)
    return votes @ high >= least, least


def _label_window(
    votes: np.ndarray, names: np.ndarray, window: Window
) -> tuple[np.ndarray | int, np.ndarray | float, np.ndarray | float]:
    """The name with the highest vote at each pixel of a window, its vote, and the sum of the masks.

    Names that cannot win any pixel are excluded first. With j the name whose minimum vote is the highest, name k can
    win only if sum_n (P_n(k) - P_n(j)) M_n reaches 0 at some pixel. An upper bound of this sum takes the positive terms
    at the maximum of M_n and the negative terms at its minimum. Votes are computed at the size of the network input,
    where there are fewer pixels, and resized to the photo, which gives the same, since both are linear.

    Args:
        votes: (k, N) float32, of the names that are not excluded yet, at least one.
        names: (k,) int32, their indices, ascending.
        window: the masks.

    Returns:
        Three arrays (h, w), or numbers if they are constant.
    """
    varying = window.varying
    constant = window.low.copy()
    constant[varying] = 0
    offset, votes, covered = votes @ constant, votes[:, varying], constant.sum()
    if not len(varying):
        winner = int(offset.argmax())
        return int(names[winner]), float(offset[winner]), float(covered)
    kept = _possible(votes, offset, window.low[varying], window.high[varying])
    rows, columns = (None if side is None else side.outer for side in (window.row, window.column))
    # The sum of the masks is one more row of the same product, in which every mask counts once.
    votes = np.concatenate([votes[kept], np.ones((1, len(varying)), np.float32)])
    offset = np.append(offset[kept], covered)
    return _vote(names[kept], votes, offset, window.at_input(varying), rows, columns)


def _possible(votes: np.ndarray, offset: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Indices of the names (k of K) that can win a pixel, for votes (K, n), offsets (K,) and bounds (n,) of masks."""
    if len(votes) <= FEW_NAMES:
        return np.arange(len(votes))
    least = votes @ low + offset
    j = least.argmax()
    lead = votes - votes[j]
    bound = np.maximum(lead, 0) @ high + np.minimum(lead, 0) @ low + (offset - offset[j])
    return np.flatnonzero(bound >= -SLACK * (1 + least[j]))


def _vote(
    names: np.ndarray,
    votes: np.ndarray,
    offset: np.ndarray,
    masks: np.ndarray,
    rows: np.ndarray | None,
    columns: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The name with the highest vote at each pixel; if there are too many names, of one quarter after the other.

    Args:
        names: (k,) int32, indices of the names.
        votes: (k + 1, n) float32, those of the names; the last row does not compete.
        offset: (k + 1,) float32, added to the votes.
        masks: (n, h', w') float32, at the size of the network input.
        rows: (h, h') float32, resizes rows to the photo; None: h = h'.
        columns: (w, w') float32, the same for columns.

    Returns:
        Three arrays (h, w): the name, int32; its vote, float32; and the sum of the last row of the votes, float32.
    """
    height = masks.shape[1] if rows is None else len(rows)
    width = masks.shape[2] if columns is None else len(columns)
    if height * width > 1 and len(names) * height * width > MAX_VOTES:
        winner, (best, last) = np.empty((height, width), np.int32), np.empty((2, height, width), np.float32)
        for part_rows, cell_rows, row_weights in _halves(height, rows):
            for part_columns, cell_columns, column_weights in _halves(width, columns):
                part = np.ascontiguousarray(masks[:, cell_rows, cell_columns])
                kept = _possible(votes[:-1], offset[:-1], part.min((1, 2)), part.max((1, 2)))
                chosen, place = np.append(kept, len(names)), (part_rows, part_columns)
                winner[place], best[place], last[place] = _vote(
                    names[kept], votes[chosen], offset[chosen], part, row_weights, column_weights
                )
        return winner, best, last
    maps = votes @ masks.reshape(len(masks), -1)
    maps += offset[:, None]
    if len(names) > 1 and (rows is not None or columns is not None):
        # A name that another one exceeds in all cells also loses at every pixel between them.
        named = maps[:-1]
        kept = np.flatnonzero((named - named[named.sum(1).argmax()]).max(1) >= -SLACK * (1 + named.max()))
        names, maps = names[kept], maps[np.append(kept, len(named))]
    maps = maps.reshape(-1, *masks.shape[1:])
    maps = maps if rows is None else rows @ maps
    maps = maps if columns is None else maps @ np.ascontiguousarray(columns.T)
    best, index = strongest(maps[:-1])
    return names[index], best, maps[-1]


def _halves(length: int, weights: np.ndarray | None) -> Iterator[tuple[slice, slice, np.ndarray | None]]:
    """Divide the pixels of one side in two: the pixels, the cells that they depend on, and the weights of these."""
    for pixels in (slice(length // 2), slice(length // 2, length)):
        if pixels.stop == (pixels.start or 0):
            continue
        if weights is None:
            yield pixels, pixels, None
        else:
            used = np.flatnonzero(weights[pixels].any(0))
            cells = slice(int(used[0]), int(used[-1]) + 1)
            yield pixels, cells, weights[pixels, cells]


def strongest(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of n maps (n, h, w) at each pixel, (h, w), and the index of the first map that has it, (h, w) int64.

    Several times as fast as ``argmax`` over the first axis, which is not vectorised.
    """
    if len(maps) == 1:
        return maps[0], np.zeros(maps.shape[1:], np.int64)
    top = maps.max(0)
    if len(maps) == 2:
        return top, (maps[0] < top).astype(np.int64)
    if len(maps) > 255:
        return top, maps.argmax(0)
    ranks = np.arange(len(maps), 0, -1, dtype=np.uint8)[:, None, None]
    return top, len(maps) - ((maps == top).view(np.uint8) * ranks).max(0).astype(np.int64)

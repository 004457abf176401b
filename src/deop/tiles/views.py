"""Views of an image, such as its tiles, and the label map of their blended class scores.

A view keeps what the networks computed for it: masks at their own small size, and the probabilities of the names for
each mask. Scores of names x pixels exist only for a small window of the image at a time, so that memory depends neither
on the size of the image nor on the number of names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.assembly import FEW_NAMES, SLACK, strongest
from deop.labelling.masks import PhotoMasks, SemanticRule
from deop.labelling.windows import MAX_SIDE, MIN_SIDE, WINDOW, Window, window_at
from deop.surface import ModelSurface
from deop.text.vocabulary import Vocabulary

MAX_SCORES = 1 << 22
"""Scores (names x pixels) of a window; with many names, windows become smaller."""


@dataclass(frozen=True)
class View:
    """What the networks computed for one view.

    Attributes:
        votes: (N, K) float32, probabilities of the names for each mask; (N, K + 1) if "none of these" competes.
        masks: N masks.
        canvas: position of the view in the masks; its ``photo`` is the size of the view in pixels of the image.
    """

    votes: np.ndarray
    masks: PhotoMasks
    canvas: Canvas

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return int(self.votes.nbytes + self.masks.logits.nbytes)


class Placed(NamedTuple):
    """A view in a part of the image.

    Attributes:
        view: the view.
        top: first row of the view in the image.
        left: its first column.
        rows: (h,) float32, its weight in each row of the part.
        columns: (w,) float32, its weight in each column; the weight of a pixel is the product of both.
    """

    view: View
    top: int
    left: int
    rows: np.ndarray
    columns: np.ndarray


def encode_views(
    model: ModelSurface, photos: Sequence[np.ndarray], vocabulary: Vocabulary, options: Mapping[str, Any]
) -> list[View]:
    """Encode views, of one size or several.

    Args:
        model: the model.
        photos: (h, w, 3) uint8 each.
        vocabulary: the K names. Of a built-in vocabulary, a view keeps the names that it shows.
        options: of ``ModelSurface.encode``.
    """
    views = []
    for encoded in model.encode(photos, **options):
        scores, masks = model.scored_masks(encoded, vocabulary)
        masks = PhotoMasks(masks.logits, masks.exact)
        votes = scores if vocabulary.background else scores[:, :-1]
        views.append(View(np.ascontiguousarray(votes), masks, encoded.canvas))
    return views


def window_side(names: int, canvas: Canvas) -> int:
    """Side of the windows in which ``label_part`` should be called, in pixels of the image.

    Args:
        names: number of names.
        canvas: of a tile; windows have about ``WINDOW`` pixels of its network input.
    """
    scale = min(photo / resized for photo, resized in zip(canvas.photo, canvas.resized, strict=True))
    side = min(MAX_SIDE, round(WINDOW * scale), int((MAX_SCORES / max(1, names)) ** 0.5))
    return max(MIN_SIDE, side)


def label_part(
    placed: Sequence[Placed], top: int, left: int, shape: tuple[int, int], rule: SemanticRule
) -> tuple[np.ndarray, np.ndarray]:
    """Label a small part of the image with the name whose blended score is the highest.

    The score of name k in view v is s_kv = S_k / max(1, sum_n M_n) with S_k = sum_n P_n(k) M_n, as in
    ``labelling.assembly.semantic``, and the blended score sum_v w_v s_kv, for the weights w_v of the views at the
    pixel. With a single view the answer is that of ``semantic``.

    Args:
        placed: the views that cover the part, at least one; at each pixel their weights add up to 1.
        top: first row of the part in the image.
        left: its first column.
        shape: its size (h, w).
        rule: which pixels get no name, by blended scores and blended sums of masks.

    Returns:
        Labels (h, w) int32, -1 for no name; and the blended scores of these names, (h, w) float32 in [0, 1].
    """
    names = len(rule.limits) - 1
    parts = [_Part(one, top, left, shape) for one in placed if len(one.view.masks) and names]
    if not parts:
        return np.full(shape, rule.everything_else, np.int32), np.zeros(shape, np.float32)
    kept = _possible(parts)
    maps = [part.scores_at_input(kept) for part in parts]
    if len(kept) > 1:
        kept, maps = _without_losers(kept, maps, parts)
    total = np.zeros((len(kept), *shape), np.float32)
    coverage = np.zeros(shape, np.float32)
    for part, scores in zip(parts, maps, strict=True):
        covered, weight = part.coverage(), part.weight
        coverage += weight * covered
        total += part.window.enlarge(scores) * (weight / np.maximum(covered, 1))
    best, index = strongest(total)
    winner = kept[index].astype(np.int32)
    unsure = (coverage <= rule.claim) | (best < rule.limits[winner])
    winner[winner == names] = -1  # "none of these"
    winner[unsure] = rule.everything_else
    return winner, np.clip(best, 0, 1)


class _Part:
    """A view in a part of the image, with its masks resized to the network input."""

    def __init__(self, placed: Placed, top: int, left: int, shape: tuple[int, int]) -> None:
        view = placed.view
        rows, columns = (
            slice(first - start, first - start + size)
            for first, start, size in zip((top, left), (placed.top, placed.left), shape, strict=True)
        )
        # A tile may end inside the part: its weight beyond is 0, and the part of it that exists is enough.
        height, width = view.canvas.photo
        self._inside = (
            slice(max(0, -rows.start), min(shape[0], height - rows.start)),
            slice(max(0, -columns.start), min(shape[1], width - columns.start)),
        )
        self._shape = shape
        self.votes = view.votes.T  # (K, N)
        self.weight = placed.rows[:, None] * placed.columns
        self.window = _Extended(
            window_at(
                view.masks,
                view.canvas,
                slice(rows.start + self._inside[0].start, rows.start + self._inside[0].stop),
                slice(columns.start + self._inside[1].start, columns.start + self._inside[1].stop),
            ),
            self._inside,
            shape,
        )
        window = self.window.window
        self.low, self.high = window.low, window.high
        self._varying = window.varying
        self._constant = np.where(self.low < self.high, 0, self.low)
        self._values = window.at_input(self._varying)

    def bounds(self, names: np.ndarray, rival: int) -> np.ndarray:
        """Upper bounds of S_k - S_j for names k (n,) and one name j."""
        lead = self.votes[names] - self.votes[rival]
        return np.asarray(np.maximum(lead, 0) @ self.high + np.minimum(lead, 0) @ self.low)

    def scores_at_input(self, names: np.ndarray) -> np.ndarray:
        """S_k of some names (n,) at the size of the network input, (n, h', w')."""
        votes = self.votes[names]
        maps = np.tensordot(votes[:, self._varying], self._values, 1)  # also without any that varies
        maps += (votes @ self._constant)[:, None, None]
        return np.asarray(maps)

    def coverage(self) -> np.ndarray:
        """The sum of the masks at each pixel, (h, w)."""
        return np.asarray(self.window.enlarge(self._values.sum(0)[None])[0] + self._constant.sum())


class _Extended(NamedTuple):
    """A window of a view in a larger part, in which its values are 0 outside the window."""

    window: Window
    inside: tuple[slice, slice]
    shape: tuple[int, int]

    def enlarge(self, maps: np.ndarray) -> np.ndarray:
        """``Window.enlarge``, filled up to the size of the part."""
        enlarged = self.window.enlarge(maps)
        if enlarged.shape[1:] == self.shape:
            return enlarged
        result = np.zeros((len(maps), *self.shape), np.float32)
        result[:, self.inside[0], self.inside[1]] = enlarged
        return result


def _possible(parts: Sequence[_Part]) -> np.ndarray:
    """The names that can win a pixel: all except those that one name surely exceeds in every view."""
    count = len(parts[0].votes)
    names = np.arange(count)
    if count <= FEW_NAMES:
        return names
    least = sum(float(part.weight.mean()) * (part.votes @ part.low) for part in parts)
    rival = int(np.argmax(least))
    possible = np.zeros(count, bool)
    for part in parts:
        scale = 1 + float(part.votes[rival] @ part.high)
        possible |= part.bounds(names, rival) >= -SLACK * scale
    possible[rival] = True
    return np.flatnonzero(possible)


def _without_losers(
    names: np.ndarray, maps: list[np.ndarray], parts: Sequence[_Part]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Drop the names that cannot win a pixel, by the scores at the network input.

    The score at a pixel is a sum over cells and views, with the same non-negative weights for all names. So a name that
    is nowhere above the mean of the names that win a cell is nowhere above the best of them, and loses at every pixel.
    """
    best = np.concatenate([scores.argmax(0).ravel() for scores in maps])
    winners = np.unique(best)
    possible = np.zeros(len(names), bool)
    for scores in maps:
        possible |= (scores > (1 - SLACK) * scores[winners].mean(0)).any((1, 2))
    possible[winners] = True
    kept = np.flatnonzero(possible)
    return names[kept], [scores[kept] for scores in maps]

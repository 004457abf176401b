"""From classified masks to segments, at the size of the photo: panoptic, instances.

The photo is processed in parts, so that masks x pixels are never in memory at once.
"""

from collections.abc import Iterator

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.assembly import SLACK, limits_of, strongest
from deop.labelling.maps import PanopticMap, Piece
from deop.labelling.masks import PhotoMasks
from deop.labelling.small_regions import absorb_small_regions
from deop.labelling.windows import Window, mask_strips


def panoptic(
    probabilities: np.ndarray,
    masks: PhotoMasks,
    canvas: Canvas,
    things: np.ndarray,
    *,
    threshold: float | np.ndarray = 0.0,
    overlap: float = 0.8,
    smallest_region: float = 0.0,
) -> PanopticMap:
    """Assign each pixel to one segment: one per thing, and one per kind of stuff (MaskFormer's panoptic inference).

    Each proposal gets its most probable name, with that probability as score; it is dropped if this is "none of these"
    or the score is below ``threshold``. A pixel belongs to the proposal with the highest score x mask probability, if
    that mask covers it. A proposal that keeps less than ``overlap`` of its area is dropped.

    Args:
        probabilities: (N, K + 1), as in ``semantic``.
        masks: N masks.
        canvas: position of the photo in the masks.
        things: (K,) bool, True for names of countable things.
        threshold: minimum score, in [0, 1]; one number, or (K,) float, one for each name.
        overlap: in [0, 1].
        smallest_region: as in ``semantic``, for regions of one segment; segments may lose all pixels.

    Returns:
        The segments at the size of the photo.
    """
    segments = np.full(canvas.photo, -1, np.int32)
    kept, scores, classes = _confident(probabilities, limits_of(threshold, probabilities.shape[1] - 1))
    if not len(kept):
        return PanopticMap(segments, [])
    covered = np.zeros(len(kept), np.int64)  # pixels of each mask
    for strip in mask_strips(masks.keep(kept), canvas):
        for window in strip.windows:
            owner, pixels = _owners(scores, window)
            segments[window.rows, window.columns] = owner
            covered += pixels
    won = np.bincount(segments[segments >= 0], minlength=len(kept))

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


def _owners(scores: np.ndarray, window: Window) -> tuple[np.ndarray | int, np.ndarray]:
    """For each pixel of a window the mask with the highest score x probability, if that covers it, or -1.

    Args:
        scores: (N,) float32.
        window: N masks.

    Returns:
        Indices (h, w), or one number if they are constant; and the number of pixels that each mask covers, (N,) int64.
    """
    low, high = window.low, window.high
    covered = np.where(low >= 0.5, window.shape[0] * window.shape[1], 0)
    partly = (low < 0.5) & (high >= 0.5)
    least = (scores * low).max()
    index = np.flatnonzero(partly | (scores * high >= least * (1 - SLACK)))
    if (low[index] == high[index]).all():
        winner = index[(scores[index] * low[index]).argmax()]
        return int(winner) if low[winner] >= 0.5 else -1, covered
    values = window.enlarge(window.at_input(index))
    covers = values >= 0.5
    counted = partly[index]
    covered[index[counted]] = np.count_nonzero(covers[counted], (1, 2))
    winner = strongest(scores[index, None, None] * values)[1]
    return np.where(np.take_along_axis(covers, winner[None], 0)[0], index[winner], -1), covered


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
    probabilities: np.ndarray,
    masks: PhotoMasks,
    canvas: Canvas,
    things: np.ndarray,
    *,
    threshold: float | np.ndarray = 0.0,
) -> Iterator[tuple[Piece, np.ndarray]]:
    """All things with their masks, highest score first; masks may overlap.

    The score is the probability of the best name times the mean mask probability inside the mask.

    Args:
        probabilities: (N, K + 1), as in ``semantic``.
        masks: N masks.
        canvas: position of the photo in the masks.
        things: (K,) bool, True for names of countable things; proposals of other names are dropped.
        threshold: minimum score, in [0, 1]; one number, or (K,) float, one for each name.

    Yields:
        A piece and its mask (H, W) bool.
    """
    limits = limits_of(threshold, probabilities.shape[1] - 1)
    kept, scores, classes = _confident(probabilities, limits)
    is_thing = things[classes]
    kept, scores, classes = kept[is_thing], scores[is_thing], classes[is_thing]
    if not len(kept):
        return
    masks = masks.keep(kept)
    inside, area = np.zeros(len(kept)), np.zeros(len(kept), np.int64)
    for strip in mask_strips(masks, canvas):
        for window in strip.windows:
            low, pixels = window.low, window.shape[0] * window.shape[1]
            whole = low >= 0.5
            area += np.where(whole, pixels, 0)
            inside += np.where(whole & (low == window.high), low * np.float64(pixels), 0)
            index = np.flatnonzero((low < window.high) & (window.high >= 0.5))
            values = window.enlarge(window.at_input(index))
            covers = values >= 0.5
            area[index] += np.where(whole[index], 0, np.count_nonzero(covers, (1, 2)))
            inside[index] += (values * covers).sum((1, 2))
    scores = (scores * inside / np.maximum(area, 1)).astype(np.float32)
    for index in np.argsort(-scores, kind="stable").tolist():
        if area[index] and scores[index] >= limits[classes[index]]:
            mask = _binary(masks.keep(np.array([index])), canvas)
            yield Piece(int(classes[index]), float(scores[index]), True), mask


def _binary(masks: PhotoMasks, canvas: Canvas) -> np.ndarray:
    """Where the probability of a single mask is at least 0.5, (H, W) bool."""
    if masks.exact is not None:
        return masks.exact[0].copy()
    result = np.empty(canvas.photo, bool)
    for strip in mask_strips(masks, canvas):
        for window in strip.windows:
            part = result[window.rows, window.columns]
            if window.high[0] < 0.5 or window.low[0] >= 0.5:
                part[:] = window.low[0] >= 0.5
            else:
                part[:] = window.enlarge(window.at_input(np.array([0])))[0] >= 0.5
    return result


def names_of_masks(probabilities: np.ndarray, masks: PhotoMasks, *, threshold: float | np.ndarray = 0.0) -> np.ndarray:
    """The names that are the best name of a mask; a pixel can also have a name that is second in all of its masks.

    Args:
        probabilities: (N, K + 1), as in ``semantic``.
        masks: N masks; those without a cell of probability above 0.5 do not count.
        threshold: minimum score, in [0, 1]; one number, or (K,) float, one for each name.

    Returns:
        (K,) bool.
    """
    names = probabilities.shape[1] - 1
    found = np.zeros(names, bool)
    kept, _, classes = _confident(probabilities, limits_of(threshold, names))
    if len(kept):
        found[classes[masks.visible()[kept]]] = True
    return found


def _confident(probabilities: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, score (float32) and name of the proposals whose best column is a name with at least its minimum score.

    Args:
        probabilities: (N, K + 1), the last column "none of these".
        limits: (K + 1,) minimum scores.
    """
    if probabilities.shape[0] == 0 or probabilities.shape[1] == 1:
        empty = np.zeros(0, np.int64)
        return empty, empty.astype(np.float32), empty
    classes = probabilities.argmax(1)
    scores = np.take_along_axis(probabilities, classes[:, None], 1)[:, 0].astype(np.float32)
    kept = np.flatnonzero((classes < probabilities.shape[1] - 1) & (scores >= limits[classes]))
    return kept, scores[kept], classes[kept]

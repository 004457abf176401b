"""How good masks are before any name: average recall, and how well the best mask fits each true segment."""

import numpy as np
import torch

from deop.evaluation.metrics import ratio
from deop.evaluation.truth import TrueSegments
from deop.images.canvas import Canvas
from deop.proposals.types import Proposals
from deop.regions.windows import mask_blocks

THRESHOLDS = np.arange(50, 100, 5) / 100
"""IoU from which a segment counts as found: 0.5, 0.55, ... 0.95, as COCO has it."""

AT = (1, 10, 100)
"""Numbers of proposals that average recall is given for."""

WIDTH = len(AT) + 5
"""Numbers that ``count_found`` gives for a photo."""


def mask_fit(proposals: Proposals, canvas: Canvas, truth: TrueSegments) -> tuple[np.ndarray, np.ndarray]:
    """IoU of each proposal with each true segment, surest proposals first.

    A mask is where its probability reaches 0.5; proposals have no score, so that the surest is the one with the highest
    mean probability inside its mask, of equal ones the largest. Empty masks are left out. Pixels of which nothing is
    known, and crowds, are nobody's.

    Args:
        proposals: of the photo.
        canvas: where the photo lies in the masks.
        truth: of the photo.

    Returns:
        (N', T') float64, and (T',) the area of each true segment in pixels, crowds left out of both.
    """
    kept = np.flatnonzero(~truth.crowd)
    number = np.full(len(truth) + 1, -1, np.int64)  # the last entry serves -1
    number[kept] = np.arange(len(kept))
    segments = number[truth.segment_map]
    area = np.bincount(segments[segments >= 0], minlength=len(kept)).astype(np.float64)
    shared = np.zeros((len(proposals), len(kept)))
    cells, sure, inside = (np.zeros(len(proposals)) for _ in range(3))
    for first, last, masks in mask_blocks(proposals, canvas, extra=len(kept)):
        covers = masks >= 0.5
        sure += (masks * covers).sum((1, 2)).cpu().double().numpy()
        cells += covers.sum((1, 2)).cpu().numpy()
        own = torch.from_numpy(segments[first:last].ravel()).to(masks.device)
        known = own >= 0
        flat = covers.flatten(1)[:, known].float()
        inside += flat.sum(1).cpu().double().numpy()
        hot = torch.nn.functional.one_hot(own[known], len(kept)) if len(kept) else own[known].new_zeros(len(flat.T), 0)
        shared += (flat @ hot.float()).cpu().double().numpy()  # whole numbers below 2^24: exact
    iou = ratio(shared, inside[:, None] + area - shared)
    order = np.lexsort((-cells, -ratio(sure, cells).round(6)))
    return iou[order[cells[order] > 0]], area


def count_found(iou: np.ndarray, area: np.ndarray) -> np.ndarray:
    """What the scores need of one photo, from ``mask_fit``.

    Returns:
        (WIDTH,) float64: segments found by the first 1, 10 and 100 proposals, averaged over ``THRESHOLDS``; the best
        IoU of each segment, added up, and times area; segments; their area; proposals.
    """
    found = [(_best(iou[:count])[:, None] >= THRESHOLDS).mean(1).sum() for count in AT]
    best = _best(iou)
    return np.array([*found, best.sum(), (best * area).sum(), len(area), area.sum(), len(iou)])


def _best(iou: np.ndarray) -> np.ndarray:
    return iou.max(0) if len(iou) else np.zeros(iou.shape[1])


def proposal_scores(sums: np.ndarray, photos: int) -> dict[str, np.ndarray]:
    """Scores of a data set, from sums (..., WIDTH) over its photos; each (...), NaN without any segments.

    Segments of all photos count alike. No proposal can serve two: true segments share no pixel, so that at most one of
    them has an IoU above 0.5 with it.
    """
    *found, best, by_area, segments, area, proposals = np.moveaxis(sums, -1, 0)
    scores = {f"average_recall_{count}": ratio(part, segments) for count, part in zip(AT, found, strict=True)}
    return scores | {
        "mean_best_iou": ratio(best, segments),
        "mean_best_iou_by_area": ratio(by_area, area),
        "segments": segments,
        "proposals_per_image": ratio(proposals, photos),
    }

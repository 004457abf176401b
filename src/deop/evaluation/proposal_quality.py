"""Quality of masks without names: average recall, and the IoU of each true segment with its best mask."""

import numpy as np

from deop.evaluation.metrics import ratio
from deop.evaluation.truth import TrueSegments
from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks
from deop.labelling.windows import Window, mask_strips

THRESHOLDS = np.arange(50, 100, 5) / 100
"""IoU thresholds at which a segment counts as found: 0.5, 0.55, ... 0.95, as in COCO."""

AT = (1, 10, 100)
"""Numbers of proposals at which average recall is computed."""

WIDTH = len(AT) + 5
"""Number of values that ``count_found`` returns for a photo."""


def mask_fit(masks: PhotoMasks, canvas: Canvas, truth: TrueSegments) -> tuple[np.ndarray, np.ndarray]:
    """IoU of each mask with each true segment, most confident masks first.

    A mask consists of the pixels with a probability of at least 0.5. Masks have no score; their confidence is the mean
    probability inside the mask, and the larger of two equally confident masks comes first. Empty masks are left out.
    Unknown pixels and crowds belong to no segment and do not count.

    Args:
        masks: N masks of the photo.
        canvas: where the photo lies in the masks.
        truth: true segments of the photo.

    Returns:
        IoU (N', T') float64 of the masks that are not empty with the segments that are no crowds, and the area (T',) of
        these segments in pixels.
    """
    kept = np.flatnonzero(~truth.crowd)
    number = np.full(len(truth) + 1, -1, np.int64)  # the last entry is for index -1
    number[kept] = np.arange(len(kept))
    segments = number[truth.segment_map]
    area = np.bincount(segments[segments >= 0], minlength=len(kept)).astype(np.float64)
    shared = np.zeros((len(masks), len(kept) + 1))  # the last column: pixels of no segment
    confidence = np.zeros(len(masks))
    for strip in mask_strips(masks, canvas) if len(masks) else ():
        for window in strip.windows:
            present, labels = np.unique(segments[window.rows, window.columns], return_inverse=True)
            shared[:, present] += _pixels_by_label(window, labels.ravel(), confidence)
    pixels, shared = shared.sum(1), shared[:, :-1]
    iou = ratio(shared, shared.sum(1, keepdims=True) + area - shared)
    order = np.lexsort((-pixels, -ratio(confidence, pixels).round(6)))
    return iou[order[pixels[order] > 0]], area


def _pixels_by_label(window: Window, labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Number of pixels of each label that each mask covers in a window.

    Args:
        window: N masks.
        labels: (h * w,) integers, 0..L - 1, of which each occurs.
        confidence: (N,) float64; the sum of the probabilities inside each mask is added to it.

    Returns:
        (N, L) float64.
    """
    sizes = np.bincount(labels)
    whole = window.low >= 0.5
    pixels = np.where(whole[:, None], sizes, 0.0)
    confidence += np.where(whole & (window.low == window.high), window.low * np.float64(labels.size), 0)
    varying = np.flatnonzero((window.low < window.high) & (window.high >= 0.5))
    if len(varying):
        values = window.enlarge(window.at_input(varying)).reshape(len(varying), -1)
        covers = values >= 0.5
        confidence[varying] += (values * covers).sum(1, dtype=np.float64)
        one_hot = (labels[:, None] == np.arange(len(sizes))).astype(np.float32)
        pixels[varying] = covers.astype(np.float32) @ one_hot  # whole numbers below 2^24: exact
    return pixels


def count_found(iou: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The counts of one photo that ``proposal_scores`` needs.

    Args:
        iou: (N', T'), from ``mask_fit``.
        area: (T',), from ``mask_fit``.

    Returns:
        (WIDTH,) float64: numbers of segments found by the first 1, 10 and 100 proposals, averaged over ``THRESHOLDS``;
        sum of the best IoU of each segment; the same weighted by area; number of segments; their area; number of
        proposals.
    """
    recalled = [(_best(iou[:count])[:, None] >= THRESHOLDS).mean(1).sum() for count in AT]
    best = _best(iou)
    return np.array([*recalled, best.sum(), (best * area).sum(), len(area), area.sum(), len(iou)])


def _best(iou: np.ndarray) -> np.ndarray:
    return iou.max(0) if len(iou) else np.zeros(iou.shape[1])


def proposal_scores(sums: np.ndarray, photos: int) -> dict[str, np.ndarray]:
    """The scores of a data set.

    All segments have equal weight, whatever their photo. A proposal can find only one segment: true segments do not
    overlap, so at most one of them has an IoU above 0.5 with it.

    Args:
        sums: (..., WIDTH), sums over the photos of what ``count_found`` returns.
        photos: number of photos.

    Returns:
        Scores (...) by name, NaN without any segments.
    """
    *recalled, best, by_area, segments, area, proposals = np.moveaxis(sums, -1, 0)
    scores = {f"average_recall_{count}": ratio(part, segments) for count, part in zip(AT, recalled, strict=True)}
    return scores | {
        "mean_best_iou": ratio(best, segments),
        "mean_best_iou_by_area": ratio(by_area, area),
        "segments": segments,
        "proposals_per_image": ratio(proposals, photos),
    }

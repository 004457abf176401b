"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), computed like COCO's panopticapi."""

import numpy as np

from deop.evaluation.metrics import mean, ratio
from deop.evaluation.truth import TrueSegments


def count_matches(truth: TrueSegments, segment_map: np.ndarray, classes: np.ndarray, names: int) -> np.ndarray:
    """Match the predicted and true segments of one photo.

    A predicted and a true segment of the same class match if their IoU is above 0.5, where unknown pixels do not count
    in the union. Crowds match nothing. A predicted segment without a match is an error, unless more than half of it is
    unknown or lies in a crowd of its class.

    Args:
        truth: T true segments.
        segment_map: (H, W) integers, index of the predicted segment, -1 for none.
        classes: (S,) class of each predicted segment.
        names: K, the number of classes.

    Returns:
        (4, K) float64: the sum of the IoU of the matches, the number of matches, of predicted segments without a match,
        and of true segments without a match.
    """
    classes = np.asarray(classes, np.int64)
    rows, columns = len(truth) + 1, len(classes) + 1  # the last row and column: no segment
    pixels = np.where(truth.segment_map < 0, rows - 1, truth.segment_map).astype(np.int64) * columns
    pixels += np.where(segment_map < 0, columns - 1, segment_map)
    shared = np.bincount(pixels.ravel(), minlength=rows * columns).reshape(rows, columns)
    true_area, predicted_area = shared[:-1].sum(1), shared[:, :-1].sum(0)
    unknown = shared[-1, :-1]
    overlap = shared[:-1, :-1]
    iou = ratio(overlap, true_area[:, None] + predicted_area - unknown - overlap)
    same = truth.classes[:, None] == classes
    matched = same & ~truth.crowd[:, None] & (iou > 0.5)
    crowds = (overlap * (same & truth.crowd[:, None])).sum(0)
    wrong = ~matched.any(0) & (predicted_area > 0) & ~(ratio(unknown + crowds, predicted_area) > 0.5)
    missed = ~matched.any(1) & ~truth.crowd & (true_area > 0)
    matches = np.nonzero(matched)
    matched_classes = truth.classes[matches[0]]
    return np.stack(
        [
            np.bincount(matched_classes, iou[matches], names),
            np.bincount(matched_classes, minlength=names),
            np.bincount(classes[wrong], minlength=names),
            np.bincount(truth.classes[missed], minlength=names),
        ]
    )


def panoptic_scores(counts: np.ndarray, things: np.ndarray) -> dict[str, np.ndarray]:
    """Panoptic, segmentation and recognition quality.

    PQ = sum of IoU / (TP + FP / 2 + FN / 2), SQ = sum of IoU / TP, RQ = TP / (TP + FP / 2 + FN / 2). Each is the mean
    over the classes with true or predicted segments, so PQ is not SQ x RQ. SQ is 0 for a class without a match.

    Args:
        counts: (..., 4, K), sums over the photos of what ``count_matches`` returns.
        things: (K,) bool, which classes are countable things.

    Returns:
        ``pq``, ``sq``, ``rq``, and each with ``_things`` and ``_stuff``: (...) float, NaN if there is no such class.
    """
    total, hit, wrong, missed = np.moveaxis(counts, -2, 0)
    size = hit + wrong / 2 + missed / 2
    quality = {"pq": ratio(total, size), "sq": ratio(total, hit), "rq": ratio(hit, size)}
    quality["sq"] = np.where((size > 0) & (hit == 0), 0.0, quality["sq"])
    every = np.ones(len(things), bool)
    return {
        key + ending: mean(values[..., part])
        for ending, part in (("", every), ("_things", things), ("_stuff", ~things))
        for key, values in quality.items()
    }

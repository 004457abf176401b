"""Average precision of things in instance mode, computed like COCO's pycocotools."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deop.evaluation.bootstrap import Tally
from deop.evaluation.metrics import mean, ratio
from deop.evaluation.proposal_quality import THRESHOLDS
from deop.evaluation.truth import TrueSegments
from deop.results.segments import Segment

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision is averaged."""

MAX_DETECTIONS = 100
"""Number of detections of each class and photo that count, those with the highest scores."""


@dataclass(frozen=True)
class Detections:
    """The detections of one photo, matched with its true things.

    Attributes:
        classes: (D,) class of each detection.
        scores: (D,) score of each detection, in descending order within a class.
        hit: (D, T) bool, whether it matches a true thing, at each of T thresholds of the IoU.
        ignored: (D, T) bool, whether it matches a crowd, so that it counts neither as right nor as wrong.
        truths: (K,) number of true things of each class, without crowds.
    """

    classes: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    truths: np.ndarray


def match_detections(
    truth: TrueSegments, segments: Sequence[Segment], classes: Sequence[int] | np.ndarray, things: np.ndarray
) -> Detections:
    """Match the detections of one photo with its true things.

    The detections of a class are visited by descending score. Each takes the true thing of the class that it fits best
    and that no other has taken, if their IoU reaches the threshold; otherwise it may match a crowd, which any number of
    detections can do. The IoU with a crowd is the share of the detection that lies in it. As in COCO, unknown pixels
    are pixels outside of all true things.

    Args:
        truth: true segments; those of stuff do not count.
        segments: S detections, which may overlap.
        classes: (S,) class of each detection.
        things: (K,) bool, which classes are countable things.
    """
    classes = np.asarray(classes, np.int64)
    true_area = np.bincount(truth.segment_map[truth.segment_map >= 0], minlength=len(truth))
    present = (true_area > 0) & things[truth.classes]
    order: list[int] = []
    hits, ignored = [], []
    scores = np.array([segment.score for segment in segments], np.float64)
    for label in np.unique(classes).tolist():
        members = np.flatnonzero(classes == label)
        members = members[np.argsort(-scores[members], kind="stable")][:MAX_DETECTIONS].tolist()
        targets = np.flatnonzero(present & (truth.classes == label))
        targets = targets[np.argsort(truth.crowd[targets], kind="stable")]  # crowds last
        shared = np.stack([_shared(segments[index], truth) for index in members])[:, targets]
        area = np.array([[segments[index].area] for index in members])
        crowd = truth.crowd[targets]
        iou = ratio(shared, np.where(crowd, area, area + true_area[targets] - shared))
        for limit in THRESHOLDS:
            matched = _match(iou, crowd, min(float(limit), 1 - 1e-10))
            found = np.append(~crowd, False)[matched], np.append(crowd, False)[matched]  # the last: no match
            hits.append(found[0])
            ignored.append(found[1])
        order += members
    width = len(THRESHOLDS)

    def by_detection(parts: list[np.ndarray]) -> np.ndarray:
        groups = [np.stack(parts[first : first + width], 1) for first in range(0, len(parts), width)]
        return np.concatenate(groups) if groups else np.zeros((0, width), bool)

    counted = present & ~truth.crowd
    return Detections(
        classes[order],
        scores[order],
        by_detection(hits),
        by_detection(ignored),
        np.bincount(truth.classes[counted], minlength=len(things)),
    )


def _shared(segment: Segment, truth: TrueSegments) -> np.ndarray:
    """Number of pixels that a detection shares with each true segment, (T,)."""
    x0, y0, x1, y1 = segment.box
    inside = truth.segment_map[y0:y1, x0:x1][segment.crop]
    return np.bincount(inside[inside >= 0], minlength=len(truth))


def _match(iou: np.ndarray, crowd: np.ndarray, limit: float) -> np.ndarray:
    """The match of each detection among the true things, or -1, from the IoU (D, G) with crowds last."""
    matched = np.full(len(iou), -1)
    free = np.ones(len(crowd), bool)
    for detection, row in enumerate(iou):
        for kind in (~crowd, crowd):
            candidates = np.flatnonzero(kind & free & (row >= limit))
            if len(candidates):
                best = candidates[row[candidates] == row[candidates].max()][-1]  # of equals the last, as in pycocotools
                matched[detection] = best
                free[best] = crowd[best]
                break
    return matched


class DetectionTally(Tally):
    """The matched detections of every photo. Their average precision scores a data set."""

    def __init__(self) -> None:
        self._photos: list[Detections] = []

    def add(self, detections: Detections) -> None:
        """Add a photo."""
        self._photos.append(detections)

    def __len__(self) -> int:
        return len(self._photos)

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The average precision over resamples of the photos.

        Args:
            weights: (R, photos), how often each photo counts.

        Returns:
            (R, T), the mean over the classes with true things at each threshold of ``THRESHOLDS``; NaN without any.
        """
        width = len(THRESHOLDS)
        if not self._photos:
            return np.full((len(weights), width), np.nan)
        classes = np.concatenate([photo.classes for photo in self._photos])
        scores = np.concatenate([photo.scores for photo in self._photos])
        hit = np.concatenate([photo.hit for photo in self._photos])
        ignored = np.concatenate([photo.ignored for photo in self._photos])
        photo_of = np.repeat(np.arange(len(self)), [len(photo.classes) for photo in self._photos])
        truths = weights @ np.stack([photo.truths for photo in self._photos])  # (R, K)
        precision = np.full((len(weights), truths.shape[1], width), np.nan)
        for label in np.flatnonzero(truths.any(0)).tolist():
            members = np.flatnonzero(classes == label)
            members = members[np.argsort(-scores[members], kind="stable")]
            weight = weights[:, photo_of[members], None]
            right = np.cumsum(weight * hit[members], 1)
            wrong = np.cumsum(weight * ~(hit | ignored)[members], 1)
            precision[:, label] = _average_precision(right, wrong, truths[:, label, None, None])
        return mean(precision.swapaxes(1, 2))


def _average_precision(right: np.ndarray, wrong: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Precision, averaged over ``RECALLS``, of the best precision at that recall or a higher one.

    Args:
        right: (R, D, T), number of right detections among the first ones.
        wrong: (R, D, T), number of wrong ones.
        truths: (R, 1, 1), number of true things.

    Returns:
        (R, T), NaN where there is no true thing.
    """
    recall = ratio(right, truths)
    precision = np.nan_to_num(ratio(right, right + wrong))
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    reached = np.searchsorted(RECALLS, np.nan_to_num(recall), "right")  # number of recalls up to this one
    steps = np.diff(reached, axis=1, prepend=0)
    return np.where(truths[:, 0] > 0, (steps * best).sum(1) / len(RECALLS), np.nan)


def precision_scores(by_threshold: np.ndarray) -> dict[str, np.ndarray]:
    """COCO's scores from the average precision (..., T) at each threshold: over all, at 0.5 and at 0.75."""
    return {"ap": by_threshold.mean(-1), "ap_50": by_threshold[..., 0], "ap_75": by_threshold[..., 5]}

"""Whether scores can be trusted: reliability of segments, and the expected calibration error."""

from collections.abc import Sequence

import numpy as np

from deop.errors import SettingError


def reliability(scores: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[tuple[float, float, int]]:
    """Compare scores with the fraction of correct segments, in bins of equal size, lowest scores first.

    Args:
        scores: scores of the segments, in [0, 1].
        correct: whether each segment has the right name.
        bins: maximum number of bins, at least 1.

    Returns:
        For each bin the mean score, the fraction of correct segments, and the number of segments.

    Raises:
        SettingError: a different number of scores and flags, or no bin.

    >>> reliability([0.5, 0.25], [True, False], bins=2)
    [(0.25, 0.0, 1), (0.5, 1.0, 1)]
    """
    if len(scores) != len(correct):
        raise SettingError(f"{len(scores)} scores for {len(correct)} segments: give one for each segment")
    if bins < 1:
        raise SettingError(f"bins is {bins}: expected 1 or more")
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    values, hits = np.asarray(scores, float), np.asarray(correct, float)
    return [(float(values[part].mean()), float(hits[part].mean()), len(part)) for part in parts]


def calibration_error(rows: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error: the mean distance of score and fraction, weighted by the number of segments.

    Args:
        rows: the bins, as ``reliability`` returns them; at least one.

    Raises:
        SettingError: no bins.

    >>> calibration_error([(0.25, 0.0, 1), (0.5, 1.0, 1)])
    0.375
    """
    if not rows:
        raise SettingError("there are no segments, so the calibration error is not defined")
    return sum(abs(score - share) * count for score, share, count in rows) / sum(count for _, _, count in rows)

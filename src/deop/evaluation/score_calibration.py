"""How far scores can be believed: reliability of segments and the expected calibration error."""

from collections.abc import Sequence

import numpy as np


def reliability(scores: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[tuple[float, float, int]]:
    """Compare scores with the share of correct segments, in bins of equal size, lowest scores first.

    Args:
        scores: of the segments, in [0, 1].
        correct: whether each segment has the right name.
        bins: maximum number of bins.

    Returns:
        For each bin the mean score, the share of correct segments, and the number of segments.
    """
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    values, hits = np.asarray(scores, float), np.asarray(correct, float)
    return [(float(values[part].mean()), float(hits[part].mean()), len(part)) for part in parts]


def calibration_error(rows: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error: mean distance of score and share in the rows of ``reliability``, by number."""
    return sum(abs(score - share) * count for score, share, count in rows) / sum(count for _, _, count in rows)

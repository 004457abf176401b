"""Reliability of scores and the expected calibration error."""

import pytest

from deop.errors import SettingError
from deop.evaluation.score_calibration import calibration_error, reliability


def test_reliability_by_hand():
    rows = reliability([0.1, 0.9, 0.2, 0.8], [False, True, True, True], bins=2)
    assert rows == [(pytest.approx(0.15), 0.5, 2), (pytest.approx(0.85), 1.0, 2)]
    assert calibration_error([*rows, (0.5, 0.0, 4)]) == pytest.approx((0.35 * 2 + 0.15 * 2 + 0.5 * 4) / 8)


def test_there_are_never_more_bins_than_segments():
    assert reliability([0.5], [True], bins=10) == [(0.5, 1.0, 1)]
    assert reliability([], []) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([0.5, 0.6], [True]), "2 scores for 1 segments"),
        (lambda: reliability([0.5], [True], bins=0), "bins is 0: expected 1 or more"),
        (lambda: calibration_error([]), "there are no segments"),
    ],
)
def test_unusable_values_are_refused(call, message):
    with pytest.raises(SettingError, match=message):
        call()

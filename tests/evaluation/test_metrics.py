"""Metrics against hand-made matrices and a loop over pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.evaluation.metrics import Confusion, harmonic_mean, mean


def test_by_hand():
    confusion = Confusion(4)
    confusion.add(np.array([[0, 0, 0, 1], [1, 2, -1, -1]]), np.array([[0, 0, 1, 1], [-1, 0, 2, 3]]))
    # class 0: 2 of 3 hit, predicted 3 -> 2/4; class 1: 1 of 2, predicted 2 -> 1/3; class 2: missed; class 3: not there
    np.testing.assert_allclose(confusion.iou, [2 / 4, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(confusion.accuracy, [2 / 3, 1 / 2, 0, np.nan])
    assert confusion.pixel_accuracy == 3 / 6
    assert mean(confusion.iou) == pytest.approx((1 / 2 + 1 / 3) / 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_against_sets_of_pixels(classes, seed):
    rng = np.random.default_rng(seed)
    photos = [(rng.integers(-1, classes, (6, 7)), rng.integers(-1, classes, (6, 7))) for _ in range(3)]
    confusion = Confusion(classes)
    for truth, predicted in photos:
        confusion.add(truth, predicted)
    truth = np.concatenate([t.ravel() for t, _ in photos])
    predicted = np.concatenate([p.ravel() for _, p in photos])
    known = truth >= 0
    for label in range(classes):
        there, said = set(np.flatnonzero(truth == label)), set(np.flatnonzero((predicted == label) & known))
        expected = len(there & said) / len(there | said) if there else np.nan
        np.testing.assert_allclose(confusion.iou[label], expected)


def test_nothing_known():
    assert Confusion(2).pixel_accuracy is None
    assert mean(Confusion(2).iou) is None
    assert harmonic_mean(None, 0.5) is None
    assert harmonic_mean(0.0, 0.0) == 0
    assert harmonic_mean(0.38, 0.384) == pytest.approx(2 * 0.38 * 0.384 / 0.764)

"""Metrics compared with matrices computed by hand, a loop over pixels, and torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.evaluation.metrics import Confusion, harmonic_mean, mean, or_none, ratio, semantic_scores


def test_by_hand():
    confusion = Confusion(4)
    confusion.add(np.array([[0, 0, 0, 1], [1, 2, -1, -1]]), np.array([[0, 0, 1, 1], [-1, 0, 2, 3]]))
    # class 0: 2 of 3 hit, predicted 3 -> 2/4; class 1: 1 of 2, predicted 2 -> 1/3; class 2: missed; class 3: absent
    np.testing.assert_allclose(confusion.iou, [2 / 4, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(confusion.accuracy, [2 / 3, 1 / 2, 0, np.nan])
    assert confusion.pixel_accuracy == 3 / 6
    assert mean(confusion.iou) == pytest.approx((1 / 2 + 1 / 3) / 3)


def test_classes_of_one_pixel():
    """One pixel is enough: class 0 is found, class 1 is missed, class 2 is predicted where nothing is known."""
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1, -1]]), np.array([[0, -1, 2]]))
    assert confusion.matrix.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert confusion.matrix.dtype == confusion.counts.dtype == np.int64
    assert confusion.counts.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(confusion.iou, [1, 0, np.nan])
    np.testing.assert_array_equal(confusion.accuracy, [1, 0, np.nan])
    found = Confusion(1)
    found.add(np.array([[0]]), np.array([[0]]))
    assert found.pixel_accuracy == 1
    assert semantic_scores(found.counts) == {
        "miou": 1, "miou_absent_as_zero": 1, "pixel_accuracy": 1, "mean_accuracy": 1,
    }  # fmt: skip


def test_undefined_scores_cause_no_warning():
    """Nothing is divided by zero, and shares of numbers in single precision have double precision."""
    with np.errstate(all="raise"):
        confusion = Confusion(3)
        assert all(np.isnan(value) for value in semantic_scores(confusion.counts).values())
        assert np.isnan(confusion.iou).all()
        assert np.isnan(confusion.accuracy).all()
        np.testing.assert_array_equal(
            ratio(np.array([1.0, 0.0, 2.0]), np.array([0.0, np.nan, 4.0])), [np.nan, np.nan, 0.5]
        )
    assert float(ratio(np.float32(1), np.float32(3))) == 1 / 3


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
        true, named = set(np.flatnonzero(truth == label)), set(np.flatnonzero((predicted == label) & known))
        expected = len(true & named) / len(true | named) if true else np.nan
        np.testing.assert_allclose(confusion.iou[label], expected)


def test_scores_without_known_pixels():
    assert Confusion(2).pixel_accuracy is None
    assert np.isnan(mean(Confusion(2).iou))
    assert or_none(np.nan) is None
    assert all(np.isnan(value) for value in semantic_scores(Confusion(2).counts, np.array([True, False])).values())
    assert np.isnan(harmonic_mean(np.float64(np.nan), np.float64(0.5)))
    assert harmonic_mean(np.float64(0), np.float64(0)) == 0
    assert harmonic_mean(np.float64(0.38), np.float64(0.384)) == pytest.approx(2 * 0.38 * 0.384 / 0.764)


def test_both_kinds_of_mean_by_hand():
    # Class 2 is predicted at one pixel and has no true pixels; class 3 is neither predicted nor true.
    confusion = Confusion(4)
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 2, 1, 1]]))
    scores = semantic_scores(confusion.counts, unseen=np.array([False, True, True, False]))
    assert scores["miou"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["miou_absent_as_zero"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert (scores["seen_miou"], scores["unseen_miou"]) == (1 / 2, 1)
    assert scores["hiou"] == pytest.approx(2 * (1 / 2) * 1 / (1 / 2 + 1))
    assert (scores["seen_miou_absent_as_zero"], scores["unseen_miou_absent_as_zero"]) == (1 / 2, 1 / 2)
    assert scores["hiou_absent_as_zero"] == pytest.approx(1 / 2)
    assert scores["mean_accuracy"] == pytest.approx((1 / 2 + 1) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_iou_and_accuracy_equal_those_of_torchmetrics(classes, seed):
    from torchmetrics import classification as torchmetrics

    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(-1, classes, (3, 8, 9)), rng.integers(0, classes, (3, 8, 9))
    confusion = Confusion(classes)
    jaccard = torchmetrics.MulticlassJaccardIndex(classes, average=None, ignore_index=-1)
    recall = torchmetrics.MulticlassAccuracy(classes, average=None, ignore_index=-1)
    pixels = torchmetrics.MulticlassAccuracy(classes, average="micro", ignore_index=-1)
    for true, named in zip(truth, predicted, strict=True):
        confusion.add(true, named)
        for metric in (jaccard, recall, pixels):
            metric.update(torch.from_numpy(named)[None], torch.from_numpy(true)[None])
    present = confusion.counts[1] > 0  # torchmetrics returns 0 for absent classes
    np.testing.assert_allclose(confusion.iou[present], jaccard.compute().numpy()[present], rtol=1e-6)
    np.testing.assert_allclose(confusion.accuracy[present], recall.compute().numpy()[present], rtol=1e-6)
    assert confusion.pixel_accuracy == pytest.approx(float(pixels.compute()), rel=1e-6)


def test_resamples_are_scored_like_the_data_set():
    rng = np.random.default_rng(1)
    counts = []
    for _ in range(5):
        confusion = Confusion(4)
        confusion.add(rng.integers(-1, 3, (6, 6)), rng.integers(-1, 4, (6, 6)))
        counts.append(confusion.counts)
    unseen = np.array([True, False, True, False])
    together = semantic_scores(np.stack(counts), unseen)
    for key, values in together.items():
        one_by_one = [semantic_scores(part, unseen)[key] for part in counts]
        np.testing.assert_array_equal(values, one_by_one)

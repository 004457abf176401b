"""Panoptic quality compared with cases computed by hand, the definition as loops, and torchmetrics."""

import numpy as np
import pytest
import torch

from deop.evaluation.panoptic_quality import count_matches, panoptic_scores
from deop.evaluation.truth import TrueSegments


def truth_of(rows, classes, crowd=()):
    marked = np.zeros(len(classes), bool)
    marked[list(crowd)] = True
    return TrueSegments(np.array(rows, np.int32), np.array(classes, np.int64), marked)


def test_by_hand():
    # Truth: a cat (0), another cat (1), grass (2), and unknown pixels.
    truth = truth_of([[0, 0, 0, 0, 1, 1, 2, 2, 2, -1, -1, -1]], [0, 0, 1])
    # Prediction: the first cat without one pixel; the second cat as grass; grass with one unknown pixel; a cat on
    # unknown pixels; and a dog where there is none.
    predicted = np.array([[0, 0, 0, -1, 1, 1, 2, 2, 3, 2, 4, 4]])
    counts = count_matches(truth, predicted, np.array([0, 1, 1, 2, 0]), 3)
    np.testing.assert_allclose(counts[0], [3 / 4, 2 / 3, 0])  # the unknown pixel does not count in the union of grass
    np.testing.assert_array_equal(counts[1], [1, 1, 0])
    np.testing.assert_array_equal(counts[2], [0, 1, 1])  # the cat on unknown pixels is not an error
    np.testing.assert_array_equal(counts[3], [1, 0, 0])
    scores = panoptic_scores(counts, np.array([True, False, True]))
    pq = [3 / 4 / 1.5, 2 / 3 / 1.5, 0]
    assert scores["pq"] == pytest.approx(np.mean(pq))
    assert scores["pq_things"] == pytest.approx((pq[0] + pq[2]) / 2)
    assert scores["pq_stuff"] == pytest.approx(pq[1])
    assert scores["sq"] == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert scores["rq"] == pytest.approx((1 / 1.5 + 1 / 1.5 + 0) / 3)


def test_an_overlap_of_exactly_half_is_no_match():
    counts = count_matches(truth_of([[0, 0]], [0]), np.array([[0, -1]]), np.array([0]), 1)
    assert counts[:, 0].tolist() == [0, 0, 1, 1]


def test_crowds_are_neither_missed_nor_matched_and_excuse_only_their_class():
    truth = truth_of([[0, 0, 0, 0, 1, 1]], [0, 1], crowd=[0])
    nothing = np.full((1, 6), -1)
    assert count_matches(truth, nothing, np.array([], int), 2)[3].tolist() == [0, 1]
    inside = np.array([[0, 0, 0, -1, -1, -1]])
    assert count_matches(truth, inside, np.array([0]), 2)[2].tolist() == [0, 0]
    assert count_matches(truth, inside, np.array([1]), 2)[2].tolist() == [0, 1]
    exact = np.array([[0, 0, 0, 0, -1, -1]])
    assert count_matches(truth, exact, np.array([0]), 2)[1].tolist() == [0, 0]


def random_photo(rng, classes, side=24):
    """A random segment map of blocks, some of them without a segment, and the segments' classes."""
    cells = rng.integers(-1, 9, (side // 4, side // 4))
    segments = np.unique(cells, return_inverse=True)[1].reshape(cells.shape) - (cells.min() == -1)
    return np.kron(segments, np.ones((4, 4), int)), rng.integers(0, classes, segments.max() + 1)


@pytest.mark.parametrize("seed", range(5))
def test_against_the_definition_as_loops(seed):
    rng = np.random.default_rng(seed)
    true_map, true_classes = random_photo(rng, 3)
    shift = np.roll(true_map, rng.integers(0, 3), 1)  # close enough that some segments match
    classes = np.where(rng.random(len(true_classes)) < 0.7, true_classes, rng.integers(0, 3, len(true_classes)))
    crowd = rng.random(len(true_classes)) < 0.2
    counts = count_matches(TrueSegments(true_map, true_classes, crowd), shift, classes, 3)
    expected, matched_true, matched_predicted = np.zeros((4, 3)), set(), set()
    for t, true_class in enumerate(true_classes):
        for s, predicted_class in enumerate(classes):
            true, predicted = true_map == t, (shift == s) & (true_map >= 0)
            iou = (true & predicted).sum() / (true | predicted).sum()
            if true_class == predicted_class and not crowd[t] and iou > 0.5:
                expected[:2, true_class] += iou, 1
                matched_true.add(t)
                matched_predicted.add(s)
    for s, predicted_class in enumerate(classes):
        excused = true_map < 0
        for t in np.flatnonzero(crowd & (true_classes == predicted_class)):
            excused |= true_map == t
        if (
            s not in matched_predicted
            and (shift == s).any()
            and (excused & (shift == s)).sum() <= 0.5 * (shift == s).sum()
        ):
            expected[2, predicted_class] += 1
    for t, true_class in enumerate(true_classes):
        expected[3, true_class] += t not in matched_true and not crowd[t]
    np.testing.assert_allclose(counts, expected)


def test_against_torchmetrics():
    from torchmetrics import detection

    rng = np.random.default_rng(0)
    things, stuff, unknown = {0, 1}, {2, 3}, 9
    metric = detection.PanopticQuality(things, stuff, return_per_class=True, return_sq_and_rq=True,
                                       allow_unknown_preds_category=True)  # fmt: skip
    counts = np.zeros((4, 4))
    for _ in range(4):
        true_map, true_classes = random_photo(rng, 4)
        predicted_classes = true_classes.copy()
        predicted_map = np.roll(true_map, 1, 1).clip(
            0
        )  # torchmetrics does not count pixels without prediction in the union
        predicted_classes[:2] = rng.integers(0, 4, 2)
        maps = []
        for segments, classes in ((true_map, true_classes), (predicted_map, predicted_classes)):
            merged, kinds = merge_stuff(segments, classes, stuff)
            coded = np.stack([np.append(kinds, unknown)[merged], np.append(np.arange(len(kinds)), 0)[merged]], -1)
            maps.append((merged, kinds, torch.from_numpy(coded)[None]))
        (true_map, true_classes, target), (predicted_map, predicted_classes, preds) = maps
        metric.update(preds, target)
        marks = TrueSegments(true_map, true_classes, np.zeros(len(true_classes), bool))
        counts += count_matches(marks, predicted_map, predicted_classes, 4)
    total, hit, wrong, missed = counts
    expected = metric.compute().numpy()  # (K, 3): pq, sq, rq
    np.testing.assert_allclose(total / (hit + (wrong + missed) / 2), expected[:, 0], rtol=1e-6)
    scores = panoptic_scores(counts, np.array([True, True, False, False]))
    np.testing.assert_allclose([scores["pq"], scores["sq"], scores["rq"]], expected.mean(0), rtol=1e-6)
    assert 0.1 < scores["pq"] < 0.95


def merge_stuff(segments, classes, stuff):
    """Merge the segments of each stuff class into one."""
    first = {}
    target = np.array([first.setdefault(c, i) if c in stuff else i for i, c in enumerate(classes.tolist())])
    return np.append(target, -1)[segments], classes

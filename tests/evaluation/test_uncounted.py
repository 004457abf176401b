"""Pixels and photos that do not count, by hand."""

import numpy as np
import pytest

from deop.evaluation.uncounted import Uncounted, describe_uncounted


def test_counts_by_hand():
    uncounted = Uncounted({1, 2})
    ids = np.array([[1, 2, 7, 7, 7], [0, 255, 9, 9, -1]])
    uncounted.add("a", ids, np.where(np.isin(ids, (1, 2)), 0, -1))
    uncounted.add("b", np.zeros((2, 5), int), np.full((2, 5), -1))
    summary = uncounted.summary()
    assert summary["counted_share"] == pytest.approx(2 / 20)
    assert summary["unlisted"]["share"] == pytest.approx(6 / 20)
    assert summary["unlisted"]["ids"] == pytest.approx({"7": 3 / 20, "9": 2 / 20, "colours": 1 / 20})
    assert summary["without_truth"] == ["b"]
    assert describe_uncounted(summary) == [
        "30.0 % of the pixels do not count, because classes.json does not list their ids: 7 (15.0 %), 9 (10.0 %), "
        "colours (5.0 %)",
        "1 photo has no pixel that counts: b",
    ]


def test_an_id_that_counts_as_background_is_not_reported():
    uncounted = Uncounted({1})
    uncounted.add("a", np.array([[0, 1, 5]]), np.array([[1, 0, -1]]))
    assert uncounted.summary()["unlisted"]["ids"] == {"5": pytest.approx(1 / 3)}
    assert uncounted.summary()["counted_share"] == pytest.approx(2 / 3)


def test_few_pixels_and_many_photos():
    scores = {
        "unlisted": {"share": 1e-5, "ids": {str(label): 1e-6 for label in range(7)}},
        "without_truth": [str(number) for number in range(1200)],
    }
    lines = describe_uncounted(scores)
    assert lines[0].startswith("less than 0.1 % of the pixels do not count")
    assert lines[0].endswith(" and 2 more")
    assert lines[1] == "1,200 photos have no pixel that counts: 0, 1, 2, 3, 4 and 1,195 more"

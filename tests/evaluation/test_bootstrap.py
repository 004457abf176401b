"""Intervals compared with SciPy's bootstrap and with the normal distribution."""

import numpy as np
import pytest
from scipy import stats

from deop.errors import SettingError
from deop.evaluation.bootstrap import Bootstrap, PhotoSums


def sums_of(values):
    sums = PhotoSums(values.shape[1:])
    for value in values:
        sums.add(value)
    return sums


def test_sums_equal_those_of_dense_counts():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (7, 3, 4)) * (rng.random((7, 3, 4)) < 0.3)
    sums = sums_of(values)
    np.testing.assert_array_equal(sums.total(), values.sum(0))
    weights = rng.multinomial(7, np.full(7, 1 / 7), 11)
    np.testing.assert_array_equal(sums.resampled(weights), np.einsum("rp,pij->rij", weights, values))
    assert sum(len(part) for part in sums._values) == np.count_nonzero(values)


def test_the_interval_of_a_ratio_equals_that_of_scipy():
    rng = np.random.default_rng(3)
    values = np.stack([rng.gamma(2, 3, 40), rng.gamma(3, 3, 40)], 1)
    bootstrap = Bootstrap(resamples=20_000, seed=5)
    low, high = bootstrap.interval(bootstrap.draw(sums_of(values), lambda part: part[:, 0] / part[:, 1]))
    expected = stats.bootstrap(
        (values[:, 0], values[:, 1]), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), paired=True, n_resamples=20_000,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.05 * (high - low))


def test_intervals_cover_the_truth_at_about_the_stated_rate():
    rng = np.random.default_rng(7)
    bootstrap = Bootstrap(resamples=200, confidence=0.8)
    covered = 0
    for _ in range(200):
        draws = bootstrap.draw(sums_of(rng.normal(1, 1, (60, 1))), lambda part: part[:, 0] / 60)
        low, high = bootstrap.interval(draws)
        covered += low <= 1 <= high
    assert 0.7 < covered / 200 < 0.88


def test_the_same_seed_draws_the_same_photos_for_any_counts():
    rng = np.random.default_rng(1)
    first = rng.random((9, 1))
    second = np.concatenate([first + 1, rng.random((9, 2))], 1)
    bootstrap = Bootstrap(resamples=150, seed=3)
    draws_1, draws_2 = (bootstrap.draw(sums_of(part), lambda sums: sums[:, 0] / 9) for part in (first, second))
    np.testing.assert_allclose(draws_2 - draws_1, 1)  # paired: the difference has no variance, although each score has
    assert draws_1.std() > 0.01
    assert not np.array_equal(
        draws_1, Bootstrap(resamples=150, seed=4).draw(sums_of(first), lambda sums: sums[:, 0] / 9)
    )


def test_draws_without_a_score_are_left_out():
    draws = np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan]])
    bounds = Bootstrap(confidence=0.5).interval(draws)
    np.testing.assert_allclose(bounds, [[1.5, np.nan], [2.5, np.nan]])
    assert Bootstrap(resamples=3).draw(PhotoSums((2,)), lambda part: part[:, 0]).tolist() == [0, 0, 0]


def test_values_out_of_range_are_refused():
    with pytest.raises(SettingError, match="0 resamples"):
        Bootstrap(resamples=0)
    with pytest.raises(SettingError, match="confidence is 95"):
        Bootstrap(confidence=95)
    with pytest.raises(SettingError, match="seed is -1"):
        Bootstrap(seed=-1)

"""Names scored by words and examples: properties, and the kernels against their formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.bank.fitting import Weights, fit_weights
from deop.bank.kernels import SHARPNESS, centre_of, centred, evidence_of, log_sum, mean_kernels
from deop.bank.scoring import combine, prepare
from deop.errors import SettingError
from tests.bank.small import bank_of, clusters, unit, vocabulary


def words_of(count, seed=1, scale=100.0):
    """A function from regions to logits of ``count`` random words and, last, of none of them."""
    rows = unit(np.random.default_rng(seed).normal(size=(count, 24)))

    def score(regions):
        logits = np.full((len(regions), count + 1), -np.inf, np.float32)
        logits[:, :count] = scale * regions.astype(np.float32) @ rows.T
        return logits

    return score


def test_kernels_are_their_formula():
    random = np.random.default_rng(0)
    regions, examples = unit(random.normal(size=(5, 24))), unit(random.normal(size=(9, 24)))
    photos, of = random.integers(0, 3, 5), random.integers(0, 3, 9)
    starts = np.array([0, 4, 6])
    logs, nearest = mean_kernels(regions, examples, starts)
    held_out, _ = mean_kernels(regions, examples, starts, (photos, of))
    for n in range(5):
        for g, part in enumerate((range(4), range(4, 6), range(6, 9))):
            cosines = [float(regions[n] @ examples[r]) for r in part]
            kernels = [np.exp(SHARPNESS * (cosine - 1)) for cosine in cosines]
            assert logs[n, g] == pytest.approx(np.log(np.mean(kernels)), abs=1e-3)
            assert nearest[n, g] == pytest.approx(max(cosines), abs=1e-6)
            others = [kernel for kernel, r in zip(kernels, part, strict=True) if of[r] != photos[n]]
            expected = np.log(np.mean(others)) if others else -np.inf
            assert held_out[n, g] == pytest.approx(expected, abs=1e-3)


def test_the_centre_counts_each_name_of_a_photo_once():
    regions, group = unit(np.random.default_rng(0).normal(size=(6, 24))), np.array([4, 9, 4, 4, 0, 9])
    means = [regions[group == value].mean(0) for value in (0, 4, 9)]
    centre = centre_of(regions, group)
    np.testing.assert_allclose(centre, sum(means) / 4, atol=1e-6)
    result = centred(regions.astype(np.float16), centre)
    expected = regions.astype(np.float16).astype(np.float32) - centre
    np.testing.assert_allclose(result * np.linalg.norm(expected, axis=1)[:, None], expected, atol=1e-6)
    np.testing.assert_allclose(centred(regions[:1], centre_of(regions[:1], group[:1])), regions[:1], atol=1e-6)


def test_what_all_embeddings_have_in_common_does_not_matter():
    """Far from the origin, where all cosines are near 1, names are told apart as well."""
    regions, which, photos = clusters(4, photos=8, spread=0.5)
    fresh, true, _ = clusters(4, photos=12, spread=0.5)
    common = np.eye(24, dtype=np.float32)[0] * 4
    names, asked = [f"name{k}" for k in which], vocabulary("name0, name1, name2, name3")

    def score(values):
        return np.zeros((len(values), 5), np.float32)

    shares = []
    for shift in (0, common):
        examples = prepare(bank_of(unit(regions + shift), names, photos), asked, score, None)
        query = unit(fresh + shift)
        shares.append((examples.adjust(score(query), query)[:, :4].argmax(1) == true).mean())
    assert shares[1] == pytest.approx(shares[0], abs=0.1)
    assert shares[0] > 0.8


@given(st.floats(-40, 40), st.floats(-30, 0), st.floats(0.05, 2), st.floats(0, 2), st.floats(-3, 3), st.floats(-11, -1))
def test_similarity_limits_the_odds(words, nearest, alpha, delta, gamma, similar):
    weights = Weights(odds_words=alpha, odds_similar=delta, odds_constant=gamma, similar=similar)
    odds = weights.odds(np.array([words]), np.array([nearest]))[0]
    by_words, more = np.clip(words, -6, 6), max(nearest, -12) - similar
    assert odds == pytest.approx(min(alpha * by_words + delta * more + gamma, by_words + max(more, 0)))


def test_evidence_is_relative_to_the_mean_of_the_kernels():
    logs = np.log(np.array([[0.1, 0.3, 0.2], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(evidence_of(logs), np.log([[0.5, 1.5, 1.0], [1, 1, 1]]), atol=1e-6)
    assert evidence_of(np.array([[-np.inf, 0.0]])).tolist() == [[0.0, 0.0]]
    assert log_sum(np.array([[-np.inf, -np.inf]])).tolist() == [-np.inf]


def test_weight_0_is_no_bank():
    regions, which, photos = clusters(3)
    bank = bank_of(regions, [f"name{k}" for k in which], photos)
    assert prepare(bank, vocabulary("name0, name1"), words_of(2), 0) is None
    assert prepare(bank, vocabulary("other, names"), words_of(2), None) is None, "it has none of the names"


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "0.5", True])
def test_wrong_weights(weight):
    with pytest.raises(SettingError, match="bank_weight must be a number in"):
        prepare(bank_of(np.ones((1, 24)), ["a"]), vocabulary("a"), words_of(1), weight)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(2, 5))
def test_a_region_that_equals_an_example_gets_its_name(seed, count):
    """With random words, which are mostly wrong, and clusters that overlap."""
    regions, which, photos = clusters(count, seed=seed, spread=1.0)
    bank = bank_of(regions, [f"name{k}" for k in which], photos)
    names = ", ".join(f"name{k}" for k in range(count + 3))  # three names without examples
    score = words_of(count + 3, seed)
    examples = prepare(bank, vocabulary(names), score, None)
    assert examples.adjust(score(regions), regions).argmax(1).tolist() == which.tolist()


def test_the_order_of_examples_and_names_does_not_matter():
    regions, which, photos = clusters(4, spread=0.8)
    names = [f"name{k}" for k in which]
    order = np.random.default_rng(3).permutation(len(names))
    first = bank_of(regions, names, photos)
    second = bank_of(regions[order], [names[i] for i in order], photos[order])
    query = unit(np.random.default_rng(5).normal(size=(7, 24)))
    score = words_of(5)
    asked = vocabulary("name0, name1, name2, name3, plain")
    adjusted = [prepare(bank, asked, score, None).adjust(score(query), query) for bank in (first, second)]
    assert np.array_equal(*adjusted)

    def reversed_score(values):
        logits = score(values)
        return np.concatenate([logits[:, 4::-1], logits[:, 5:]], 1)

    backwards = prepare(first, vocabulary("plain, name3, name2, name1, name0"), reversed_score, None)
    np.testing.assert_allclose(backwards.adjust(reversed_score(query), query)[:, 4::-1], adjusted[0][:, :5], atol=1e-3)


def test_names_without_examples_keep_their_logits():
    """And the names with examples get what words and similarity give them together."""
    regions, which, photos = clusters(3, spread=0.6)
    bank = bank_of(regions, [f"name{k}" for k in which], photos)
    query, score = unit(np.random.default_rng(5).normal(size=(7, 24))), words_of(5)
    examples = prepare(bank, vocabulary("name0, name1, name2, plain, other"), score, None)
    before, after = score(query), examples.adjust(score(query), query)
    assert np.array_equal(before[:, 3:5], after[:, 3:5])
    odds = log_sum(after[:, :3]) - log_sum(after[:, 3:])
    nearest = mean_kernels(centred(query, examples.centre), examples.regions, examples.starts)[0].max(1)
    expected = examples.weights.odds(log_sum(before[:, :3]) - log_sum(before[:, 3:]), nearest)
    np.testing.assert_allclose(odds, expected, rtol=1e-3, atol=1e-2)


def test_only_examples():
    """At weight 1 the words of names with examples do not matter; at 0.5 they do."""
    regions, which, photos = clusters(3, spread=0.5)
    bank = bank_of(regions, [f"name{k}" for k in which], photos)
    query = clusters(3, seed=0, photos=9, spread=0.5)[0][-3:]
    asked = vocabulary("name0, name1, name2")
    results = {}
    for weight in (0.5, 1.0):
        parts = []
        for seed in (1, 2):
            score = words_of(3, seed)
            examples = prepare(bank, asked, score, weight)
            object.__setattr__(examples, "weights", Weights())
            logits = examples.adjust(score(query), query)[:, :3]
            parts.append(logits - log_sum(logits)[:, None])
        results[weight] = np.abs(parts[0] - parts[1]).max()
    assert results[1.0] < 1e-3 < results[0.5]


def test_a_small_weight_is_near_words_alone():
    regions, which, photos = clusters(3, spread=0.5)
    bank = bank_of(regions, [f"name{k}" for k in which], photos)
    query, score = unit(np.random.default_rng(5).normal(size=(7, 24))), words_of(4)
    examples = prepare(bank, vocabulary("name0, name1, name2, plain"), score, 1e-6)
    np.testing.assert_allclose(examples.adjust(score(query), query), score(query), atol=1e-3)


def test_a_name_without_a_word():
    """Its logit by words is -inf; examples alone make it win where a region is like them, and only there."""
    regions, which, photos = clusters(3, photos=8)
    bank = bank_of(regions, [["x17", "name1", ""][k] for k in which], photos)
    words = words_of(3)

    def score(values):
        logits = words(values)
        logits[:, 0] = -np.inf
        return logits

    examples = prepare(bank, vocabulary("x17, name1, plain"), score, None)
    fresh, which, _ = clusters(3, photos=12)
    best = examples.adjust(score(fresh), fresh)
    assert np.isfinite(best[:, :3]).all()
    won = best[:, :3].argmax(1) == 0
    assert won[which == 0].mean() > 0.9
    assert won[which == 1].mean() < 0.1


def test_negative_examples_lower_their_name_only():
    regions, which, photos = clusters(2, photos=5, spread=0.3)
    query, score = regions + 0.01, words_of(3)
    query = unit(query)
    asked = vocabulary("cup, bowl, wall")
    positive = bank_of(regions[which == 0], ["cup"] * 5, photos[which == 0])
    both = bank_of(regions, [["cup", "-cup"][k] for k in which], photos)
    before = prepare(positive, asked, score, None).adjust(score(query), query)
    examples = prepare(both, asked, score, None)
    after = examples.adjust(score(query), query)
    probability = [np.exp(values[:, 0] - log_sum(values)) for values in (before, after)]
    assert (probability[1][which == 1] <= probability[0][which == 1] + 1e-6).all()
    assert np.array_equal(before[:, 1:], after[:, 1:])
    alone = prepare(bank_of(regions[which == 1], ["-cup"] * 5), asked, score, None)
    lowered = alone.adjust(score(regions), regions)
    assert (lowered[which == 1, 0] < score(regions)[which == 1, 0] - 5).all()
    assert np.array_equal(lowered[:, 1:], score(regions)[:, 1:])


def test_a_bank_of_one_region():
    region = unit(np.ones((1, 24)))
    score = words_of(2)
    examples = prepare(bank_of(region, ["cup"]), vocabulary("cup, wall"), score, None)
    logits = examples.adjust(score(region), region)
    assert np.isfinite(logits[:, :2]).all()
    assert logits.argmax() == 0


def test_contradicting_examples_decide_nothing():
    region = unit(np.ones((1, 24)))
    bank = bank_of(np.concatenate([region, region]), ["cup", "bowl"], [0, 1])
    logits = prepare(bank, vocabulary("cup, bowl"), lambda r: np.zeros((len(r), 3), np.float32), None).adjust(
        np.zeros((1, 3), np.float32), region
    )
    assert logits[0, 0] == pytest.approx(logits[0, 1])


def test_fitted_factors_minimise_the_loss():
    """Compared with a search around the result."""
    random = np.random.default_rng(0)
    true = random.integers(0, 4, 60)
    words = random.normal(size=(60, 5)).astype(np.float32)
    words[:, 4] = -np.inf
    kernels = random.normal(size=(60, 6)).astype(np.float32)
    kernels[np.arange(60), true] += 1
    kernels[:, 4:] = -np.inf
    photo = random.integers(0, 10, 60)
    weights = fit_weights(words, kernels, true, photo, np.zeros(60, bool))
    count = {key: sum(k == key for k in zip(photo, true, strict=True)) for key in zip(photo, true, strict=True)}
    share = np.array([1 / count[key] for key in zip(photo, true, strict=True)])

    def loss(a, b):
        logits = a * words[:, :4] + b * evidence_of(kernels)[:, :4]
        nll = log_sum(logits) - logits[np.arange(60), true]
        return (share * nll).sum() + 0.5 * (9 * (a - 1) ** 2 + 0.5 * (b - 1) ** 2)

    best = loss(weights.words, weights.examples)
    assert all(
        loss(weights.words + step, weights.examples + other) >= best - 1e-6
        for step in (-0.05, 0, 0.05)
        for other in (-0.05, 0, 0.05)
    )


def test_no_name_of_others_leaves_the_sum_to_those_with_examples():
    words, kernels = np.array([[1.0, 2.0, -np.inf]]), np.array([[-3.0, -1.0, -np.inf, -np.inf]])
    result = combine(words, kernels, np.array([0, 1]), Weights())
    assert log_sum(result) == pytest.approx(log_sum(words))
    assert result[0, 1] - result[0, 0] == pytest.approx(1.0 + 2.0)

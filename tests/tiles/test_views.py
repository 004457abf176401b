"""Blended labels compared with ``labelling.semantic`` and with a computation of all scores at every pixel."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.images.canvas import Canvas
from deop.labelling.assembly import limits_of, semantic
from deop.labelling.heatmaps import score_heatmaps
from deop.labelling.masks import PhotoMasks, SemanticRule
from deop.tiles.blending import Blend
from deop.tiles.plan import plan_tiles
from deop.tiles.views import View, window_side


def random_view(random, shape, names, masks=12, scale=0.6):
    resized = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    padded = tuple(side + -side % 32 for side in resized)
    logits = random.normal(0, 4, (masks, padded[0] // 8, padded[1] // 8)).astype(np.float32)
    probabilities = random.dirichlet(np.full(names + 1, 0.1), masks).astype(np.float32)
    return View(probabilities, PhotoMasks(logits), Canvas(shape, resized, padded))


def label(plan, views, coarse, context, rule):
    blend = Blend(plan, lambda row, column: views[row, column], coarse, context, rule)
    labels, scores = np.empty(plan.shape, np.int32), np.empty(plan.shape, np.float32)
    for top in range(0, plan.shape[0], 512):
        rows = slice(top, min(top + 512, plan.shape[0]))
        for columns, block, confidence in blend.blocks(rows):
            labels[rows, columns], scores[rows, columns] = block, confidence
    return labels, scores


def dense(plan, views, coarse, context, background):
    """All blended scores (K, H, W) and the blended sum of the masks (H, W)."""
    some = next(iter(views.values()))
    names = some.votes.shape[1]
    total = np.zeros((names, *plan.shape))
    coverage = np.zeros(plan.shape)
    weights = {}
    for row in plan.rows.shares(0, plan.shape[0]):
        for column in plan.columns.shares(0, plan.shape[1]):
            weights[row.number, column.number] = row, column
    placed = [(views[key], row, column, 1 - context if coarse else 1.0) for key, (row, column) in weights.items()]
    for view, row, column, share in placed:
        maps, covered = all_scores(view)
        top, left = row.start, column.start
        height, width = min(maps.shape[1], plan.shape[0] - top), min(maps.shape[2], plan.shape[1] - left)
        part = slice(top, top + height), slice(left, left + width)
        weight = share * row.weights[part[0], None].astype(float) * column.weights[part[1]]
        total[:, *part] += weight * maps[:, :height, :width]
        coverage[part] += weight * covered[:height, :width]
    if coarse:
        maps, covered = all_scores(coarse)
        total += context * maps
        coverage += context * covered
    return total, coverage


def all_scores(view):
    names = view.votes.shape[1]
    columns = np.concatenate([view.votes, np.zeros((len(view.votes), 1), np.float32)], 1)
    maps = score_heatmaps(columns, view.masks, view.canvas, range(names))
    ones = np.ones((len(view.votes), 1), np.float32) / 1000  # small, so that the sum is not divided
    covered = score_heatmaps(np.concatenate([ones, ones], 1), view.masks, view.canvas, [0])[0] * 1000
    return maps, None if covered is None else real_coverage(view)


def real_coverage(view):
    """The sum of the masks at each pixel: torch's resizing is the same, and tests of labelling compare with it."""
    from deop.labelling.windows import mask_strips

    result = np.empty(view.canvas.photo)
    for strip in mask_strips(view.masks, view.canvas):
        for window in strip.windows:
            result[window.rows, window.columns] = window.enlarge(window.at_input(np.arange(len(view.masks)))).sum(0)
    return result


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 40]), st.booleans(), st.sampled_from([0.0, 0.3]))
@settings(max_examples=15, deadline=None)
def test_a_single_view_gives_the_answer_of_ordinary_labelling(seed, names, background, threshold):
    random = np.random.default_rng(seed)
    view = random_view(random, (150, 203), names)
    expected = semantic(view.votes, view.masks, view.canvas, threshold=threshold, claim=0.1, none_competes=background)
    if not background:
        view = replace(view, votes=view.votes[:, :-1])
    rule = SemanticRule(limits_of(threshold, names), 0.1, -1)
    labels, scores = label(plan_tiles((150, 203), 300, 0), {(0, 0): view}, None, 0, rule)
    np.testing.assert_allclose(scores, expected.confidence, atol=2e-5)
    assert (labels == expected.labels).mean() > 0.9999


@given(
    st.integers(0, 10_000), st.sampled_from([2, 7, 60]), st.sampled_from([0, 25, 48]), st.sampled_from([0.0, 0.4]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_blended_scores_equal_those_of_all_names_at_every_pixel(seed, names, overlap, context, background):
    random = np.random.default_rng(seed)
    shape = (170, 215)
    plan = plan_tiles(shape, 96, overlap)
    views = {
        (row, column): random_view(random, (96, 96), names, scale=1.3)
        for row in range(len(plan.rows.starts))
        for column in range(len(plan.columns.starts))
    }
    coarse = random_view(random, shape, names, scale=0.2) if context else None
    if not background:
        views = {key: replace(view, votes=view.votes[:, :-1]) for key, view in views.items()}
        coarse = replace(coarse, votes=coarse.votes[:, :-1]) if coarse else None
    rule = SemanticRule(limits_of(0.15, names), 0.5, -1)
    labels, scores = label(plan, views, coarse, context, rule)
    total, coverage = dense(plan, views, coarse, context, background)
    best = total.max(0)
    np.testing.assert_allclose(scores, np.clip(best, 0, 1), atol=2e-5)
    expected = total.argmax(0)
    expected[expected == names] = -1
    expected[(best < 0.15) | (coverage <= 0.5)] = -1
    close = np.sort(total, 0)[-2:]
    sure = (np.abs(best - 0.15) > 1e-4) & (np.abs(coverage - 0.5) > 1e-4) & (close[1] - close[0] > 1e-4)
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(labels[sure], expected[sure])


def test_pixels_without_a_name_get_that_of_everything_else():
    random = np.random.default_rng(3)
    view = random_view(random, (100, 100), 4)
    rule = SemanticRule(limits_of(np.array([0.9, 0.9, 0.9, 0.0]), 4), 0.0, 3)
    labels, _ = label(plan_tiles((100, 100), 100, 0), {(0, 0): replace(view, votes=view.votes[:, :-1])}, None, 0, rule)
    assert labels.min() >= 0
    assert (labels == 3).any()


def test_a_view_without_masks_has_no_name():
    shape = (80, 80)
    view = View(np.zeros((0, 2), np.float32), PhotoMasks(np.zeros((0, 1, 1), np.float32)), Canvas(shape, shape, shape))
    labels, scores = label(plan_tiles(shape, 80, 0), {(0, 0): view}, None, 0, SemanticRule(limits_of(0.0, 2)))
    assert (labels == -1).all()
    assert (scores == 0).all()


@pytest.mark.parametrize(
    ("names", "tile", "side"),
    [(2, 448, 64), (2, 896, 128), (2, 5000, 256), (1000, 896, 64), (1_000_000, 448, 16), (2, 112, 16)],
)
def test_windows_shrink_with_the_number_of_names_and_of_pixels_in_the_network(names, tile, side):
    assert window_side(names, Canvas((tile, tile), (448, 448), (448, 448))) == side

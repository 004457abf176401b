"""Matching compared with the original's costs and assignments, and with every possible assignment."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from deop.errors import SettingError
from deop.training.matching import (
    DEOP_COSTS,
    MatchingCosts,
    dice_costs,
    focal_costs,
    label_costs,
    match,
)
from tests.conftest import assert_parity

KINDS = {"deop": DEOP_COSTS, "simbaseline": MatchingCosts(label=1.0)}


def images(file):
    return range(len(file["pred_masks"]))


def flat_targets(file, image):
    size = file["pred_masks"].shape[-2:]
    masks = file[f"target.masks.{image}"].float()
    return F.interpolate(masks[None], size=size, mode="nearest")[0].flatten(1)


def test_parity_cost_parts(parity):
    file = parity("losses")
    for image in images(file):
        logits, masks = file["pred_masks"][image].flatten(1), flat_targets(file, image)
        labels = file[f"target.labels.{image}"].long()
        assert_parity(focal_costs(logits, masks), file[f"cost.focal.{image}"])
        assert_parity(dice_costs(logits, masks), file[f"cost.dice.{image}"])
        assert_parity(label_costs(file["pred_logits"][image], labels), file[f"cost.class.{image}"])


@pytest.mark.parametrize("kind", KINDS)
def test_parity_assignments(parity, kind):
    file = parity("losses")
    levels = {"main": "", **{k.split(".")[0]: f"{k.split('.')[0]}." for k in file.tensors if k.startswith("aux")}}
    for level, prefix in levels.items():
        for image in images(file):
            queries, targets = match(
                file[f"{prefix}pred_masks"][image],
                file[f"target.masks.{image}"],
                KINDS[kind],
                file[f"{prefix}pred_logits"][image],
                file[f"target.labels.{image}"].long(),
            )
            assert torch.equal(torch.stack([queries, targets]), file[f"match.{kind}.{level}.{image}"].long())


@pytest.mark.parametrize("seed", range(5))
def test_no_assignment_is_cheaper(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, 4, generator=generator)
    masks = torch.rand(3, 4, 4, generator=generator) > 0.5
    flat, truth = logits.flatten(1), masks.float().flatten(1)
    cost = 20 * focal_costs(flat, truth) + dice_costs(flat, truth)
    queries, targets = match(logits, masks)
    lowest = min(sum(cost[q, t] for t, q in enumerate(order)) for order in permutations(range(5), 3))
    assert cost[queries, targets].sum() == pytest.approx(float(lowest), rel=1e-5)
    assert sorted(targets.tolist()) == [0, 1, 2]


def test_each_mask_gets_the_query_that_predicts_it():
    masks = torch.eye(4).view(4, 2, 2).bool()
    order = torch.tensor([2, 0, 3, 1])
    logits = torch.where(masks[order], 8.0, -8.0)
    queries, targets = match(logits, masks)
    assert torch.equal(order[queries], targets)


def test_costs_stay_finite_for_extreme_logits():
    logits, masks = torch.tensor([[1e4, -1e4, 300.0, -300.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert torch.isfinite(focal_costs(logits, masks)).all()
    assert focal_costs(logits, masks).item() == pytest.approx((0.75 * 1e4 + 0.25 * 1e4) / 4)


@pytest.mark.parametrize(("queries", "targets"), [(3, 0), (0, 3), (0, 0), (2, 5)])
def test_any_number_of_queries_and_targets(queries, targets):
    assignment = match(torch.randn(queries, 4, 4), torch.rand(targets, 8, 8) > 0.5)
    assert [len(index) for index in assignment] == [min(queries, targets)] * 2
    assert all(index.dtype == torch.int64 for index in assignment)


def test_a_label_cost_needs_labels():
    with pytest.raises(ValueError, match="class_logits"):
        match(torch.randn(2, 4, 4), torch.ones(1, 4, 4), MatchingCosts(label=1))


def test_negative_costs_are_refused():
    with pytest.raises(SettingError, match="weights of 0 or more"):
        MatchingCosts(dice=-1)

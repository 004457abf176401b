"""Partitions of overlapping masks: values by hand, properties, given masks, and where they are used."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.errors import SettingError
from deop.images.masks import partition_masks
from deop.proposals import Proposals
from deop.proposals.given import given_proposals
from deop.proposals.partition import partition_by_score, partition_logits
from deop.settings import Settings


def row(*values):
    return torch.tensor([[values]], dtype=torch.float32)[0]


def test_the_best_score_gets_shared_cells():
    """Two masks of three cells that share one: 0.9 * sigmoid(2) = 0.79 against 0.6 * sigmoid(3) = 0.57."""
    logits = torch.stack([row(2, 2, 2, -4, -4), row(-4, -4, 3, 3, 3)])
    result = partition_logits(logits, torch.tensor([0.9, 0.6]))
    # The owner of the shared cell gets the larger logit, the other mask its negative; nothing else changes.
    assert result[0, 0].tolist() == [2, 2, 3, -4, -4]
    assert result[1, 0].tolist() == [-4, -4, -3, 3, 3]
    swapped = partition_logits(logits, torch.tensor([0.6, 0.9]))
    assert swapped[0, 0].tolist() == [2, 2, -3, -4, -4]
    assert swapped[1, 0].tolist() == [-4, -4, 3, 3, 3]


def test_without_scores_the_highest_probability_gets_shared_cells():
    logits = torch.stack([row(2, 2, 2, -4, -4), row(-4, -4, 3, 3, 3)])
    assert partition_logits(logits)[:, 0, 2].tolist() == [-3, 3]


def test_small_objects_survive_inside_large_masks():
    """A cup on a table on a floor: the scores decide nothing, since each is inside the next."""
    floor, table, cup = torch.full((3, 8, 8), -5.0)
    floor[:] = 5.0
    table[2:7, 2:7] = 5.0
    cup[3:5, 3:5] = 5.0
    result = partition_logits(torch.stack([floor, table, cup]), torch.tensor([0.99, 0.8, 0.1])) > 0
    assert result.flatten(1).sum(1).tolist() == [64 - 25, 25 - 4, 4]
    assert torch.equal(result[2], cup > 0)


def test_of_masks_of_similar_size_the_better_one_wins():
    """Two readings of one object, 8 and 6 cells: the smaller one is not an object inside the larger one."""
    large, small = torch.full((2, 1, 10), -5.0)
    large[0, :8], small[0, 1:7] = 5.0, 5.0
    masks = torch.stack([large, small])
    assert (partition_logits(masks, torch.tensor([0.9, 0.5])) > 0).flatten(1).sum(1).tolist() == [8, 0]
    assert (partition_logits(masks, torch.tensor([0.5, 0.9])) > 0).flatten(1).sum(1).tolist() == [2, 6]
    kept = partition_by_score(Proposals(masks, torch.tensor([3, 7]), scores=torch.tensor([0.9, 0.5])))
    assert kept.slots.tolist() == [3]
    assert len(partition_by_score(Proposals(masks, scores=torch.tensor([0.9, 0.5])), drop_empty=False)) == 2


def test_no_masks_and_masks_that_do_not_count():
    assert partition_logits(torch.zeros(0, 4, 4)).shape == (0, 4, 4)
    assert len(partition_by_score(Proposals(torch.zeros(0, 4, 4)))) == 0
    logits = torch.stack([row(2, 2), row(3, 3)])
    alone = partition_logits(logits, valid=torch.tensor([True, False]))
    assert alone[0, 0].tolist() == [2, 2]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_masks_are_disjoint_and_cover_the_same(seed, count):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 6, 7, generator=generator)
    scores = torch.rand(count, generator=generator)
    result = partition_logits(logits, scores)
    assert ((result > 0).sum(0) <= 1).all()
    assert torch.equal((result > 0).any(0), (logits > 0).any(0))
    assert torch.equal(result > 0, (result > 0) & (logits > 0))
    order = torch.randperm(count, generator=generator)
    assert torch.equal(partition_logits(logits[order], scores[order]), result[order])
    assert torch.equal(partition_logits(result, scores), result)  # nothing is left to divide


def test_borders_are_at_one_place():
    """At the size of the photo, the border between two masks is the same for both: no gap and no overlap."""
    left, right = row(6, 6, 6, 1, -6, -6), row(-6, -6, 2, 3, 3, 3)
    parts = partition_logits(torch.stack([left, right]), torch.tensor([0.5, 0.9]))
    fine = torch.nn.functional.interpolate(parts[None], (1, 60), mode="bilinear")[0]
    assert ((fine > 1e-4).sum(0) <= 1).all()
    assert ((fine >= -1e-4).any(0)).all()


def test_given_masks_belong_to_the_smallest():
    masks = np.zeros((3, 4, 4), bool)
    masks[0], masks[1, :2], masks[2, 1:3, 1:3] = True, True, True
    parts = partition_masks(masks)
    assert parts.sum(0).max() == 1
    assert [int(part.sum()) for part in parts] == [6, 6, 4]
    assert (parts[2] == masks[2]).all()
    same = np.stack([masks[2], masks[2]])
    assert [int(part.sum()) for part in partition_masks(same)] == [4, 0]
    assert partition_masks(masks[:0]).shape == (0, 4, 4)
    proposals = given_proposals(masks, (4, 4), (16, 16), (16, 16), disjoint=True)
    assert (proposals.exact.numpy() == parts).all()
    assert torch.equal(proposals.logits > 0, torch.from_numpy(parts))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_given_masks_are_divided_as_proposals_with_equal_scores(seed, count):
    masks = np.random.default_rng(seed).random((count, 5, 6)) > 0.5
    logits = torch.from_numpy(np.where(masks, np.float32(20), np.float32(-20)))
    assert ((partition_logits(logits) > 0).numpy() == partition_masks(masks)).all()


def test_unknown_rules_raise():
    with pytest.raises(SettingError, match=r"'area'.*none or score"):
        Settings(partition="area")

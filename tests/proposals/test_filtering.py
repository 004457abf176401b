"""Empty and duplicate proposals, disjoint masks, and small regions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deop.proposals.filtering import drop_redundant, drop_small_regions, exclusive_masks
from deop.proposals.given import given_proposals
from deop.proposals.types import Proposals


def proposals_of(masks, exact=False) -> Proposals:
    masks = torch.as_tensor(np.asarray(masks), dtype=torch.bool)
    if exact:
        shape = tuple(masks.shape[1:])
        return given_proposals(masks, shape, shape, shape, stride=2)
    return Proposals(torch.where(masks, 3.0, -3.0), slots=torch.arange(len(masks)))


def rectangle(top, left, bottom, right, size=12):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def rectangles():
    """Lists of rectangles that are often equal or nested; some are empty."""
    edge = st.integers(0, 4)
    return st.lists(
        st.builds(lambda a, b, c, d: rectangle(2 * a, 2 * b, 2 * c + 1, 2 * d + 1), edge, edge, edge, edge), max_size=8
    )


def as_set(masks) -> set[bytes]:
    return {np.packbits(np.asarray(mask)).tobytes() for mask in masks}


def iou(a, b) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


@settings(deadline=None, max_examples=100)
@given(rectangles(), st.randoms(use_true_random=False), st.booleans(), st.sampled_from([0.4, 0.7, 0.95]))
def test_result_does_not_depend_on_the_order(masks, random, exact, limit):
    kept = (
        [drop_redundant(proposals_of(m, exact), duplicate_iou=limit) for m in (masks, random.sample(masks, len(masks)))]
        if masks
        else []
    )
    if kept:
        first, second = (as_set(p.exact if exact else p.logits > 0) for p in kept)
        assert first == second


@settings(deadline=None, max_examples=100)
@given(rectangles(), st.booleans(), st.sampled_from([0.4, 0.7, 0.95]))
def test_kept_masks_are_distinct_and_duplicate_the_dropped_ones(masks, exact, limit):
    if not masks:
        return
    kept = drop_redundant(proposals_of(masks, exact), duplicate_iou=limit)
    remaining = [np.asarray(m) for m in (kept.exact if exact else kept.logits > 0)]
    assert all(m.any() for m in remaining)
    assert all(iou(a, b) <= limit for i, a in enumerate(remaining) for b in remaining[:i])
    for mask in masks:
        if mask.any() and as_set([mask]) - as_set(remaining):
            assert any(iou(mask, m) > limit and m.sum() >= mask.sum() for m in remaining)


def test_order_slots_and_exact_masks_are_preserved():
    masks = [rectangle(0, 0, 4, 4), rectangle(0, 0, 0, 0), rectangle(6, 6, 12, 12), rectangle(0, 0, 4, 4)]
    assert drop_redundant(proposals_of(masks)).slots.tolist() == [0, 2]
    exact = drop_redundant(proposals_of(masks, exact=True)).exact
    assert torch.equal(exact, torch.as_tensor(np.stack([masks[0], masks[2]])))


def test_each_filter_can_be_disabled():
    masks = [rectangle(0, 0, 4, 4), rectangle(0, 0, 0, 0), rectangle(0, 0, 4, 4)]
    assert drop_redundant(proposals_of(masks), empty=None).slots.tolist() == [0, 1]
    assert drop_redundant(proposals_of(masks), duplicate_iou=None).slots.tolist() == [0, 2]
    assert drop_redundant(proposals_of(masks), empty=None, duplicate_iou=None).slots.tolist() == [0, 1, 2]


def test_empty_threshold_is_a_probability():
    logits = torch.tensor([0.2, 0.6, 0.95]).logit().view(3, 1, 1).expand(3, 4, 4)
    for threshold, count in ((0.1, 3), (0.5, 2), (0.9, 1), (0.99, 0)):
        assert len(drop_redundant(Proposals(logits), empty=threshold, duplicate_iou=None)) == count


def test_thin_given_mask_is_not_empty():
    line = rectangle(5, 0, 6, 12)
    proposals = given_proposals(line[None], (12, 12), (12, 12), (12, 12), stride=4)
    assert (proposals.logits < 0).all()
    assert len(drop_redundant(proposals)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_proposals(dtype):
    empty = Proposals(torch.zeros(0, 4, 4, dtype=dtype), torch.zeros(0, dtype=torch.long), torch.zeros(0, 9, 9).bool())
    kept = drop_redundant(empty)
    assert kept.logits.shape == (0, 4, 4)
    assert kept.exact.shape == (0, 9, 9)


def test_parity_exclusive_masks(parity):
    file = parity("training_free")
    before, after = file["masks_sorted_by_area"].bool(), file["masks_after_filter"].bool()
    assert torch.equal(exclusive_masks(before), after)
    areas = before.flatten(1).sum(1)
    if len(areas.unique()) == len(areas):  # masks of equal area keep their input order
        assert torch.equal(exclusive_masks(before.flip(0)), after)


@settings(deadline=None, max_examples=60)
@given(rectangles())
def test_exclusive_masks_partition_the_union(masks):
    if not masks:
        return
    stacked = torch.as_tensor(np.stack(masks))
    exclusive = exclusive_masks(stacked)
    assert (exclusive.sum(0) <= 1).all()
    assert torch.equal(exclusive.any(0), stacked.any(0))
    assert exclusive.flatten(1).any(1).all()


def test_exclusive_masks_below_the_minimum_area_are_dropped():
    masks = torch.as_tensor(np.stack([rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 11)]))
    assert [int(m.sum()) for m in exclusive_masks(masks)] == [110]
    masks[0, 11, 11] = True
    assert [int(m.sum()) for m in exclusive_masks(masks)] == [110, 1]
    assert [int(m.sum()) for m in exclusive_masks(masks, min_area=2)] == [110]
    assert exclusive_masks(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_small_regions_and_holes():
    mask = rectangle(0, 0, 8, 8)
    mask[3, 3] = False  # a hole of one cell
    mask[10, 10] = True  # a region of one cell
    assert np.array_equal(drop_small_regions(mask, 2), rectangle(0, 0, 8, 8))
    assert np.array_equal(drop_small_regions(mask, 1), mask)
    specks = rectangle(0, 0, 1, 2)
    specks[5, 5] = True
    assert np.array_equal(drop_small_regions(specks, 50), rectangle(0, 0, 1, 2)), "the largest region must be kept"
    assert not drop_small_regions(rectangle(0, 0, 0, 0), 5).any()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_no_small_region_remains(seed, limit):
    mask = np.random.default_rng(seed).random((14, 14)) > 0.5
    cleaned = drop_small_regions(mask, limit)
    regions, count = ndimage.label(cleaned, np.ones((3, 3)))
    sizes = np.bincount(regions.ravel())[1:]
    assert count <= 1 or sizes.min() >= limit

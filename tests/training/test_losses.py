"""Losses of the three stages compared with the original's values and gradients, and with values computed by hand."""

import pytest
import torch
import torch.nn.functional as F

from deop.data.samples import binary_masks
from deop.errors import SettingError
from deop.training.losses import (
    AnchorWeights,
    ProposalWeights,
    Targets,
    activated_map,
    anchor_losses,
    dice_loss,
    focal_mask_loss,
    prompt_loss,
    proposal_losses,
    target_count,
)
from deop.training.matching import DEOP_COSTS, MatchingCosts
from tests.conftest import assert_parity

COSTS = {"deop": DEOP_COSTS, "simbaseline": MatchingCosts(label=1.0)}
SHARPNESS = {"sig3": 3.0, "sig1": 1.0}


def targets_in(file):
    count = len(file["pred_masks"])
    return [Targets(file[f"target.labels.{i}"].long(), file[f"target.masks.{i}"]) for i in range(count)]


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected.squeeze(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", COSTS)
def test_parity_stage_2(parity, kind):
    file = parity("losses")
    info, targets = file.info, targets_in(file)
    weights = ProposalWeights(focal=info["mask_weight"], dice=info["dice_weight"], no_object=info["no_object_weight"])
    levels = ["", *sorted({key.split(".")[0] + "." for key in file.tensors if key.startswith("aux")})]
    total = 0
    for prefix in levels:
        logits, masks = file[f"{prefix}pred_logits"], file[f"{prefix}pred_masks"]
        losses = proposal_losses(logits, masks, targets, weights=weights, costs=COSTS[kind])
        suffix = f"_{prefix[3:-1]}" if prefix else ""
        assert_close(losses.label, file[f"maskformer.{kind}.loss_ce{suffix}"])
        assert_close(losses.focal, file[f"maskformer.{kind}.loss_mask{suffix}"])
        assert_close(losses.dice, file[f"maskformer.{kind}.loss_dice{suffix}"])
        total = total + losses.total(weights)
    assert_close(total, file[f"maskformer.{kind}.total_weighted"])


@pytest.mark.parametrize("name", SHARPNESS)
def test_parity_stage_3(parity, name):
    file = parity("losses")
    logits = file["pred_logits"].clone().requires_grad_()
    masks = file["pred_masks"].clone().requires_grad_()
    labels = file["target.sem_seg"]
    size = tuple(labels.shape[-2:])
    assert_parity(activated_map(logits, masks, size, SHARPNESS[name]), file[f"deop.{name}.activated_map"])
    losses = anchor_losses(logits, masks, labels, sharpness=SHARPNESS[name], ignore=file.info["ignore"])
    assert_close(losses.focal, file[f"deop.{name}.loss_ce"])
    assert_close(losses.dice, file[f"deop.{name}.loss_decoder_dice"])
    assert_close(losses.total(AnchorWeights(1.0, 0.0)), file[f"deop.{name}.total_config_default_weights"])
    total = losses.total(AnchorWeights())
    assert_close(total, file[f"deop.{name}.total_script_weights"])
    total.backward()
    assert_parity(logits.grad, file[f"deop.{name}.grad_pred_logits"], 1e-4)
    assert_parity(masks.grad, file[f"deop.{name}.grad_pred_masks"], 1e-4)


def test_parity_targets_are_the_classes_of_the_label_map(parity):
    file = parity("losses")
    for labels, expected in zip(file["target.sem_seg"], targets_in(file), strict=True):
        void = labels == file.info["ignore"]
        classes, masks = binary_masks(labels.long().masked_fill(void, -1))
        order = expected.labels.argsort()
        assert torch.equal(classes, expected.labels[order])
        assert torch.equal(masks, expected.masks[order].bool())


def test_stage_1_is_the_mean_log_likelihood():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    by_hand = -torch.log(logits.exp()[range(6), labels] / logits.exp().sum(1)).mean()
    torch.testing.assert_close(prompt_loss(logits, labels), by_hand)


def test_focal_loss_by_hand():
    logits = torch.tensor([[[0.0, 2.0]]])
    p = torch.sigmoid(torch.tensor(2.0))
    expected = (0.25 * 0.25 * -torch.tensor(0.5).log() + 0.75 * p**2 * -(1 - p).log()) / 2
    torch.testing.assert_close(focal_mask_loss(logits, torch.tensor([[[1.0, 0.0]]]))[0], expected)


def test_dice_of_a_perfect_an_empty_and_a_wrong_mask():
    truth = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    guess = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])
    assert dice_loss(guess, truth).tolist() == pytest.approx([0, 0, 1 - 1 / 5])


def test_the_order_of_queries_and_targets_does_not_matter():
    logits, masks = torch.randn(2, 6, 4), torch.randn(2, 6, 5, 7)
    targets = [Targets(torch.tensor([0, 2, 1]), torch.rand(3, 20, 28) > 0.5) for _ in range(2)]
    first = proposal_losses(logits, masks, targets)
    queries, order = torch.randperm(6), torch.tensor([2, 0, 1])
    shuffled = [Targets(t.labels[order], t.masks[order]) for t in targets]
    second = proposal_losses(logits[:, queries], masks[:, queries], shuffled)
    for part in ("label", "focal", "dice"):
        torch.testing.assert_close(getattr(first, part), getattr(second, part))


def test_images_of_different_sizes_and_without_targets():
    logits, masks = torch.randn(3, 4, 3), torch.randn(3, 4, 6, 6, requires_grad=True)
    nothing = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, 24, 24))
    targets = [nothing, Targets(torch.tensor([1]), torch.ones(1, 24, 30)), nothing]
    losses = proposal_losses(logits, masks, targets)
    expected = focal_mask_loss(F.interpolate(masks[1:2], (24, 30), mode="bilinear")[0], torch.ones(4, 24, 30))
    assert any(torch.isclose(losses.focal, e) for e in expected)
    empty = proposal_losses(logits, masks, [nothing] * 3)
    assert empty.focal == 0
    assert empty.dice == 0
    empty.total(ProposalWeights()).backward()
    assert target_count([nothing] * 3) == 1
    assert target_count(targets * 2) == 2


def test_ignored_pixels_count_as_no_object():
    logits = torch.full((1, 1, 3), -20.0)
    logits[..., -1] = 20.0  # the only proposal is "no object", everywhere
    masks, labels = torch.full((1, 1, 4, 4), 20.0), torch.full((1, 8, 8), 255)
    sure = anchor_losses(logits, masks, labels, sharpness=30.0)
    wrong = anchor_losses(logits, masks, torch.zeros(1, 8, 8, dtype=torch.long), sharpness=30.0)
    assert sure.focal < wrong.focal


def test_half_precision_is_computed_in_float32():
    logits, masks = torch.randn(1, 4, 3), torch.randn(1, 4, 6, 6)
    labels = torch.randint(0, 2, (1, 12, 12))
    half = anchor_losses(logits.bfloat16(), masks.bfloat16(), labels)
    full = anchor_losses(logits.bfloat16().float(), masks.bfloat16().float(), labels)
    assert half.focal == full.focal


@pytest.mark.parametrize("weights", [lambda: ProposalWeights(focal=-1.0), lambda: AnchorWeights(dice=float("nan"))])
def test_weights_out_of_range_are_refused(weights):
    with pytest.raises(SettingError, match="weights of 0 or more"):
        weights()

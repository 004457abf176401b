"""Refinement of a division: against its formula, cell by cell, and on simple photos."""

import numpy as np
import torch

from deop.proposals.refinement import REACHES, refine_division


def by_hand(logits, colours, weight, unit):
    """The formula of the docstring, written with loops."""
    logits, colours = logits.double().numpy(), colours.double().numpy()
    height, width = logits.shape[1:]

    def softmax(values):
        raised = np.exp(values - values.max(0))
        return raised / raised.sum(0)

    shares = softmax(logits)
    for reach in REACHES:
        updated = logits.copy()
        for y in range(height):
            for x in range(width):
                for dy in (-reach, 0, reach):
                    for dx in (-reach, 0, reach):
                        if dy or dx:
                            row, column = np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)
                            distance = ((colours[:, y, x] - colours[:, row, column]) ** 2).sum()
                            updated[:, y, x] += weight * np.exp(-distance / (2 * unit**2)) * shares[:, row, column]
        shares = softmax(updated)
    return shares


def test_formula():
    torch.manual_seed(0)
    logits, colours = 2 * torch.randn(4, 7, 9), 10 * torch.randn(3, 7, 9)
    shares = refine_division(logits, colours, weight=0.8, unit=6.0)
    np.testing.assert_allclose(shares.numpy(), by_hand(logits, colours, 0.8, 6.0), atol=1e-5)
    torch.testing.assert_close(shares.sum(0), torch.ones(7, 9))


def test_no_weight_and_no_masks():
    logits, colours = torch.randn(3, 6, 5), torch.randn(3, 6, 5)
    torch.testing.assert_close(refine_division(logits, colours, weight=0), logits.softmax(0))
    assert refine_division(logits[:0], colours).shape == (0, 6, 5)


def test_blurred_border_moves_to_the_edge_in_colour():
    columns = torch.arange(24.0)
    left = ((13 - columns) / 2).expand(20, -1)  # the division changes at column 13, slowly
    colours = torch.zeros(3, 20, 24)
    colours[0, :, 11:] = 50.0  # the photo changes at column 11
    owner = refine_division(torch.stack([left, -left]), colours).argmax(0)
    assert (owner[:, :11] == 0).all()
    assert (owner[:, 11:] == 1).all()


def test_small_region_disappears_unless_it_looks_different():
    logits = torch.zeros(2, 21, 21)
    logits[0], logits[0, 9:12, 9:12], logits[1, 9:12, 9:12] = 2.0, 0.0, 2.0
    plain, spot = torch.zeros(3, 21, 21), torch.zeros(3, 21, 21)
    spot[1, 9:12, 9:12] = 60.0
    assert (refine_division(logits, plain).argmax(0) == 0).all()
    owner = refine_division(logits, spot).argmax(0)
    assert (owner[9:12, 9:12] == 1).all()
    assert owner.sum() == 9

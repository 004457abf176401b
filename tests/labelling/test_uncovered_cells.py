"""Pixels in no mask have the name of their own cell."""

import numpy as np
import pytest

from deop.images.canvas import Canvas
from deop.labelling.assembly import semantic
from deop.labelling.masks import PhotoMasks
from deop.labelling.uncovered_cells import add_uncovered_cells

CANVAS = Canvas((64, 96), (32, 48), (32, 64))
SCORES = np.array([[0.25, 0.75, 0.0, 0.0]], np.float32)


def photo_masks(exact):
    """One mask, the left half of the photo: given as pixels, or as logits of a proposer at stride 4."""
    logits = np.full((1, 8, 16), -3.0, np.float32)
    logits[:, :, :6] = 3.0
    return PhotoMasks(logits, np.broadcast_to(np.arange(96) < 48, (1, 64, 96)) if exact else None)


def cells_of(names):
    """Cells of 16 pixels, (2, 3, 4), whose winners are ``names``."""
    return np.eye(4, dtype=np.float32)[np.array(names)]


@pytest.mark.parametrize("exact", [True, False])
def test_cells_outside_a_mask(exact):
    cells = cells_of([[0, 0, 2], [0, 0, 1]])
    scores, masks = add_uncovered_cells(SCORES, photo_masks(exact), CANVAS, cells, 16, none_competes=False)
    assert scores[1:].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    labels, confidence = semantic(scores, masks, CANVAS)
    assert (labels[:, :46] == 1).all()  # by the mask, although its own cells win name 0
    np.testing.assert_allclose(confidence[:, :40], 0.75, atol=0.06)
    # Centres of cells lie 32 pixels of the photo apart; names change half-way between them.
    assert (labels[:, 52:60] == 0).all()
    assert (labels[:30, 68:] == 2).all()
    assert (labels[34:, 68:] == 1).all()


def test_none_of_these_competes_only_with_a_background():
    cells = cells_of([[0, 0, 3], [0, 0, 3]]) + np.array([0, 0, 0.5, 0], np.float32)
    scores, masks = add_uncovered_cells(SCORES, photo_masks(True), CANVAS, cells, 16, none_competes=True)
    assert (semantic(scores, masks, CANVAS, none_competes=True).labels[:, 70:] == -1).all()
    scores, masks = add_uncovered_cells(SCORES, photo_masks(True), CANVAS, cells, 16, none_competes=False)
    assert (semantic(scores, masks, CANVAS).labels[:, 70:] == 2).all()


@pytest.mark.parametrize("exact", [True, False])
def test_without_masks_every_pixel_has_the_name_of_its_cell(exact):
    masks = PhotoMasks(np.zeros((0, 8, 16), np.float32), np.zeros((0, 64, 96), bool) if exact else None)
    cells = cells_of([[0, 1, 2], [2, 1, 0]])
    scores, masks = add_uncovered_cells(SCORES[:0], masks, CANVAS, cells, 16, none_competes=False)
    labels, confidence = semantic(scores, masks, CANVAS)
    assert labels[16::32, 16::32].tolist() == [[0, 1, 2], [2, 1, 0]]
    assert (labels >= 0).all()
    assert confidence[16, 16] == pytest.approx(1)


def test_names_that_do_not_take_part():
    cells = cells_of([[0, 0, 2], [0, 0, 2]])
    cells[..., 2] = -np.inf
    cells[:, 2, 1] = 0.5
    scores, masks = add_uncovered_cells(SCORES, photo_masks(True), CANVAS, cells, 16, none_competes=False)
    assert (semantic(scores, masks, CANVAS).labels[:, 76:] == 1).all()

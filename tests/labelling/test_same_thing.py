"""Pieces of one name in one mask are one thing; compared with a count pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.images.connected_regions import connected_regions
from deop.labelling.maps import PanopticMap, Piece, SemanticMap, divide_things, drop_weak_things
from deop.labelling.masks import PhotoMasks
from deop.labelling.same_thing import join_pieces, mask_cells
from deop.settings import Settings

CANVAS = Canvas((8, 16), (8, 16), (8, 16))


def masks_of(owner, count):
    """Logits at stride 1 of masks that do not overlap."""
    return PhotoMasks(np.where(np.arange(count)[:, None, None] == owner, 3.0, -3.0).astype(np.float32))


def test_a_cat_behind_a_pole_is_one_thing():
    labels = np.full((8, 16), 1, np.int32)  # a wall, two cats, and a pole in front of the first
    labels[2:6, 1:4] = labels[2:6, 5:8] = labels[2:6, 11:15] = 0
    labels[:, 4] = 2
    owner = np.zeros((8, 16), int)
    owner[1:7, 1:8], owner[2:6, 11:15] = 1, 2
    semantic = SemanticMap(labels, np.ones(labels.shape, np.float32))
    things = np.array([True, False, False])
    cats = [piece.class_id for piece in divide_things(semantic, things).pieces].count(0)
    assert cats == 3
    segments, pieces = divide_things(semantic, things, cells=mask_cells(masks_of(owner, 3), CANVAS))
    assert [piece.class_id for piece in pieces] == [1, 2, 0, 0]
    assert segments[3, 2] == segments[3, 6] != segments[3, 12]
    assert segments[3, 4] == 1  # the pole keeps its pixels


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), labels=st.integers(1, 3), masks=st.integers(1, 4))
def test_joined_pieces_have_four_fifths_in_one_mask(seed, labels, masks):
    generator = np.random.default_rng(seed)
    label_map = generator.integers(-1, labels, (8, 16)).astype(np.int32)
    owner = np.repeat(np.repeat(generator.integers(-1, masks, (4, 4)), 2, 0), 4, 1)
    regions = connected_regions(label_map)
    root = join_pieces(regions, mask_cells(masks_of(owner, masks), CANVAS))
    number = regions.paint(np.arange(len(regions.labels)))
    home = {}
    for region in range(len(regions.labels)):
        inside = owner[number == region]
        for mask in range(masks):
            if (inside == mask).sum() >= 0.8 * len(inside):
                home[region] = (int(regions.labels[region]), mask)
    for region in range(len(regions.labels)):
        same = [other for other in range(region + 1) if other in home and home.get(region) == home[other]]
        assert root[region] == (same[0] if same else region)


def test_cells_lie_at_their_centres_and_outside_photos_there_are_none():
    logits = np.full((1, 4, 4), -1, np.float32)
    logits[0, 1, 2] = 1
    cells = mask_cells(PhotoMasks(logits), Canvas((30, 60), (12, 16), (16, 16)))  # the last row of cells is padding
    assert len(cells.pixels) == 12
    assert cells.masks.tolist() == [-1] * 6 + [0] + [-1] * 5
    row, column = divmod(int(cells.pixels[6]), 60)
    assert (row, column) == (15, 37)  # 6 of 12 rows and 10 of 16 columns of the resized photo
    assert mask_cells(PhotoMasks(np.zeros((0, 4, 4), np.float32)), CANVAS).masks.max() == -1


def test_weak_things_are_dropped_and_stuff_stays():
    pieces = [Piece(0, 0.1, True), Piece(1, 0.1, False), Piece(0, 0.2, True)]
    segments, kept = drop_weak_things(PanopticMap(np.array([[0, 1, 2, -1]], np.int32), pieces), 0.2)
    assert segments.tolist() == [[-1, 0, 1, -1]]
    assert kept == pieces[1:]
    with pytest.raises(SettingError, match="thing_score"):
        replace(Settings(), thing_score=1.5)

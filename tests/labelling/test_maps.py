"""Things in a semantic map: by hand, against scipy's labelling, and through the modes of a model."""

import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import deop
from deop.config import from_json
from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.labelling.maps import SemanticMap, divide_things, only_things
from deop.labelling.masks import PhotoMasks
from deop.labelling.result import assemble
from deop.labelling.segments import names_of_masks
from deop.proposals.nano import NanoProposer
from deop.proposals.sam import SamProposer
from deop.proposals.types import Proposals
from deop.protocols import masks_are_instances
from deop.regions.encoding import EncodedPhoto
from deop.settings import Settings
from deop.text.calibration import Calibration
from deop.text.vocabulary import Vocabulary

CHELSEA = Path(__file__).parents[2] / "examples" / "chelsea.png"


def test_by_hand():
    """Two cats and a sliver of a third, a wall in two parts, and a pixel of no name."""
    labels = np.array([
        [0, 0, 1, 0, 0, 1],
        [0, 0, 1, 0, 0, 1],
        [1, 1, 1, 1, 1, -1],
        [1, 1, 0, 1, 1, 1],
    ], np.int32)  # fmt: skip
    confidence = np.where(labels == 0, 0.8, 0.5).astype(np.float32)
    confidence[0, 0] = 0.4
    segments, pieces = divide_things(SemanticMap(labels, confidence), np.array([True, False]), smallest_thing=2 / 24)
    assert segments.tolist() == [[0, 0, 1, 2, 2, 1], [0, 0, 1, 2, 2, 1], [1, 1, 1, 1, 1, -1], [1] * 6]
    assert [(piece.class_id, piece.isthing) for piece in pieces] == [(0, True), (1, False), (0, True)]
    # The pixel of the sliver keeps its confidence, 0.8, in the wall.
    np.testing.assert_allclose([piece.score for piece in pieces], [0.7, (14 * 0.5 + 0.8) / 15, 0.8], rtol=1e-6)
    segments, pieces = only_things(divide_things(SemanticMap(labels, confidence), np.array([True, False])))
    assert [piece.class_id for piece in pieces] == [0, 0, 0]
    np.testing.assert_array_equal(segments >= 0, labels == 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.3), st.integers(0, 9999))
def test_properties(height, width, smallest, seed):
    """Each piece of a thing is connected and large enough; each kind of stuff is one segment; no other pixel moves."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(-1, 3, (height, width)), np.ones((2, 2), int)).astype(np.int32)
    things, confidence = np.array([True, False, True]), rng.random(labels.shape, np.float32)
    segments, pieces = divide_things(SemanticMap(labels, confidence), things, smallest_thing=smallest)
    classes = np.array([*(piece.class_id for piece in pieces), -1])
    kinds = [piece.class_id for piece in pieces if not piece.isthing]
    assert len(kinds) == len(set(kinds))
    assert set(np.unique(segments)) - {-1} == set(range(len(pieces)))
    large = np.zeros(labels.shape, bool)
    for value in np.unique(labels):
        parts, count = ndimage.label(labels == value)
        for part in range(1, count + 1):
            if not (value >= 0 and things[value]) or (parts == part).sum() >= smallest * labels.size:
                large |= parts == part
    np.testing.assert_array_equal(classes[segments][large], labels[large])
    for index, piece in enumerate(pieces):
        assert piece.score == pytest.approx(confidence[segments == index].mean(), abs=1e-6)
        if piece.isthing:
            assert ndimage.label(segments == index)[1] == 1
            assert (segments == index).sum() >= smallest * labels.size or not large.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1)])
def test_thin_photos(shape):
    labels = np.zeros(shape, np.int32)
    segments, pieces = divide_things(
        SemanticMap(labels, np.ones(shape, np.float32)), np.array([True]), smallest_thing=1
    )
    assert (segments == 0).all()
    assert pieces == [(0, 1.0, True)]
    nothing = SemanticMap(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
    assert divide_things(nothing, np.array([True])).pieces == []


def halves(whole, names="cat, wall", threshold=0.0, calibration=None):
    """The assembled results, in both modes, of masks that divide a cat in two, beside a wall."""
    exact = torch.zeros(3, 10, 30, dtype=torch.bool)
    exact[0, :, :8], exact[1, :, 8:15], exact[2, :, 15:] = True, True, True
    photo = EncodedPhoto(
        np.zeros((10, 30, 3), np.uint8),
        Canvas((10, 30), (10, 30), (32, 32)),
        Proposals(torch.zeros(3, 8, 8), exact=exact),
        torch.zeros(3, 4),
        masks_are_instances=whole,
    )
    scores = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0]], np.float32)
    vocabulary = replace(Vocabulary.parse(names), isthing=(True, False))
    settings = Settings(calibration=calibration or Calibration())
    limits = [threshold, threshold] if isinstance(threshold, float) else list(threshold)
    return [assemble(photo, scores, vocabulary, settings, mode, limits, {}) for mode in ("panoptic", "instance")]


def test_masks_that_are_parts_form_one_thing():
    panoptic, instance = halves(whole=True)
    assert [segment.name for segment in panoptic.segments] == ["wall", "cat", "cat"]
    assert [segment.area for segment in instance.segments] == [80, 70]
    panoptic, instance = halves(whole=False)
    assert [(segment.name, segment.area) for segment in panoptic.segments] == [("cat", 150), ("wall", 150)]
    assert [(segment.name, segment.area, segment.isthing) for segment in instance.segments] == [("cat", 150, True)]
    assert instance.mode == "instance"
    np.testing.assert_array_equal(instance.label_map[:, 14:16], [[0, -1]] * 10)
    np.testing.assert_array_equal(instance.segments[0].mask, panoptic.label_map == 0)
    assert instance.segments[0].score == pytest.approx((80 * 0.9 + 70 * 0.6) / 150, abs=1e-6)


def test_minimum_scores_and_calibration_of_pieces():
    assert halves(False, threshold=(0.7, 0.0))[1].segments[0].area == 80  # the second half is below 0.7
    assert halves(False, threshold=(0.95, 0.0))[1].segments == []
    assert [segment.name for segment in halves(False, threshold=(0.0, 0.9))[0].segments] == ["cat"]
    curve = Calibration(curve=((0.0, 0.0), (1.0, 0.5)))
    cat = halves(False, calibration=curve)[1].segments[0]
    assert cat.score == pytest.approx(0.5 * (80 * 0.9 + 70 * 0.6) / 150, abs=1e-6)
    assert halves(False, threshold=(0.4, 0.0), calibration=curve)[1].segments[0].area == 80


class Proposer:
    """A proposer of the caller that does not say what its masks are."""


def test_which_masks_are_instances():
    assert masks_are_instances(Proposer())
    assert not NanoProposer.masks_are_instances
    assert not SamProposer.masks_are_instances
    own = Proposer()
    own.masks_are_instances = False
    assert not masks_are_instances(own)


@pytest.fixture(scope="module")
def nano():
    return deop.load("nano", engine="torch")


@pytest.mark.parametrize("mode", ["panoptic", "instance"])
def test_nano_finds_one_cat(nano, mode):
    with warnings.catch_warnings(action="ignore"):  # the wall is stuff
        result = nano.segment(CHELSEA, "cat, wall", mode=mode)
    cats = [segment for segment in result.segments if segment.name == "cat"]
    assert len(cats) == 1
    assert cats[0].share > 0.5
    assert (result.segment_map >= 0).mean() > 0.9 or mode == "instance"


def test_given_masks_are_instances(nano):
    masks = np.zeros((2, 300, 451), bool)
    masks[0, :, :200], masks[1, :, 200:] = True, True
    result = nano.segment(CHELSEA, ["cat"], mode="instance", masks=masks, threshold=0)
    assert {segment.area for segment in result.segments} == {300 * 251, 300 * 200}
    assert not nano.encode([CHELSEA])[0].masks_are_instances
    assert nano.encode([CHELSEA], [masks])[0].masks_are_instances


@pytest.mark.parametrize("mode", ["panoptic", "instance"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000)])
def test_nano_on_thin_photos(nano, mode, shape):
    photo = np.full((*shape, 3), 90, np.uint8)
    result = nano.segment(photo, ["cat", "dog"], mode=mode, threshold=0)
    assert result.shape == shape
    assert all(segment.isthing for segment in result.segments)


@pytest.mark.parametrize("whole", [False, True])
def test_no_proposals(nano, whole):
    encoded = nano.encode([np.zeros((20, 30, 3), np.uint8)])[0]
    nothing = replace(
        encoded,
        proposals=encoded.proposals.keep(torch.zeros(0, dtype=torch.int64)),
        regions=encoded.regions[:0],
        masks_are_instances=whole,
    )
    for mode in ("panoptic", "instance"):
        result = nano.label(nothing, ["cat", "dog"], mode=mode)
        assert result.segments == []
        assert (result.label_map == -1).all()


def test_stuff_needs_a_mask_of_its_own():
    """The wall is second in both masks, and wins where they overlap: as stuff it is no segment, as a thing it is."""
    exact = torch.zeros(2, 4, 10, dtype=torch.bool)
    exact[0, :, :6], exact[1, :, 4:] = True, True
    photo = EncodedPhoto(
        np.zeros((4, 10, 3), np.uint8),
        Canvas((4, 10), (4, 10), (32, 32)),
        Proposals(torch.zeros(2, 8, 8), exact=exact),
        torch.zeros(2, 4),
        masks_are_instances=False,
    )
    scores = np.array([[0.5, 0.1, 0.4, 0.0], [0.1, 0.5, 0.4, 0.0]], np.float32)
    for isthing, segments in (((True, True, False), 2), ((True, True, True), 3)):
        vocabulary = replace(Vocabulary.parse("cat, dog, wall"), isthing=isthing)
        result = assemble(photo, scores, vocabulary, Settings(), "panoptic", [0.0] * 3, {})
        assert len(result.segments) == segments
        assert (result.label_map[:, 4:6] == (2 if segments == 3 else -1)).all()
    assert names_of_masks(scores, photo.masks).tolist() == [True, True, False]
    assert names_of_masks(scores, photo.masks, threshold=np.array([0.6, 0, 0])).tolist() == [False, True, False]
    faint = PhotoMasks(np.broadcast_to(np.array([-1.0, 1.0], np.float32)[:, None, None], (2, 8, 8)))
    assert names_of_masks(scores, faint).tolist() == [False, True, False]


def test_settings_of_models_that_were_saved_before():
    values = asdict(Settings())
    del values["smallest_thing"]
    assert from_json(Settings, values, "the model").smallest_thing == Settings().smallest_thing == 0.005
    with pytest.raises(SettingError, match="smallest_thing 1 is not"):
        Settings(smallest_thing=1)

"""Calibration: rivals lower scores but get no pixels, seen names are lowered, scores follow a curve."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.errors import SettingError
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.regions.classification import classify
from deop.settings import Settings
from deop.text.calibration import Calibration
from deop.text.embedded_classes import Classes
from deop.text.embedding import calibrate_classes
from deop.text.vocabulary import Vocabulary

CURVE = ((0.1, 0.05), (0.5, 0.4), (0.9, 0.8))


def unit_rows(count):
    return np.eye(count, dtype=np.float32)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1))
def test_thresholds_mean_the_same_before_and_after_the_curve(raw):
    calibration = Calibration(curve=CURVE)
    for threshold in (0.05, 0.2, 0.4, 0.77):
        assert (raw >= calibration.raw(threshold)) == (calibration.score(raw) >= threshold - 1e-12) or np.isclose(
            raw, calibration.raw(threshold)
        )
    assert calibration.raw(0.95) > 1


def test_curve_by_hand():
    calibration = Calibration(curve=CURVE)
    assert calibration.score(0.3) == pytest.approx(0.225)
    assert calibration.score(0.0) == 0.05
    assert Calibration().score(0.3) == Calibration().raw(0.3) == 0.3
    with pytest.raises(SettingError, match="must ascend"):
        Calibration(curve=((0.5, 0.4), (0.4, 0.5)))


@pytest.mark.parametrize("argument", ["trained_names", "rivals"])
@pytest.mark.parametrize("names", [{"cat", "dog"}, "cat, dog"])
def test_names_are_given_as_a_list(argument, names):
    with pytest.raises(SettingError, match=f"{argument} must be a list of names"):
        Calibration(**{argument: names})


def test_seen_names_are_lowered_only_beside_unseen_names():
    rows = torch.eye(3)
    vocabulary = Vocabulary.parse(["Cat", "dog", "wall"], templates="none")
    classes = Classes(rows.numpy(), np.arange(3), vocabulary.names)
    lowered = calibrate_classes(classes, vocabulary.texts, Calibration(("cat", "wall"), 2.0))
    assert (classify(rows, lowered) - classify(rows, classes))[:, :3].unique(dim=0).tolist() == [[-2, 0, -2]]
    for trained in (("cat", "wall", "dog"), ("tree",)):
        assert calibrate_classes(classes, vocabulary.texts, Calibration(trained, 2.0)).offset is None


@pytest.mark.parametrize(("requested", "offset"), [(["cat|puss", "dog"], None), (["cat|puss", "robot"], [-2, -2, 0])])
def test_name_is_seen_if_any_synonym_is(requested, offset):
    vocabulary = Vocabulary.parse(requested, templates="none")
    owner = np.array([index for index, texts in enumerate(vocabulary.synonyms) for _ in texts])
    classes = Classes(unit_rows(3), owner, vocabulary.names)
    actual = calibrate_classes(classes, vocabulary.texts, Calibration(("cat", "dog"), 2.0)).offset
    assert (None if actual is None else actual.tolist()) == offset


@pytest.mark.parametrize(
    ("requested", "offset"), [(["robot"], [0, -2, 0]), (["cat"], None), (["cat", "robot"], [-2, 0, -2, 0])]
)
def test_seen_rivals_are_lowered_beside_unseen_names(requested, offset):
    vocabulary = Vocabulary.parse(requested, templates="none")
    classes = Classes(unit_rows(5)[: len(requested)], np.arange(len(requested)), vocabulary.names)
    settings = Calibration(("cat", "dog"), 2.0, rivals=("dog", "ghost"))
    actual = calibrate_classes(classes, vocabulary.texts, settings, settings.rivals, unit_rows(5)[3:]).offset
    assert (None if actual is None else actual.tolist()) == offset


def test_rivals_that_mean_the_same_are_left_out():
    requested = Classes(unit_rows(4)[:2], np.arange(2), ("cat", "dog"))
    rivals = ("hound", "tree", "car")
    classes = calibrate_classes(requested, ("cat", "dog"), Calibration(rival_similarity=0.5), rivals, unit_rows(4)[1:])
    assert classes.owner.tolist() == [0, 1, 2, 2]
    assert np.array_equal(classes.rows[2:], unit_rows(4)[2:])


def test_rivals_lower_scores_and_get_no_pixels(tiny_clip):
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    rng = np.random.default_rng(0)
    photo, masks = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), np.arange(60 * 80).reshape(60, 80) // 1600 + 1
    plain = DeOP(*parts, settings=Settings(Resize(64), templates="none")).eval()
    calibration = Calibration(rivals=("tree", "car", "sofa"), rival_similarity=1.0)
    calibrated = DeOP(*parts, settings=Settings(Resize(64), templates="none", calibration=calibration)).eval()
    scores = {}
    for name in ("cat", "dog", "wall", "a red bus", "x"):
        first, second = (model.segment(photo, name, masks=masks) for model in (plain, calibrated))
        assert (first.label_map == second.label_map).all()
        assert first.segments[0].score == pytest.approx(1)
        scores[name] = second.segments[0].score
    name, lowest = min(scores.items(), key=lambda item: item[1])
    assert lowest < 0.99
    assert (calibrated.segment(photo, name, masks=masks, threshold=1.0).label_map == -1).all()

"""Names of a built-in vocabulary: those that a photo shows are kept."""

import numpy as np
import pytest
import torch

from deop import surface as module
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.images.canvas import Canvas
from deop.images.preprocessing import Resize
from deop.labelling.masks import PhotoMasks
from deop.labelling.present_names import keep_present, present_names
from deop.model import DeOP
from deop.settings import Settings
from deop.text.builtin import builtin_vocabulary

SIZE = (20, 30)
CANVAS = Canvas(SIZE, SIZE, SIZE)


def photo_masks():
    """Three stripes: 60, 30 and 10 % of the photo."""
    masks = np.zeros((3, *SIZE), bool)
    masks[0, :, :18], masks[1, :, 18:27], masks[2, :, 27:] = True, True, True
    return PhotoMasks(np.zeros((3, 5, 8), np.float32), masks)


PROBABILITIES = np.array(
    [
        [0.9, 0.02, 0.05, 0.0, 0.03],
        [0.3, 0.4, 0.2, 0.0, 0.1],
        [0.1, 0.2, 0.6, 0.0, 0.1],
    ],
    np.float32,
)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ([(0, 0)], [0, 1, 2]),
        ([(0.2, 0)], [0, 1]),
        ([(0, 0.5)], [0, 2]),
        ([(0.2, 0.5)], [0]),
        ([(0.2, 0.3), (0.05, 0.55)], [0, 1, 2]),  # a small region needs a higher score
        ([(0.2, 0.3), (0.05, 0.65)], [0, 1]),
        ([(0.9, 0)], [0]),
        ([(0, 1)], [0]),
    ],
)
def test_names_that_are_kept(limits, kept):
    """Name 3 has no pixel; the name with the most pixels always stays."""
    result = keep_present(PROBABILITIES, photo_masks(), CANVAS, limits=limits)
    assert np.flatnonzero((result[:, :4] > 0).any(0)).tolist() == kept
    expected = PROBABILITIES[:, [*kept, 4]]
    np.testing.assert_allclose(result[:, [*kept, 4]], expected / expected.sum(1, keepdims=True), rtol=1e-6)


def test_the_result_is_the_softmax_over_the_names_that_are_kept():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).mul(3)
    result = keep_present(logits.softmax(1).numpy(), photo_masks(), CANVAS, limits=[(1, 1)])
    [kept] = np.flatnonzero((result[:, :4] > 0).any(0)).tolist()
    np.testing.assert_allclose(result[:, [kept, 4]], logits[:, [kept, 4]].softmax(1), rtol=1e-5)


def test_of_names_that_share_a_score_the_strongest_is_kept():
    """Names 1 and 2 both miss the limit. Without 2, the weaker one, 1 has the share of both."""
    probabilities = np.array([[1.0, 0, 0, 0, 0], [0, 0.45, 0.35, 0.2, 0], [0, 0.35, 0.4, 0.25, 0]], np.float32)
    result = keep_present(probabilities, photo_masks(), CANVAS, limits=[(0.05, 0.5)])
    assert result.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_maps_without_names():
    empty = np.full((4, 4), -1, np.int32)
    assert not present_names(empty, np.zeros((4, 4), np.float32), 3, [(0, 0)]).any()
    assert present_names(empty + 2, np.ones((4, 4), np.float32), 3, [(0, 0)]).tolist() == [False, True, False]


@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_a_photo_keeps_few_of_many_names(tiny_clip, mode, monkeypatch):
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    model = DeOP(*parts, settings=Settings(Resize(64), templates="none")).eval()
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    masks = np.arange(60 * 80).reshape(60, 80) // 400 + 1
    vocabulary = builtin_vocabulary("cityscapes")
    columns = np.array([*(name == "car" for name in vocabulary.names), True])
    monkeypatch.setattr(module, "keep_present", lambda probabilities, *_, **__: probabilities * columns)
    result = model.segment(photo, vocabulary, masks=masks, mode=mode)
    assert {segment.name for segment in result.segments} == {"car"}
    assert result.names == vocabulary.names  # ids do not depend on the photo
    assert result.settings["vocabulary"] == "cityscapes"
    assert result.settings["templates"] == ["{}"]  # the model's own
    assert "vocabulary" not in model.segment(photo, list(vocabulary.names), masks=masks).settings

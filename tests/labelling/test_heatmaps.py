"""Heatmaps: the formula, agreement with the label map, and the patches of the regions that got a name."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deop.batch.streaming import segment_stream
from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.labelling.assembly import semantic
from deop.labelling.heatmaps import anchor_heatmaps, score_heatmaps
from deop.labelling.masks import PhotoMasks
from deop.proposals.types import Proposals
from deop.regions.windows import mask_blocks
from deop.text.calibration import Calibration
from deop.zoo import load

CANVAS = Canvas(photo=(90, 130), resized=(60, 80), padded=(64, 96))


def random_logits(count: int = 9) -> torch.Tensor:
    logits = torch.randn(1, count, 5, 7, generator=torch.Generator().manual_seed(0))
    return 4 * F.interpolate(logits, (32, 48), mode="bicubic")[0]


def random_masks(count: int = 9) -> PhotoMasks:
    return PhotoMasks(random_logits(count).numpy())


def random_probabilities(count: int = 9, names: int = 4) -> np.ndarray:
    return torch.randn(count, names + 1, generator=torch.Generator().manual_seed(1)).mul(2).softmax(-1).numpy()


def test_scores_by_the_formula():
    photo_masks, probabilities = random_masks(), random_probabilities()
    masks = torch.cat([block for *_, block in mask_blocks(Proposals(random_logits()), CANVAS)], 1)
    expected = torch.einsum("nk,nhw->khw", torch.from_numpy(probabilities), masks) / masks.sum(0).clamp_min(1)
    heatmaps = score_heatmaps(probabilities, photo_masks, CANVAS, [2, 0])
    assert heatmaps.dtype == np.float32
    np.testing.assert_allclose(heatmaps, expected[[2, 0]].numpy(), atol=2e-6)


def test_the_label_map_has_the_highest_score():
    photo_masks, probabilities = random_masks(), random_probabilities()
    heatmaps = score_heatmaps(probabilities, photo_masks, CANVAS, range(4))
    labels, confidence = semantic(probabilities, photo_masks, CANVAS, threshold=0.3)
    np.testing.assert_allclose(heatmaps.max(0), confidence, atol=2e-6)
    clear = np.abs(heatmaps.max(0) - 0.3) > 1e-5
    expected = np.where(heatmaps.max(0) >= 0.3, heatmaps.argmax(0), -1)
    assert (expected == labels)[clear].mean() > 0.999  # rounding may decide between equal scores


def test_given_masks():
    exact = np.zeros((2, 90, 130), bool)
    exact[0, :40], exact[1, 30:, :50] = True, True
    photo_masks = PhotoMasks(random_logits(2).numpy(), exact)
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], np.float32)
    first, second = score_heatmaps(probabilities, photo_masks, CANVAS, [0, 1])
    assert first[0, 0] == pytest.approx(0.7)
    assert first[35, 10] == pytest.approx(0.4)  # two masks
    assert second[80, 10] == pytest.approx(0.6)
    assert first[80, 100] == 0


def test_scores_are_calibrated():
    photo_masks, probabilities = random_masks(), random_probabilities()
    calibration = Calibration(curve=((0.1, 0.0), (0.5, 0.3), (0.9, 1.0)))
    raw = score_heatmaps(probabilities, photo_masks, CANVAS, [1])
    calibrated = score_heatmaps(probabilities, photo_masks, CANVAS, [1], calibration)
    expected = np.vectorize(calibration.score)(raw)
    np.testing.assert_allclose(calibrated, expected, atol=1e-6)
    assert calibrated.dtype == np.float32


def test_nothing_to_compute():
    nothing = PhotoMasks(np.zeros((0, 32, 48), np.float32))
    assert score_heatmaps(np.zeros((0, 3), np.float32), nothing, CANVAS, [0]).max() == 0
    assert score_heatmaps(random_probabilities(), random_masks(), CANVAS, []).shape == (0, 90, 130)


def test_anchor_heatmaps():
    """Each region looks at one patch; the photo is 1.5 and 1.625 times the network input, whose patches have 16."""
    weights = np.zeros((2, 3, 4, 5), np.float32)  # heads, regions, patches
    weights[:, 0, 1, 1] = 0.5
    weights[:, 1, 3, 4] = 0.25
    weights[0, 2, 0, 0] = 0.5
    probabilities = np.array([[0.8, 0.1, 0.1, 0], [0.8, 0.1, 0.1, 0], [0.3, 0.6, 0.1, 0]], np.float32)
    first, second, third = anchor_heatmaps(weights.mean(0), probabilities, CANVAS, [0, 1, 2], 16)
    row, column = np.unravel_index(first.argmax(), first.shape)
    assert abs(row - 24 * 1.5) < 3
    assert abs(column - 24 * 1.625) < 3
    assert first.max() == pytest.approx(1, abs=0.1)
    assert first[80, 118] == pytest.approx(0.5, abs=0.1)  # half the weight
    assert second.argmax() == 0
    assert third.max() == 0


def test_anchor_heatmaps_equal_two_resizes():
    """From the patches to the network input, and the part of it that the photo covers to the photo."""
    weights = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(2))
    expected = F.interpolate(weights[None, :1] / weights[0].max(), scale_factor=16, mode="bilinear")[..., :60, :80]
    expected = F.interpolate(expected, CANVAS.photo, mode="bilinear")[0]
    probabilities = np.eye(3, 4, dtype=np.float32)
    np.testing.assert_allclose(anchor_heatmaps(weights.numpy(), probabilities, CANVAS, [0], 16), expected, atol=1e-6)


def test_crops_have_no_anchor_heatmaps():
    with pytest.raises(SettingError, match="two-stream"):
        anchor_heatmaps(None, random_probabilities(3), CANVAS, [0], 16)


def test_the_model_computes_the_heatmaps_that_it_is_asked_for():
    nano = load("nano", engine="torch", device="cpu")
    photo = np.random.default_rng(0).integers(0, 256, (70, 110, 3)).astype(np.uint8)
    names = "cat, sofa|couch, wall"
    result = nano.segment(photo, names, heatmaps="Couch, wall", threshold=0)
    assert list(result.heatmaps) == ["sofa", "wall"]
    assert result.heatmaps["sofa"].shape == (70, 110)
    assert not nano.segment(photo, names).heatmaps
    [streamed] = segment_stream(nano, [photo], names, heatmaps=["sofa"], threshold=0)
    np.testing.assert_allclose(streamed.heatmaps["sofa"], result.heatmaps["sofa"], atol=1e-5)
    looked = nano.anchor_heatmaps(nano.encode([photo])[0], names, "couch")
    assert looked["sofa"].shape == (70, 110)
    for call in (nano.segment, lambda photo, *rest, **options: segment_stream(nano, [photo], *rest, **options)):
        with pytest.raises(SettingError, match="'dog' is not one of the requested names"):
            call("missing.jpg", names, heatmaps="dog")  # before the photo is read

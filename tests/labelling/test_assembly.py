"""Assembly: against the computation on the whole photo, by hand, and within bounded memory."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.images.canvas import Canvas
from deop.labelling import assembly, windows
from deop.labelling.assembly import semantic
from deop.labelling.masks import PhotoMasks
from deop.labelling.segments import instances, panoptic
from deop.labelling.windows import mask_strips
from deop.proposals.types import Proposals
from deop.regions import on_device
from deop.regions.on_device import label_without_waiting


def masks_of(logits, exact=None):
    """Tensors as the masks of a photo."""
    return PhotoMasks(logits.numpy(), None if exact is None else exact.numpy())


def whole_masks(logits, canvas):
    """docs/method.md §6, computed at once."""
    upsampled = F.interpolate(logits[None], size=canvas.padded, mode="bilinear", align_corners=False)[0]
    inside = upsampled[:, : canvas.resized[0], : canvas.resized[1]].sigmoid()
    return F.interpolate(inside[None], size=canvas.photo, mode="bilinear", align_corners=False)[0]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 40), st.booleans(), st.integers(5, 40), st.integers(1, 5000),
    st.sampled_from([(37, 53), (30, 44), (130, 97), (17, 20)]), st.integers(0, 1000),
)  # fmt: skip
def test_semantic_in_windows_equals_the_whole(proposals, names, competes, side, most, photo, seed):
    """For any window size, windows that are split into quarters, photos larger and smaller than the input."""
    torch.manual_seed(seed)
    canvas = Canvas(photo, (30, 44), (32, 64))
    logits, scores = 3 * torch.randn(proposals, 8, 16), (3 * torch.randn(proposals, names + 1)).softmax(1)
    votes = scores if competes else scores[:, :-1]
    expected = torch.einsum("nk,nhw->khw", votes, whole_masks(logits, canvas))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", side)
        patch.setattr(windows, "MIN_SIDE", 3)
        patch.setattr(assembly, "MAX_VOTES", most)
        result = semantic(scores.numpy(), masks_of(logits), canvas, none_competes=competes)
    chosen = torch.from_numpy(result.labels).long()
    chosen = torch.where(chosen < 0, names, chosen)
    best = expected.amax(0)
    torch.testing.assert_close(expected.gather(0, chosen[None])[0], best, atol=1e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12), st.integers(200, 400), st.booleans(), st.floats(0.01, 6), st.integers(1, 500),
    st.integers(0, 1000),
)  # fmt: skip
def test_excluding_names_is_exact(proposals, names, competes, sharpness, first, seed):
    """Also of more than 255 names, if they are similar, and however few of them are compared first."""
    torch.manual_seed(seed)
    canvas = Canvas((37, 53), (30, 44), (32, 64))
    logits, scores = 3 * torch.randn(proposals, 8, 16), (sharpness * torch.randn(proposals, names + 1)).softmax(1)
    votes = scores if competes else scores[:, :-1]
    expected = torch.einsum("nk,nhw->khw", votes, whole_masks(logits, canvas))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "MAX_VOTES", 1 << 20)
        patch.setattr(assembly, "SHORT_LIST", first)
        patch.setattr(windows, "WINDOW", 16)
        result = semantic(scores.numpy(), masks_of(logits), canvas, none_competes=competes)
    chosen = torch.from_numpy(result.labels).long()
    chosen = torch.where(chosen < 0, names, chosen)
    torch.testing.assert_close(expected.gather(0, chosen[None])[0], expected.amax(0), atol=1e-5, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.booleans(), st.sampled_from([0.0, 0.4]), st.integers(0, 1000))
def test_the_map_computed_on_a_gpu_equals_that_of_windows(proposals, names, competes, limit, seed):
    """The same steps on the CPU give the same labels, except where the votes of two names are practically equal."""
    torch.manual_seed(seed)
    canvas = Canvas((37, 53), (30, 44), (32, 64))
    logits, scores = 3 * torch.randn(proposals, 8, 16), (3 * torch.randn(proposals, names + 1)).softmax(1)
    expected = semantic(scores.numpy(), masks_of(logits), canvas, none_competes=competes, threshold=limit, claim=limit)
    votes = scores if competes else scores[:, :-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device, "GPU_BLOCK", 30_000)  # several blocks of rows
        labels, confidence = label_without_waiting(
            votes, Proposals(logits), canvas, names=names, threshold=limit, claim=limit
        )
    np.testing.assert_allclose(confidence.numpy(), expected.confidence, atol=1e-5)
    assert (labels.numpy() == expected.labels).mean() > 0.995


@pytest.mark.parametrize("first", [10, 301, 512])
def test_a_name_that_is_best_in_no_mask_can_win(first, monkeypatch):
    """By hand: each of ten masks has twenty names at 0.04, and all masks have one name at 0.03: 0.3 beats 0.04."""
    monkeypatch.setattr(assembly, "SHORT_LIST", first)
    scores = torch.zeros(10, 302)
    scores[:, 250] = 0.03
    for mask in range(10):
        scores[mask, 20 * mask : 20 * mask + 20] = 0.04
    canvas = Canvas((16, 16), (16, 16), (32, 32))
    result = semantic(scores.numpy(), masks_of(torch.full((10, 8, 8), 30.0)), canvas)
    assert (result.labels == 250).all()
    np.testing.assert_allclose(result.confidence, 0.03, atol=1e-4)


def test_of_many_names_few_are_compared_in_each_window(monkeypatch):
    """Where a few names have nearly everything, the others are not looked at: 10,000 names take hardly longer."""
    monkeypatch.setattr(assembly._NameLists, "_of_all", None)  # would fail
    torch.manual_seed(0)
    logits = 3 * torch.randn(10, 3000)
    logits[torch.arange(10), torch.randint(0, 3000, (10,))] = 20
    canvas = Canvas((64, 64), (64, 64), (64, 64))
    masks = torch.full((10, 16, 16), -9.0)
    masks[torch.arange(16) * 10 // 16, torch.arange(16)] = 9
    result = semantic(logits.softmax(1).numpy(), masks_of(masks), canvas)
    assert set(np.unique(result.labels)) == set(logits.argmax(1).tolist())


def test_masks_that_are_constant_in_a_window_also_vote(monkeypatch):
    """Masks with a lower limit, like those of the small model: few of them vary within a window."""
    torch.manual_seed(0)
    canvas = Canvas((90, 130), (60, 87), (64, 96))
    logits = torch.full((40, 16, 24), -6.0)
    for index, (y, x) in enumerate(torch.randint(0, 14, (40, 2)).tolist()):
        logits[index, y : y + 3, x : x + 5] = 3 * torch.randn(1)
    scores = (4 * torch.randn(40, 61)).softmax(1)
    monkeypatch.setattr(windows, "WINDOW", 16)
    parts = [window for strip in mask_strips(masks_of(logits), canvas) for window in strip.windows]
    assert max(len(window.varying) for window in parts) < 30
    masks = torch.zeros(40, 90, 130)
    for window in parts:
        part = np.broadcast_to(window.low[:, None, None], (40, *window.shape)).copy()
        part[window.varying] = window.enlarge(window.at_input(window.varying))
        masks[:, window.rows, window.columns] = torch.from_numpy(part)
        assert (part.min((1, 2)) >= window.low - 1e-6).all()
        assert (part.max((1, 2)) <= window.high + 1e-6).all()
    expected = whole_masks(logits, canvas)
    torch.testing.assert_close(masks, expected, atol=1e-6, rtol=1e-4)
    best, winner = torch.einsum("nk,nhw->khw", scores[:, :-1], expected).max(0)
    result = semantic(scores.numpy(), masks_of(logits), canvas)
    assert (result.labels != winner.numpy()).mean() < 1e-3
    np.testing.assert_allclose(result.confidence, best / expected.sum(0).clamp_min(1), atol=1e-5)


def test_unclaimed_pixels_threshold_and_empty_input():
    exact = torch.zeros(2, 10, 12, dtype=torch.bool)
    exact[0, :4], exact[1, 6:] = True, True
    canvas = Canvas((10, 12), (10, 12), (32, 32))
    masks = masks_of(torch.zeros(2, 8, 8), exact)
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.4, 0.5]], np.float32)
    labels, confidence = semantic(scores, masks, canvas)
    assert (labels[:4] == 0).all()
    assert (labels[4:6] == -1).all()
    assert (labels[6:] == 1).all()
    np.testing.assert_allclose(confidence[[0, 5, 9], 0], [0.7, 0, 0.4], rtol=1e-6)
    assert (semantic(scores, masks, canvas, threshold=0.5).labels[6:] == -1).all()
    assert (semantic(scores, masks, canvas, none_competes=True).labels[6:] == -1).all()
    nothing = masks_of(torch.zeros(0, 8, 8))
    assert (semantic(np.zeros((0, 3), np.float32), nothing, canvas).labels == -1).all()
    assert panoptic(np.zeros((0, 3), np.float32), nothing, canvas, np.array([True, True])).pieces == []
    assert list(instances(np.zeros((0, 3), np.float32), nothing, canvas, np.array([True, True]))) == []


def scene():
    """Two cats side by side, two parts of a wall, one mask of "none of these"."""
    exact = torch.zeros(5, 8, 20, dtype=torch.bool)
    exact[0, :4, :5] = exact[1, :4, 5:10] = True
    exact[2, 4:, :10] = exact[3, 4:, 10:] = True
    exact[4, :4, 10:] = True
    scores = [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.1, 0.1, 0.8]]
    return (
        np.array(scores, np.float32),
        masks_of(torch.zeros(5, 2, 5), exact),
        Canvas((8, 20), (8, 20), (8, 20)),
        np.array([True, False]),
    )


def test_panoptic_separates_things_and_merges_stuff():
    segments, pieces = panoptic(*scene())
    assert [(piece.class_id, piece.isthing) for piece in pieces] == [(0, True), (0, True), (1, False)]
    assert pieces[2].score == pytest.approx((0.7 * 40 + 0.5 * 40) / 80)
    assert segments[0, 0] == 0
    assert segments[0, 7] == 1
    assert (segments[4:] == 2).all()
    assert (segments[:4, 10:] == -1).all()
    assert len(panoptic(*scene(), threshold=0.85).pieces) == 1


def test_panoptic_drops_hidden_proposals():
    scores, masks, canvas, things = scene()
    exact = masks.exact.copy()
    exact[1] = exact[0]  # the second cat is completely covered by the first, whose score is higher
    pieces = panoptic(scores, PhotoMasks(masks.logits, exact), canvas, things).pieces
    assert [piece.class_id for piece in pieces] == [0, 1]


def test_instances_are_things_by_descending_score():
    scores, masks, canvas, things = scene()
    result = list(instances(scores, masks, canvas, things))
    assert [(piece.class_id, round(piece.score, 3)) for piece, _ in result] == [(0, 0.9), (0, 0.8)]
    np.testing.assert_array_equal(result[0][1], masks.exact[0])
    assert len(list(instances(scores, masks, canvas, things, threshold=0.85))) == 1


def test_order_of_proposals_and_empty_proposals_have_no_effect():
    torch.manual_seed(0)
    canvas, order = Canvas((37, 53), (30, 44), (32, 64)), torch.randperm(7)
    logits, scores = 3 * torch.randn(7, 8, 16), torch.randn(7, 5).softmax(1)
    expected = semantic(scores.numpy(), masks_of(logits), canvas)
    permuted = semantic(scores[order].numpy(), masks_of(logits[order]), canvas)
    extra = torch.cat([logits, torch.full((1, 8, 16), -1e4)])
    padded = semantic(torch.cat([scores, scores[:1]]).numpy(), masks_of(extra), canvas)
    for result in (permuted, padded):
        assert (result.labels != expected.labels).mean() < 1e-3
        np.testing.assert_allclose(result.confidence, expected.confidence, atol=1e-5)


@pytest.mark.slow
def test_memory_with_ten_thousand_names():
    """10,000 names on a photo of 2,048 x 2,048 need less than 2 GiB."""
    script = """
import resource, torch
from deop.images.canvas import Canvas
from deop.labelling.assembly import semantic
from deop.labelling.masks import PhotoMasks
torch.manual_seed(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
regions, rows = (torch.nn.functional.normalize(torch.randn(n, 512), dim=1) for n in (100, 10_001))
scores = (100 * regions @ rows.T).softmax(1)
blobs = torch.nn.functional.interpolate(torch.randn(1, 100, 12, 12), size=(128, 128), mode="bicubic")[0]
canvas = Canvas((2048, 2048), (512, 512), (512, 512))
result = semantic(scores.numpy(), PhotoMasks((15 * (blobs - 1)).numpy()), canvas)
assert result.labels.shape == (2048, 2048)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert float(output) < 2.0


def test_small_regions_get_the_label_of_their_surroundings():
    exact = torch.zeros(3, 20, 20, dtype=torch.bool)
    exact[0], exact[1, 4:7, 4:7], exact[2, 10:16, 10:16] = True, True, True
    masks, canvas = masks_of(torch.zeros(3, 5, 5), exact), Canvas((20, 20), (20, 20), (20, 20))
    scores = np.array([[0.3, 0.0, 0.7], [0.1, 0.9, 0.0], [0.0, 0.8, 0.2]], np.float32)
    plain, clean = (semantic(scores, masks, canvas, smallest_region=share) for share in (0.0, 10 / 400))
    assert (plain.labels == 1).sum() == 9 + 36
    assert ((clean.labels == 1) == exact[2].numpy()).all()
    np.testing.assert_array_equal(clean.confidence, plain.confidence)
    things = np.array([False, True])
    scores = np.array([[0.8, 0.0, 0.2], [0.1, 0.9, 0.0], [0.0, 0.9, 0.1]], np.float32)
    segments, pieces = panoptic(scores, masks, canvas, things, overlap=0.5, smallest_region=10 / 400)
    assert [piece.class_id for piece in pieces] == [0, 1, 1]
    assert (segments == np.where(exact[2].numpy(), 2, 0)).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 5), st.floats(0, 1), st.integers(4, 40),
    st.sampled_from([(37, 53), (30, 44), (130, 97)]), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_segments_in_windows_equal_the_whole(count, names, overlap, side, photo, exact, seed):
    """Owner and area of each mask by the definition, on the whole photo at once."""
    torch.manual_seed(seed)
    canvas = Canvas(photo, (30, 44), (32, 64))
    logits, scores = 6 * torch.randn(count, 8, 16), (3 * torch.randn(count, names + 1)).softmax(1)
    whole = whole_masks(logits, canvas)
    masks = masks_of(logits, whole > 0.3 if exact else None)
    whole = (whole > 0.3).float() if exact else whole
    best, classes = scores.max(1)
    kept = (classes < names).nonzero()[:, 0]
    best, classes, whole = best[kept], classes[kept], whole[kept]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", side)
        things = list(instances(scores.numpy(), masks, canvas, np.ones(names, bool)))
        result = panoptic(scores.numpy(), masks, canvas, np.ones(names, bool), overlap=overlap)
    covers = whole >= 0.5
    mean = best * (whole * covers).sum((1, 2)) / covers.sum((1, 2)).clamp_min(1)
    visible = covers.flatten(1).any(1)
    expected = sorted(zip(mean[visible].tolist(), classes[visible].tolist(), strict=True), reverse=True)
    np.testing.assert_allclose([piece.score for piece, _ in things], [score for score, _ in expected], atol=1e-5)
    areas = sorted(covers[visible].sum((1, 2)).tolist())
    np.testing.assert_allclose(sorted(int(mask.sum()) for _, mask in things), areas, atol=2)  # rounding at 0.5
    if not len(kept):
        assert result.pieces == []
        return
    owner = (best[:, None, None] * whole).argmax(0)
    owner = torch.where(covers.gather(0, owner[None])[0], owner, -1)
    won = torch.stack([(owner == index).sum() for index in range(len(kept))])
    share = won / covers.sum((1, 2)).clamp_min(1)
    if ((share - overlap).abs() < 0.01).any():
        return  # rounding may decide
    number = torch.full((len(kept) + 1,), -1)
    chosen = (won > 0) & (share >= overlap)
    number[:-1][chosen] = torch.arange(int(chosen.sum()))
    assert [piece.class_id for piece in result.pieces] == classes[chosen].tolist()
    assert (torch.from_numpy(result.segments) != number[owner]).float().mean() < 0.005


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 300])
def test_the_first_of_equal_maps_is_the_strongest(count):
    maps = np.random.default_rng(count).integers(0, 4, (count, 6, 7)).astype(np.float32)
    top, index = assembly.strongest(maps)
    np.testing.assert_array_equal(top, maps.max(0))
    np.testing.assert_array_equal(index, maps.argmax(0))
    assert (top.dtype, index.dtype) == (np.float32, np.int64)


def halves_of_a_photo(scores, height=4, **options):
    """One mask that covers all 16 pixels, and the labels and confidences that its scores give."""
    exact = torch.ones(len(scores), height, 4, dtype=torch.bool)
    masks = masks_of(torch.zeros(len(scores), 2, 2), exact)
    return semantic(np.array(scores, np.float32), masks, Canvas((height, 4), (height, 4), (4, 4)), **options)


@pytest.mark.parametrize(("threshold", "label"), [(0.0, 0), (0.7, 0), (0.71, -1), ([0.7, 1.0], 0), ([0.71, 0.0], -1)])
def test_a_confidence_that_equals_its_threshold_is_enough(threshold, label):
    """0.7 has no exact form in single precision: threshold and confidence must be rounded alike."""
    result = halves_of_a_photo([[0.7, 0.2, 0.1]], threshold=np.array(threshold) if label < 1 else threshold)
    assert (result.labels == label).all()
    np.testing.assert_array_equal(result.confidence, np.float32(0.7))
    assert (result.labels.dtype, result.confidence.dtype) == (np.int32, np.float32)


def test_the_threshold_is_that_of_the_winner():
    limits = assembly.limits_of(np.array([0.3, 0.6]), 2)
    assert limits.dtype == np.float32
    np.testing.assert_array_equal(limits, np.array([0.3, 0.6, 0], np.float32))
    np.testing.assert_array_equal(assembly.limits_of(0.5, 3), [0.5, 0.5, 0.5, 0])
    assert (halves_of_a_photo([[0.5, 0.4, 0.1]], threshold=np.array([0.4, 0.9])).labels == 0).all()
    assert (halves_of_a_photo([[0.4, 0.5, 0.1]], threshold=np.array([0.4, 0.9])).labels == -1).all()


def test_a_sum_of_masks_that_equals_the_claim_is_too_small():
    assert (halves_of_a_photo([[0.7, 0.2, 0.1]], claim=1.0).labels == -1).all()
    assert (halves_of_a_photo([[0.7, 0.2, 0.1]], claim=0.99).labels == 0).all()


def test_everything_else_gets_unsure_pixels_and_none_of_these_its_own():
    scores = [[0.3, 0.1, 0.6]]
    assert (halves_of_a_photo(scores, threshold=0.5, everything_else=1).labels == 1).all()
    assert (halves_of_a_photo(scores, claim=2.0, everything_else=1).labels == 1).all()
    assert (halves_of_a_photo(scores, none_competes=True, everything_else=1).labels == -1).all()
    assert (halves_of_a_photo(scores, none_competes=True, claim=2.0, everything_else=1).labels == 1).all()
    assert (halves_of_a_photo(scores, everything_else=1).labels == 0).all()


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.ones((2, 1))], ids=["no masks", "no names"])
@pytest.mark.parametrize("everything_else", [-1, 1])
def test_without_masks_or_names_all_pixels_are_everything_else(scores, everything_else):
    result = halves_of_a_photo(scores, everything_else=everything_else)
    assert result.labels.shape == result.confidence.shape == (4, 4)
    assert (result.labels == everything_else).all()
    assert (result.confidence == 0).all()
    assert (result.labels.dtype, result.confidence.dtype) == (np.int32, np.float32)


def test_scores_in_double_precision_are_read_and_not_changed():
    scores = np.random.default_rng(0).random((3, 6))
    before, masks = scores.copy(), masks_of(torch.randn(3, 8, 8))
    canvas = Canvas((16, 16), (16, 16), (32, 32))
    result, single = semantic(scores, masks, canvas), semantic(scores.astype(np.float32), masks, canvas)
    np.testing.assert_array_equal(scores, before)
    np.testing.assert_array_equal(result.labels, single.labels)
    np.testing.assert_array_equal(result.confidence, single.confidence)
    assert result.confidence.dtype == np.float32


# ---- the parts, each by its definition


@pytest.mark.parametrize("seed", range(20))
def test_names_that_cannot_win(seed):
    """Name k can win if masks within the bounds exist where it reaches the name with the highest minimum: by loops."""
    rng = np.random.default_rng(seed)
    count, masks = int(rng.integers(5, 30)), int(rng.integers(1, 5))
    votes, offset = rng.random((count, masks)).astype(np.float32), rng.random(count).astype(np.float32)
    low = rng.random(masks).astype(np.float32)
    high = low + rng.random(masks).astype(np.float32) * 0.3
    kept = assembly._possible(votes, offset, low, high)
    minimum = [sum(votes[k] * low) + offset[k] for k in range(count)]
    best = int(np.argmax(minimum))
    expected = []
    for name in range(count):
        lead = offset[name] - offset[best]
        for vote, other, least, most in zip(votes[name], votes[best], low, high, strict=True):
            lead += (vote - other) * (most if vote > other else least)
        if lead > -1e-6:
            expected.append(name)
    assert kept.tolist() == expected
    assert len(kept) < count  # of so many names, some cannot win
    for _ in range(50):
        somewhere = low + rng.random(masks) * (high - low)
        assert int(np.argmax(votes @ somewhere + offset)) in kept


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 10])
def test_halves_of_a_side(length, weights):
    """Each pixel is in one part that is not empty, and a part has exactly the cells between its first and its last."""
    cells = length // 2 + 2
    matrix = np.zeros((length, cells), np.float32)
    for pixel in range(length):
        matrix[pixel, pixel // 2 : pixel // 2 + 2] = 0.25, 0.75
    seen = []
    for pixels, used, part in assembly._halves(length, matrix if weights else None):
        seen += (own := list(range(length))[pixels])
        assert own
        if not weights:
            assert (used, part) == (pixels, None)
            continue
        needed = np.flatnonzero(matrix[own].any(0))
        assert list(range(cells))[used] == list(range(needed[0], needed[-1] + 1))
        np.testing.assert_array_equal(part, matrix[own][:, used])
    assert seen == list(range(length))


@pytest.mark.parametrize("most", [1, 20, 100, 400])
def test_votes_are_computed_for_a_bounded_number_of_names_and_pixels(most, monkeypatch):
    """For any shape, except for a single pixel, which cannot be divided."""
    rng, strongest, sizes = np.random.default_rng(0), assembly.strongest, []

    def recorded(maps):
        sizes.append((maps.size, maps[0].size))
        return strongest(maps)

    monkeypatch.setattr(assembly, "strongest", recorded)
    monkeypatch.setattr(assembly, "MAX_VOTES", most)
    for height, width in ((1, 2), (2, 1), (3, 20), (20, 3), (9, 10)):
        votes, offset = rng.random((5, 3)).astype(np.float32), rng.random(5).astype(np.float32)
        votes[-1] *= 9  # larger than all others, but does not compete
        names = np.array([2, 5, 6, 9], np.int32)
        masks = rng.random((3, height, width)).astype(np.float32)
        winner, best, last = assembly._vote(names, votes, offset, masks, None, None)
        expected = np.einsum("kn,nhw->khw", votes, masks) + offset[:, None, None]
        np.testing.assert_allclose(best, expected[:-1].max(0), rtol=1e-5)
        np.testing.assert_array_equal(winner, names[expected[:-1].argmax(0)])
        np.testing.assert_allclose(last, expected[-1], rtol=1e-5)
        assert (winner.dtype, best.dtype, last.dtype) == (np.int32, np.float32, np.float32)
    assert all(size <= most or pixels == 1 for size, pixels in sizes)


@pytest.mark.parametrize("upright", [False, True])
def test_names_that_lose_in_all_cells_are_not_resized(upright, monkeypatch):
    """The first name is below the second, whose sum is the largest, in both cells."""
    strongest, resized = assembly.strongest, []

    def recorded(maps):
        resized.append(len(maps))
        return strongest(maps)

    monkeypatch.setattr(assembly, "strongest", recorded)
    names, offset = np.arange(4, dtype=np.int32), np.zeros(5, np.float32)
    votes = np.array([[0.05, 0.05], [0.9, 0.1], [0.2, 0.2], [0.1, 0.9], [1, 1]], np.float32)
    masks = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    weights = np.array([[1, 0], [0.6, 0.4], [0.4, 0.6], [0, 1]], np.float32)
    if upright:
        found = assembly._vote(names, votes, offset, masks.transpose(0, 2, 1), weights, None)
        winner, best, last = (values.T for values in found)
    else:
        winner, best, last = assembly._vote(names, votes, offset, masks, None, weights)
    assert winner.tolist() == [[1, 1, 3, 3]]
    np.testing.assert_allclose(best, [[0.9, 0.58, 0.58, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(last, 1, rtol=1e-6)
    assert resized == [3]


@pytest.mark.parametrize("first", [5, 30, 40])
@pytest.mark.parametrize("shares", [1.0, 0.05], ids=["many large", "few large"])
def test_lists_of_names(first, shares, monkeypatch):
    """By loops: a name is listed if its highest vote reaches the largest of the lowest votes of those compared."""
    monkeypatch.setattr(assembly, "SHORT_LIST", first)
    rng = np.random.default_rng(0)
    votes = (rng.random((4, 30)) * np.where(rng.random(30) < 0.2, 1, shares)).astype(np.float32)
    low = (rng.random((4, 6)) * [1, 0.1, 1, 0, 1, 1]).astype(np.float32)
    high = np.minimum(low + rng.random((4, 6)) * [0.05, 0.5, 0.2, 0, 0, 1], 1).astype(np.float32)
    strip = SimpleNamespace(
        low=low, high=high, windows=[SimpleNamespace(low=low[:, w], high=high[:, w]) for w in range(6)]
    )
    largest = sorted(range(30), key=lambda name: -votes[:, name].max())
    with np.errstate(all="raise"):
        listed = list(assembly._NameLists(votes).of_windows(strip))
    assert len(listed) == 6
    for (table, ids), window in zip(listed, strip.windows, strict=True):
        compared = largest[:first]
        reached = max(float(votes[:, name] @ window.low) for name in compared)
        rest = max((float(votes[:, name].max()) for name in largest[first:]), default=-1.0)
        if rest >= 0 and rest * window.high.sum() >= reached:
            compared = range(30)
            reached = max(float(votes[:, name] @ window.low) for name in compared)
        expected = [name for name in sorted(compared) if votes[:, name] @ window.high > reached - 1e-6]
        assert ids.tolist() == expected
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(table, votes[:, ids].T)

"""Mask quality compared with loops over masks and with pycocotools."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deop.evaluation.proposal_quality import THRESHOLDS, count_found, mask_fit, proposal_scores
from deop.evaluation.truth import TrueSegments
from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks

SIZE = (24, 32)
CANVAS = Canvas(SIZE, SIZE, (32, 32))


def given(masks):
    return PhotoMasks(np.zeros((len(masks), 8, 8), np.float32), np.stack(masks))


def random_case(seed, unknown=True):
    rng = np.random.default_rng(seed)
    cells = rng.integers(-1 if unknown else 0, 6, (6, 8))
    segments = np.kron(np.unique(cells, return_inverse=True)[1].reshape(6, 8), np.ones((4, 4), int))
    segments = segments - (1 if (cells == -1).any() else 0)
    count = segments.max() + 1
    masks = [np.roll(segments == rng.integers(count), rng.integers(0, 3), rng.integers(2)) for _ in range(14)]
    masks += [rng.random(SIZE) < 0.3, np.zeros(SIZE, bool)]
    truth = TrueSegments(segments.astype(np.int32), np.zeros(count, np.int64), rng.random(count) < 0.2)
    return truth, masks


@pytest.mark.parametrize("seed", range(4))
def test_against_loops(seed):
    truth, masks = random_case(seed)
    iou, area = mask_fit(given(masks), CANVAS, truth)
    filled = sorted((mask for mask in masks if mask.any()), key=lambda mask: -mask.sum())  # confidence is equal
    known = (truth.segment_map >= 0) & ~np.append(truth.crowd, False)[truth.segment_map]
    kept = [truth.segment_map == index for index in range(len(truth)) if not truth.crowd[index]]
    expected = [[(mask & one).sum() / ((mask & known) | one).sum() for one in kept] for mask in filled]
    expected = np.array(expected)
    np.testing.assert_allclose(iou[np.lexsort(iou.T)], expected[np.lexsort(expected.T)])
    np.testing.assert_allclose(area, [one.sum() for one in kept])
    scores = proposal_scores(count_found(iou, area), 1)
    best = iou.max(0)
    for count in (1, 10, 100):
        recall = [[(fit >= limit) for limit in THRESHOLDS] for fit in iou[:count].max(0)]
        assert scores[f"average_recall_{count}"] == pytest.approx(np.mean(recall))
    assert scores["mean_best_iou"] == pytest.approx(best.mean())
    assert scores["mean_best_iou_by_area"] == pytest.approx((best * area).sum() / area.sum())
    assert scores["segments"] == len(kept)
    assert scores["proposals_per_image"] == len(filled)


@pytest.mark.parametrize("photo", [(90, 130), (64, 96), (31, 47)])
def test_logits_against_the_whole_photo_in_torch(photo):
    """Enlarged, the same and reduced; the photo is larger than a window."""
    rng, resized, padded = np.random.default_rng(photo[0]), (64, 93), (64, 96)
    segments = rng.integers(-1, 5, (3, 4)).repeat(30, 0)[: photo[0]].repeat(33, 1)[:, : photo[1]].astype(np.int32)
    truth = TrueSegments(segments, np.zeros(5, np.int64), np.zeros(5, bool))
    logits = F.interpolate(torch.tensor(rng.normal(0, 6, (9, 1, 4, 5))), (16, 24), mode="bicubic").float()
    logits = torch.cat([logits, torch.full((1, 1, 16, 24), 7.0), torch.full((1, 1, 16, 24), -7.0)])
    values = F.interpolate(logits, padded, mode="bilinear")[:, :, :, : resized[1]].sigmoid()
    values = F.interpolate(values, photo, mode="bilinear")[:, 0].numpy()
    covers = values >= 0.5
    order = sorted(range(10), key=lambda index: -values[index][covers[index]].mean())  # the last mask is empty
    known = segments >= 0
    expected = [[(covers[i] & (segments == t)).sum() / ((covers[i] & known) | (segments == t)).sum() for t in range(5)]
                for i in order]  # fmt: skip
    iou, area = mask_fit(PhotoMasks(logits[:, 0].numpy()), Canvas(photo, resized, padded), truth)
    np.testing.assert_allclose(iou, expected, atol=2e-3)  # single pixels at a probability of one half
    assert area.tolist() == [(segments == t).sum() for t in range(5)]


def test_masks_are_sorted_by_confidence_and_then_by_area():
    whole = Canvas((32, 32), (32, 32), (32, 32))
    logits = np.full((4, 32, 32), -9.0, np.float32)
    logits[0, :16, :16], logits[1, 16:, 24:], logits[2, :8, 24:], logits[3, 20:] = 0.5, 4.0, 9.0, 4.0
    truth = TrueSegments(np.zeros((32, 32), np.int32), np.zeros(1, np.int64), np.zeros(1, bool))
    iou, _ = mask_fit(PhotoMasks(logits), whole, truth)
    assert (iou[:, 0] * 1024).tolist() == [8 * 8, 12 * 32, 16 * 8, 16 * 16]


def test_photos_without_masks_or_segments():
    truth, masks = random_case(0)
    no_masks = PhotoMasks(np.zeros((0, 8, 8), np.float32))
    scores = proposal_scores(count_found(*mask_fit(no_masks, CANVAS, truth)), 1)
    assert scores["average_recall_100"] == scores["mean_best_iou"] == 0
    crowds = TrueSegments(truth.segment_map, truth.classes, np.ones(len(truth), bool))
    scores = proposal_scores(count_found(*mask_fit(given(masks), CANVAS, crowds)), 1)
    assert np.isnan(scores["average_recall_100"])
    assert scores["segments"] == 0


def test_average_recall_equals_that_of_pycocotools():
    from pycocotools import coco
    from pycocotools import cocoeval as evaluation
    from pycocotools import mask as rle

    sums = 0
    images, annotations, results = [], [], []
    for photo in range(1, 5):
        truth, masks = random_case(photo, unknown=False)
        truth = TrueSegments(truth.segment_map, truth.classes, np.zeros(len(truth), bool))
        sums = sums + count_found(*mask_fit(given(masks), CANVAS, truth))
        images.append({"id": photo, "height": SIZE[0], "width": SIZE[1]})
        for index in range(len(truth)):
            one = np.asfortranarray(truth.segment_map == index).astype(np.uint8)
            code = rle.encode(one)
            entry = {"segmentation": code, "area": int(one.sum()), "bbox": rle.toBbox(code).tolist(), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": photo, "category_id": 1, **entry})
        for mask in masks:
            if mask.any():
                code = rle.encode(np.asfortranarray(mask).astype(np.uint8))
                results.append({"image_id": photo, "category_id": 1, "segmentation": code, "score": float(mask.sum())})
    truths = coco.COCO()
    truths.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    truths.createIndex()
    coco_eval = evaluation.COCOeval(truths, truths.loadRes(results), "segm")
    coco_eval.params.useCats = 0
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    scores = proposal_scores(sums, 4)
    recalls = [float(scores[f"average_recall_{count}"]) for count in (1, 10, 100)]
    assert recalls == pytest.approx(coco_eval.stats[6:9].tolist())
    assert recalls[0] < recalls[2] < 1

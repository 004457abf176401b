"""Average precision of things compared with pycocotools."""

import contextlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop
from deop.data.folder import open_folder
from deop.evaluation.average_precision import DetectionTally, match_detections, precision_scores
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import evaluate
from deop.evaluation.truth import TrueSegments
from deop.results.segments import Segment

THINGS = np.array([True, True, True, False])


def random_photo(rng, decimals=1):
    """True segments in cells of 4 x 4 pixels, of which some are crowds, and shifted, overlapping detections of them."""
    cells = rng.integers(-1, 7, (6, 8))
    numbers = np.unique(cells, return_inverse=True)[1].reshape(6, 8) - (1 if (cells == -1).any() else 0)
    segments = np.kron(numbers, np.ones((4, 4), int)).astype(np.int32)
    count = segments.max() + 1
    truth = TrueSegments(segments, rng.integers(0, 4, count), rng.random(count) < 0.2)
    detections, classes = [], []
    for _ in range(12):
        index = rng.integers(count)
        mask = np.roll(segments == index, rng.integers(0, 3), rng.integers(2))
        label = int(truth.classes[index] if rng.random() < 0.8 else rng.integers(0, 4))
        if label < 3:  # instance mode has things only
            detections.append(Segment.from_mask("x", label, round(rng.random(), decimals), mask))
            classes.append(label)
    return truth, detections, classes


def reference(photos):
    """COCO's precision (10, classes) of things."""
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools import mask as rle
    from pycocotools.cocoeval import COCOeval

    truths, found = [], []
    for photo, (truth, detections, classes) in enumerate(photos, 1):
        for index in range(len(truth)):
            mask = np.asfortranarray(truth.segment_map == index).astype(np.uint8)
            if mask.any() and truth.classes[index] < 3:
                truths.append(
                    {"image_id": photo, "category_id": int(truth.classes[index]) + 1, "segmentation": rle.encode(mask),
                     "iscrowd": int(truth.crowd[index]), "area": int(mask.sum()), "id": len(truths) + 1}
                )  # fmt: skip
        for segment, label in zip(detections, classes, strict=True):
            mask = np.asfortranarray(segment.mask).astype(np.uint8)
            found.append(
                {"image_id": photo, "category_id": label + 1, "segmentation": rle.encode(mask), "score": segment.score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = {"images": [{"id": photo, "height": 24, "width": 32} for photo in range(1, len(photos) + 1)],
                        "categories": [{"id": label} for label in (1, 2, 3)], "annotations": truths,
                        "info": {}}  # fmt: skip
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
    present = precision.max((0, 1)) >= 0
    return precision[:, :, present].mean((1, 2))


def tally_of(photos):
    tally = DetectionTally()
    for photo in photos:
        truth, segments, classes = photo
        tally.add(match_detections(truth, segments, classes, THINGS))
    return tally


@pytest.mark.parametrize("seed", range(6))
def test_against_pycocotools(seed):
    rng = np.random.default_rng(seed)
    photos = [random_photo(rng) for _ in range(1 + seed)]
    np.testing.assert_allclose(tally_of(photos).total(), reference(photos), rtol=1e-9)


def test_a_resample_is_scored_like_a_data_set_with_these_photos():
    rng = np.random.default_rng(7)
    photos = [random_photo(rng, decimals=9) for _ in range(4)]  # the order of equal scores is arbitrary
    scores = tally_of(photos).resampled(np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 1, 0]]))
    np.testing.assert_allclose(scores[0], reference(photos), rtol=1e-9)
    drawn = [photos[0], photos[0], photos[2], photos[3]]
    np.testing.assert_allclose(scores[1], tally_of(drawn).total(), rtol=1e-9)
    np.testing.assert_allclose(scores[2], tally_of([photos[1]] * 3 + [photos[2]]).total(), rtol=1e-9)


def test_by_hand():
    """Two cats; the better detection finds one, the second is wrong: precision 1 up to a recall of 0.5, then 0."""
    truth = TrueSegments(np.array([[0, 0, 1, 1, -1, -1]], np.int32), np.zeros(2, np.int64), np.zeros(2, bool))
    masks = np.array([[[1, 1, 0, 0, 0, 0]], [[0, 0, 0, 0, 1, 1]]], bool)
    detections = [Segment.from_mask("cat", 0, score, mask) for score, mask in zip((0.9, 0.8), masks, strict=True)]
    scores = precision_scores(tally_of([(truth, detections, [0, 0])]).total())
    assert {name: pytest.approx(51 / 101) for name in ("ap", "ap_50", "ap_75")} == scores


@pytest.mark.parametrize("with_truth", [True, False])
def test_nothing_found(with_truth):
    segments = np.zeros((2, 3), np.int32) if with_truth else np.full((2, 3), -1, np.int32)
    truth = TrueSegments(segments, np.zeros(1, np.int64), np.zeros(1, bool))
    ap = precision_scores(tally_of([(truth, [], [])]).total())["ap"]
    assert ap == 0 if with_truth else np.isnan(ap)
    assert np.isnan(precision_scores(DetectionTally().total())["ap"])


def test_evaluate_reports_the_scores_of_instance_mode(tmp_path):
    """One photo, whose cat is annotated: the score of the segments of instance mode, with an interval if it has one."""
    for folder in ("images", "masks", "panoptic"):
        (tmp_path / folder).mkdir()
    photo = Image.open(Path(__file__).parents[2] / "examples" / "chelsea.png").convert("RGB").resize((96, 64))
    photo.save(tmp_path / "images" / "0.png")
    ids = np.full((64, 96), 2, np.uint8)
    ids[8:, 10:90] = 1
    Image.fromarray(ids).save(tmp_path / "masks" / "0.png")
    Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], -1)).save(tmp_path / "panoptic" / "0.png")
    segments = [{"id": label, "category_id": label, "iscrowd": 0} for label in (1, 2)]
    panoptic = {"annotations": [{"file_name": "0.png", "segments_info": segments}]}
    (tmp_path / "panoptic.json").write_text(json.dumps(panoptic))
    classes = [{"id": 1, "name": "cat", "isthing": True}, {"id": 2, "name": "wall", "isthing": False}]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    model = deop.load("nano", engine="torch")
    scores = evaluate(model, open_folder(tmp_path), bootstrap=Bootstrap(5))
    with warnings.catch_warnings(action="ignore"):  # the wall is stuff
        result = model.segment(np.asarray(photo), "cat, wall", mode="instance")
    truth = TrueSegments((ids - 1).astype(np.int32), np.array([0, 1]), np.zeros(2, bool))
    tally = DetectionTally()
    tally.add(match_detections(truth, result.segments, [0] * len(result.segments), np.array([True, False])))
    assert scores["instance_quality"] == precision_scores(tally.total())
    assert scores["instance_quality"]["ap_50"] == 1
    assert set(scores["instance_quality"]) == {"ap", "ap_50", "ap_75"}

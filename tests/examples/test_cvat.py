"""examples/cvat: the function with the types of CVAT's SDK, driven by its ``annotate_task`` without a server."""

import logging
from types import SimpleNamespace

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import pytest
from cvat_sdk import models
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask
from PIL import Image

from tests.results.test_polygons import fill

NAMES = "cat, sofa|couch, wall"


@pytest.fixture
def annotate(monkeypatch, cat):
    """``annotate(function, labels, ...)`` -> what CVAT's driver uploads for a task with one photo."""

    def run(function, labels, **options):
        uploads = []
        photo = Image.open(cat).convert("RGB")
        sample = SimpleNamespace(
            frame_name="a.jpg", frame_index=7, media=SimpleNamespace(load_image=lambda: photo)
        )  # fmt: skip
        task_labels = [
            models.Label(id=100 + index, name=name, type="any", attributes=[], sublabels=[])
            for index, name in enumerate(labels)
        ]
        dataset = SimpleNamespace(labels=task_labels, samples=[sample])
        monkeypatch.setattr(driver, "TaskDataset", lambda client, task_id, load_annotations: dataset)
        api = SimpleNamespace(
            partial_update_annotations=lambda action, task_id, patched_labeled_data_request: uploads.append(
                patched_labeled_data_request
            )
        )
        client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
        cvataa.annotate_task(client, 1, function, **options)
        (upload,) = uploads
        assert upload.tags == []
        return upload.shapes

    return run


@pytest.fixture(scope="module")
def segments(model, cat):
    return model.segment(cat, NAMES, mode="panoptic").segments


def test_masks(example, annotate, segments, cat):
    function = example("cvat/deop_function.py").create(names=NAMES)
    assert [label.name for label in function.spec.labels] == ["cat", "sofa", "wall"]
    shapes = annotate(function, ["wall", "cat", "dog"], allow_unmatched_labels=True)
    with Image.open(cat) as photo:
        width, height = photo.size
    expected = {100: "wall", 101: "cat"}
    found = [segment for segment in segments if segment.name != "sofa"]
    assert len(shapes) == len(found) > 0
    for shape, segment in zip(shapes, found, strict=True):
        assert (shape.type.value, shape.frame, shape.source) == ("mask", 7, "auto")
        assert expected[shape.label_id] == segment.name
        assert shape.score == pytest.approx(segment.score)
        mask = decode_mask(shape.points, image_width=width, image_height=height)
        np.testing.assert_array_equal(mask, segment.mask)


def test_polygons(example, annotate, segments):
    function = example("cvat/deop_function.py").create(names=NAMES, tolerance=0.0)
    shapes = annotate(function, ["cat", "sofa", "wall"], conv_mask_to_poly=True)
    assert {shape.type.value for shape in shapes} == {"polygon"}
    for index, name in enumerate(["cat", "sofa", "wall"]):
        masks = [segment.mask for segment in segments if segment.name == name]
        rings = [np.array(shape.points).reshape(-1, 2) for shape in shapes if shape.label_id == 100 + index]
        if masks:
            np.testing.assert_array_equal(fill(rings, masks[0].shape), np.any(masks, axis=0))


def test_threshold_and_labels_that_the_task_lacks(example, annotate, segments):
    function = example("cvat/deop_function.py").create(names=NAMES)
    best = max(segment.score for segment in segments)
    shapes = annotate(function, ["cat", "sofa", "wall"], conf_threshold=best)
    assert [shape.score for shape in shapes] == [best]
    with pytest.raises(cvataa.BadFunctionError, match="not in dataset"):
        annotate(function, ["cat"])

"""Other programs' forms: run lengths by hand and by pycocotools, COCO, panoptic ids, supervision, label maps."""

import builtins
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from deop.errors import ImageError, MissingDependencyError, OutputError, ProposalError
from deop.files import replacing
from deop.results.formats import read_labels, save_picture
from deop.results.rle import decode_mask, encode_crop, encode_mask
from deop.results.segmentation import Segmentation
from tests.results.test_segmentation import LABELS, NAMES, overlapping, photo_of

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def runs_by_hand(mask: np.ndarray) -> list[int]:
    counts, last, run = [], False, 0
    for value in mask.ravel(order="F"):
        if value != last:
            counts.append(run)
            last, run = value, 0
        run += 1
    return [*counts, run]


@given(masks)
def test_run_lengths_by_hand_and_back(mask):
    counts = encode_mask(mask)
    assert counts == runs_by_hand(mask)
    np.testing.assert_array_equal(decode_mask(counts, mask.shape), mask)


@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_run_lengths_of_a_crop(crop, margins):
    whole = np.pad(crop, (margins[:2], margins[2:]))
    assert encode_crop(crop, margins[2], margins[0], whole.shape) == runs_by_hand(whole)


def test_run_lengths_of_another_photo():
    with pytest.raises(ProposalError, match="3 x 3"):
        decode_mask([1, 2], (3, 3))
    with pytest.raises(ProposalError):
        decode_mask([10, -1], (3, 3))


@given(masks)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_reads_our_run_lengths(mask):
    tools = pytest.importorskip("pycocotools.mask")
    packed = tools.frPyObjects({"size": list(mask.shape), "counts": encode_mask(mask)}, *mask.shape)
    np.testing.assert_array_equal(tools.decode(packed), mask)
    assert tools.area(packed) == mask.sum()


def test_coco(tmp_path):
    result = overlapping()
    content = json.loads(json.dumps(result.to_coco(image_id=7, file_name="room.jpg", first_id=30)))
    assert content["images"] == [{"id": 7, "file_name": "room.jpg", "width": 8, "height": 6}]
    assert content["categories"][0] == {"id": 1, "name": "cat", "isthing": 1}
    assert [category["name"] for category in content["categories"]] == list(NAMES)
    assert [a["id"] for a in content["annotations"]] == [30, 31]
    for annotation, segment in zip(content["annotations"], result.segments, strict=True):
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == segment.box
        assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (7, 1, 0)
        mask = decode_mask(annotation["segmentation"]["counts"], annotation["segmentation"]["size"])
        np.testing.assert_array_equal(mask, segment.mask)
        assert annotation["area"] == mask.sum()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_loads_our_coco(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    result = overlapping()
    (tmp_path / "a.json").write_text(json.dumps(result.to_coco()))
    data = coco.COCO(tmp_path / "a.json")
    for annotation, segment in zip(data.loadAnns(data.getAnnIds()), result.segments, strict=True):
        np.testing.assert_array_equal(data.annToMask(annotation), segment.mask)


def test_panoptic_picture():
    result = overlapping()
    picture, content = result.to_panoptic(image_id=3)
    colours = np.asarray(picture).astype(int)
    ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
    np.testing.assert_array_equal(ids, result.segment_map + 1)
    annotation = content["annotation"]
    assert annotation["file_name"] == "photo.png"
    for row in annotation["segments_info"]:
        y, x = np.nonzero(ids == row["id"])
        assert row["area"] == len(y)
        assert row["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    json.dumps(content)


def test_panoptic_ids_beyond_one_channel():
    values = np.arange(70_000).reshape(200, 350)
    pieces = [(0, 0.5, True)] * 70_000
    result = Segmentation.from_panoptic(photo_of((200, 350)), NAMES, values, pieces)
    colours = np.asarray(result.to_panoptic()[0]).astype(int)
    ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
    assert sorted(ids.ravel()) == list(range(1, 70_001))


def test_a_hidden_instance_has_no_panoptic_segment():
    whole = np.ones((4, 4), bool)
    small = np.zeros((4, 4), bool)
    small[1, 1] = True
    found = [((0, 0.9, True), whole), ((0, 0.2, True), small)]
    result = Segmentation.from_instances(photo_of((4, 4)), NAMES, found)
    assert [row["id"] for row in result.to_panoptic()[1]["annotation"]["segments_info"]] == [1]


def test_supervision_takes_it():
    sv = pytest.importorskip("supervision")
    result = overlapping()
    detections = result.to_supervision()
    assert len(detections) == 2
    assert detections.class_id.tolist() == [0, 0]
    assert detections["class_name"].tolist() == ["cat", "cat"]
    np.testing.assert_allclose(detections.confidence, [0.9, 0.4])
    np.testing.assert_array_equal(detections.xyxy, sv.mask_to_xyxy(detections.mask) + np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(detections.mask[1], result.segments[1].mask)
    assert len(detections[detections.confidence > 0.5]) == 1
    annotated = sv.MaskAnnotator().annotate(result.photo.copy(), detections)
    assert annotated.shape == result.photo.shape
    nothing = Segmentation.from_instances(photo_of((4, 4)), NAMES, []).to_supervision()
    assert len(nothing) == 0


def test_without_supervision(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "supervision":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"deop\[supervision\]"):
        overlapping().to_supervision()


@pytest.mark.parametrize("count", [3, 255, 256, 65_535])
def test_label_maps_come_back(count, tmp_path):
    names = [f"名 {k}" for k in range(count)]
    labels = LABELS.copy()
    labels[0, 0] = count - 1
    result = Segmentation.from_semantic(photo_of(labels.shape), names, labels)
    path = result.save_labels(tmp_path / "new" / "a.png")
    again, read = read_labels(path)
    np.testing.assert_array_equal(again, labels)
    assert again.dtype == np.int32
    assert read == names
    with Image.open(path) as image:
        assert image.mode == ("L" if count <= 255 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), labels + 1)  # what any other program sees


def test_label_maps_that_cannot_be(tmp_path):
    labels = np.zeros((2, 2), np.int32)
    with pytest.raises(OutputError, match="65,535"):
        Segmentation.from_semantic(photo_of((2, 2)), [str(k) for k in range(65_536)], labels).save_labels(
            tmp_path / "a.png"
        )
    with pytest.raises(OutputError, match=r"\.png"):
        Segmentation.from_semantic(photo_of((2, 2)), NAMES, labels).save_labels(tmp_path / "a.jpg")
    Image.new("L", (2, 2)).save(tmp_path / "other.png")
    with pytest.raises(ImageError, match="no classes"):
        read_labels(tmp_path / "other.png")
    with pytest.raises(ImageError, match="label map"):
        read_labels(tmp_path / "absent.png")


def test_a_form_that_cannot_hold_the_picture(tmp_path):
    with pytest.raises(OutputError, match=r"use \.png"):
        save_picture(Image.new("RGB", (16_400, 1)), tmp_path / "a.webp")
    with pytest.raises(OutputError, match=r"use \.png"):
        save_picture(Image.new("RGB", (65_600, 1)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"

"""File formats: run lengths, COCO, panoptic ids, supervision and label maps, compared with pycocotools and by hand."""

import builtins
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deop.errors import ImageError, MissingDependencyError, OutputError
from deop.files import replacing
from deop.images.panoptic_ids import colours_to_ids
from deop.results import formats, read_labels
from deop.results.formats import save_picture
from deop.results.rle import encode_crop
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


@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_run_lengths_by_hand(crop, margins):
    whole = np.pad(crop, (margins[:2], margins[2:]))
    assert encode_crop(crop, margins[2], margins[0], whole.shape) == runs_by_hand(whole)


@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_reads_our_run_lengths(crop, margins):
    from pycocotools import mask as tools

    whole = np.pad(crop, (margins[:2], margins[2:]))
    counts = encode_crop(crop, margins[2], margins[0], whole.shape)
    packed = tools.frPyObjects({"size": list(whole.shape), "counts": counts}, *whole.shape)
    np.testing.assert_array_equal(tools.decode(packed), whole)
    assert tools.area(packed) == whole.sum()


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
        assert annotation["segmentation"] == {"size": [6, 8], "counts": runs_by_hand(segment.mask)}
        assert annotation["area"] == segment.mask.sum()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_loads_our_coco(tmp_path):
    from pycocotools import coco

    result = overlapping()
    (tmp_path / "a.json").write_text(json.dumps(result.to_coco()), encoding="utf-8")
    data = coco.COCO(tmp_path / "a.json")
    for annotation, segment in zip(data.loadAnns(data.getAnnIds()), result.segments, strict=True):
        np.testing.assert_array_equal(data.annToMask(annotation), segment.mask)


def test_panoptic_picture():
    result = overlapping()
    picture, content = result.to_panoptic(image_id=3)
    ids = colours_to_ids(np.asarray(picture))
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
    ids = colours_to_ids(np.asarray(result.to_panoptic()[0]))
    assert sorted(ids.ravel()) == list(range(1, 70_001))


def test_a_hidden_instance_has_no_panoptic_segment():
    whole = np.ones((4, 4), bool)
    small = np.zeros((4, 4), bool)
    small[1, 1] = True
    instances = [((0, 0.9, True), whole), ((0, 0.2, True), small)]
    result = Segmentation.from_instances(photo_of((4, 4)), NAMES, instances)
    assert [row["id"] for row in result.to_panoptic()[1]["annotation"]["segments_info"]] == [1]


def test_supervision_accepts_detections():
    import supervision as sv

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
def test_label_maps_can_be_read_again(count, tmp_path):
    names = [f"名 {k}" for k in range(count)]
    labels = LABELS.copy()
    labels[0, 0] = count - 1
    result = Segmentation.from_semantic(photo_of(labels.shape), names, labels)
    path = result.save_labels(tmp_path / "new" / "a.png")
    read, read_names = read_labels(path)
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == np.int32
    assert read_names == names
    with Image.open(path) as image:
        assert image.mode == ("L" if count <= 255 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), labels + 1)  # as other programs read it


def test_label_maps_that_cannot_be_written(tmp_path):
    labels = np.zeros((2, 2), np.int32)
    with pytest.raises(OutputError, match="65,535"):
        Segmentation.from_semantic(photo_of((2, 2)), [str(k) for k in range(65_536)], labels).save_labels(
            tmp_path / "a.png"
        )
    with pytest.raises(OutputError, match=r"\.png"):
        Segmentation.from_semantic(photo_of((2, 2)), NAMES, labels).save_labels(tmp_path / "a.jpg")


def grey_png(path, names, values=((0, 1), (2, 3)), dtype=np.uint8):
    """A PNG like those of ``save_labels``, with any text as its names."""
    info = PngInfo()
    if names is not None:
        info.add_itxt("names", names)
    Image.fromarray(np.array(values, dtype)).save(path, "PNG", pnginfo=info)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "has no names of classes"),
        ("not JSON", "Expecting value"),
        ("", "Expecting value"),
        ("3", "not a list of strings"),
        ('{"a": 1}', "not a list of strings"),
        ("[1, 2, 3]", "not a list of strings"),
        ('["a", "b"]', "not indices of its 2 names"),
    ],
)
def test_label_maps_with_wrong_names(tmp_path, names, message):
    grey_png(tmp_path / "a.png", names)
    with pytest.raises(ImageError, match=message) as caught:
        read_labels(tmp_path / "a.png")
    assert "a.png" in str(caught.value)
    assert "Segmentation.save_labels" in str(caught.value)


def test_files_that_are_not_label_maps(tmp_path):
    names = '["a", "b", "c"]'
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    (tmp_path / "empty.png").write_bytes(b"")
    grey_png(tmp_path / "colour.png", names, np.zeros((2, 2, 3)))
    grey_png(tmp_path / "whole.png", names, np.ones((50, 50)))
    whole = (tmp_path / "whole.png").read_bytes()
    assert read_labels(tmp_path / "whole.png")[1] == ["a", "b", "c"]
    for share in (0.3, 0.6):
        (tmp_path / f"cut{share}.png").write_bytes(whole[: int(len(whole) * share)])
    (tmp_path / "noise.png").write_bytes(whole[:40] + bytes(200) + whole[40:])
    for path in tmp_path.iterdir():
        if path.name != "whole.png":
            with pytest.raises(ImageError, match=path.name):
                read_labels(path)
    with pytest.raises(ImageError, match="no such file"):
        read_labels(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot read"):
        read_labels(tmp_path)


def test_large_label_maps_are_read_and_bombs_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow raises DecompressionBombError above twice this
    grey_png(tmp_path / "a.png", '["a"]', np.ones((5, 6)))
    assert read_labels(tmp_path / "a.png")[0].shape == (5, 6)
    monkeypatch.setattr(formats, "MAX_PIXELS", 29)
    with pytest.raises(ImageError, match="6 x 5 px is more than"):
        read_labels(tmp_path / "a.png")


def test_json_of_a_photo_whose_name_is_not_utf_8(tmp_path):
    source = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    result = Segmentation.from_semantic(photo_of(LABELS.shape), ["é", *NAMES[1:]], LABELS, source=source)
    content = result.save(tmp_path / "a.json").read_bytes().decode("utf-8")
    assert '"é"' in content
    assert json.loads(content)["photo"] == source


def test_a_format_that_does_not_support_the_size_of_the_picture(tmp_path):
    with pytest.raises(OutputError, match=r"use \.png"):
        save_picture(Image.new("RGB", (16_400, 1)), tmp_path / "a.webp")
    with pytest.raises(OutputError, match=r"use \.png"):
        save_picture(Image.new("RGB", (65_600, 1)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"

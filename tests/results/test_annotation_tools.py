"""Formats of other programs: GeoJSON, YOLO, labelme, Label Studio, supervision and FiftyOne.

Label Studio's decoder and labelme's reading of masks are derived here from their published code. FiftyOne, which is
very large, is represented by classes with the same arguments.
"""

import base64
import builtins
import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deop.errors import MissingDependencyError, SettingError
from deop.results.label_studio import encode_brush
from deop.results.segmentation import Segmentation
from deop.results.yolo import data_yaml
from tests.results.test_coco import speckled
from tests.results.test_polygons import fill
from tests.results.test_segmentation import NAMES, overlapping, photo_of

seeds = pytest.mark.parametrize("seed", range(4))


def framed(mode: str = "panoptic") -> Segmentation:
    """A cat in two pieces, the first with a hole; wall in the hole; sofa elsewhere."""
    values = np.array([[0, 0, 0, 2, 2], [0, 1, 0, 2, 2], [0, 0, 0, 2, 0], [-1, -1, -1, 2, 0]])
    if mode == "semantic":
        return Segmentation.from_semantic(photo_of(values.shape), NAMES, np.array([-1, 0, 2, 1])[values + 1])
    pieces = [(0, 0.9, True), (2, 0.75, False), (1, 0.5, True)]
    return Segmentation.from_panoptic(photo_of(values.shape), NAMES, values, pieces, source="/photos/room.jpg")


# --- GeoJSON


@seeds
def test_geojson(seed):
    result = speckled(seed)
    content = json.loads(json.dumps(result.to_geojson()))
    assert content["type"] == "FeatureCollection"
    for index, (feature, segment) in enumerate(zip(content["features"], result.segments, strict=True)):
        geometry = feature["geometry"]
        pieces = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        assert (geometry["type"] == "Polygon") == (len(pieces) == 1)
        for piece in pieces:
            for number, ring in enumerate(piece):
                assert ring[0] == ring[-1]
                x, y = np.array(ring).T
                area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2
                assert area < 0 if number else area > 0  # RFC 7946: exterior rings counterclockwise, holes clockwise
        rings = [np.array(ring[:-1]) for piece in pieces for ring in piece]
        np.testing.assert_array_equal(fill(rings, result.shape), segment.mask)
        assert feature["properties"]["id"] == feature["id"] == index
        assert (feature["properties"]["name"], feature["properties"]["area"]) == (segment.name, segment.area)
        assert feature["properties"]["score"] == pytest.approx(segment.score, abs=1e-4)


# --- YOLO (https://docs.ultralytics.com/datasets/segment/)


@seeds
def test_yolo_lines_give_the_label_map_back(seed):
    result = speckled(seed)
    height, width = result.shape
    masks = np.zeros((len(NAMES), height, width), bool)
    for line in result.to_yolo().splitlines():
        values = line.split(" ")
        points = np.array(values[1:], float).reshape(-1, 2)
        assert len(points) >= 3
        assert points.min() >= 0
        assert points.max() <= 1
        masks[int(values[0])] |= fill([np.rint(points * (width, height))], (height, width))
    for index in range(len(NAMES)):
        expected = np.zeros((height, width), bool)
        for segment in result.segments:
            if segment.class_id == index:
                expected |= segment.mask
        np.testing.assert_array_equal(masks[index], expected)


def test_yolo_by_hand():
    whole = Segmentation.from_semantic(photo_of((2, 4)), NAMES, np.array([[1, 1, 2, 2]] * 2))
    assert whole.to_yolo() == "1 0 0 0.5 0 0.5 1 0 1\n2 0.5 0 1 0 1 1 0.5 1\n"
    assert Segmentation.from_instances(photo_of((4, 4)), NAMES, []).to_yolo() == ""


def test_a_thing_is_one_line_and_the_pieces_of_other_segments_are_several():
    def classes(result):
        return sorted(line.split()[0] for line in result.to_yolo().splitlines())

    assert classes(framed("panoptic")) == ["0", "1", "2"]  # the cat is in two pieces
    assert classes(framed("semantic")) == ["0", "0", "1", "2"]


def test_data_yaml():
    yaml = pytest.importorskip("yaml")

    names = ["cat", 'a "red" car: parked', "no", "1", "été", "猫", "# comment", "{}"]
    content = yaml.safe_load(data_yaml(names, val="images/val"))
    assert content == {"path": ".", "train": "images", "val": "images/val", "names": dict(enumerate(names))}


# --- labelme


@seeds
@pytest.mark.parametrize("masks", [True, False])
def test_labelme(seed, masks):
    result = speckled(seed)
    content = json.loads(json.dumps(result.to_labelme("../a.jpg", masks=masks)))
    assert list(content) == ["version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"]
    assert (content["imagePath"], content["imageData"]) == ("../a.jpg", None)
    assert (content["imageHeight"], content["imageWidth"]) == result.shape
    read = np.zeros((len(result.segments), *result.shape), bool)
    for shape in content["shapes"]:
        mask = read[shape["group_id"]]
        assert shape["label"] == result.segments[shape["group_id"]].name
        if masks:
            (x0, y0), (x1, y1) = np.array(shape["points"]).astype(int)  # as labelme: the last pixel is inside
            png = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            mask[y0 : y1 + 1, x0 : x1 + 1] |= np.asarray(png).astype(bool)
        else:
            assert shape["shape_type"] == "polygon"
            mask |= fill([np.array(shape["points"])], result.shape)
    for mask, segment in zip(read, result.segments, strict=True):
        np.testing.assert_array_equal(mask, segment.mask)


# --- Label Studio


def decode_brush(data) -> np.ndarray:
    """Label Studio's decoder: bit by bit, as in @thi.ng/rle-pack."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total = read(32)
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert place <= len(bits) <= place + 8
    return np.array(values)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 31), (128, 128), (128, 129), (1, 40_000), (200, 331)])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_brush_masks_are_decoded(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    mask[: shape[0] // 2] &= share >= 0.5  # also long runs
    rgba = decode_brush(encode_brush(mask)).reshape(*shape, 4)
    np.testing.assert_array_equal(rgba, np.repeat(mask[..., None] * 255, 4, axis=2))


def test_runs_at_the_limits_of_their_sizes():
    """Lengths of 4 n values: the largest that 3, 4, 8 and 16 bits hold, and the next."""
    for length in (1, 2, 3, 4, 5, 64, 65, 16_384, 16_385, 32_768, 32_769):
        mask = np.zeros((1, length + 1), bool)
        mask[0, :length] = True
        values = decode_brush(encode_brush(mask))
        assert values.tolist() == [255] * 4 * length + [0] * 4


def test_brush_by_hand():
    """Two pixels: 8 values, 8 bits each, sizes 3, 4, 8, 16; a run of 4 x 255 and one of 4 x 0."""
    head = f"{8:032b}" + f"{7:05b}" + f"{2:04b}{3:04b}{7:04b}{15:04b}"
    bits = head + "1" + "00" + "011" + "11111111" + "1" + "00" + "011" + "00000000"
    bits += "0" * (8 - len(bits) % 8)
    expected = [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]
    assert encode_brush(np.array([[True, False]])) == expected


def test_label_studio_tasks(tmp_path):
    result = framed()
    path = result.save(tmp_path / "tasks.json", format="labelstudio", image="/data/local-files/?d=room.jpg")
    (task,) = json.loads(path.read_bytes())
    assert task["data"] == {"image": "/data/local-files/?d=room.jpg"}
    (prediction,) = task["predictions"]
    assert len({region["id"] for region in prediction["result"]}) == 3
    for region, segment in zip(prediction["result"], result.segments, strict=True):
        assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "tag", "image")
        assert (region["original_height"], region["original_width"]) == result.shape
        assert region["value"]["format"] == "rle"
        assert region["value"]["brushlabels"] == [segment.name]
        alpha = decode_brush(region["value"]["rle"]).reshape(*result.shape, 4)[..., 3]
        np.testing.assert_array_equal(alpha > 0, segment.mask)
    (prediction,) = result.to_labelstudio(polygons=True, from_name="shape")["predictions"]
    read = {name: np.zeros(result.shape, bool) for name in NAMES}
    for region in prediction["result"]:
        assert (region["type"], region["from_name"]) == ("polygonlabels", "shape")
        points = np.array(region["value"]["points"]) / 100 * (result.shape[1], result.shape[0])
        read[region["value"]["polygonlabels"][0]] |= fill([np.rint(points)], result.shape)
    for segment in result.segments:
        np.testing.assert_array_equal(read[segment.name], segment.mask)
    json.dumps(Segmentation.from_instances(photo_of((4, 4)), NAMES, []).to_labelstudio())


# --- Libraries


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


def test_without_the_libraries(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name in ("supervision", "fiftyone"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"deop\[supervision\]"):
        overlapping().to_supervision()

    with pytest.raises(MissingDependencyError, match=r"deop\[fiftyone\]"):
        overlapping().to_fiftyone()


def test_supervision_reads_our_coco_and_yolo(tmp_path):
    """A second reader of both formats; it draws outlines when it fills polygons, so that edges differ by a pixel."""
    import supervision as sv

    y, x = np.mgrid[:90, :120]
    labels = np.where((y - 40) ** 2 + (x - 45) ** 2 < 900, 0, np.where(x > 90, 1, 2))
    labels[35:45, 40:50] = 2
    result = Segmentation.from_semantic(photo_of(labels.shape), NAMES, labels)
    Image.fromarray(result.photo).save(tmp_path / "a.png")
    result.save(tmp_path / "a.txt")
    (tmp_path / "data.yaml").write_text(data_yaml(NAMES), encoding="utf-8")
    result.save(tmp_path / "coco.json", format="coco", file_name="a.png", rle="compressed")
    folder = str(tmp_path)
    coco = sv.DetectionDataset.from_coco(folder, str(tmp_path / "coco.json"), force_masks=True)
    yolo = sv.DetectionDataset.from_yolo(folder, folder, str(tmp_path / "data.yaml"), force_masks=True)
    for dataset, tolerated in ((coco, 0), (yolo, 0.08)):
        assert dataset.classes == list(NAMES)
        ((_, _, detections),) = dataset
        for index in range(len(NAMES)):
            mask = detections.mask[detections.class_id == index].any(axis=0)
            assert (mask ^ (labels == index)).sum() <= tolerated * (labels == index).sum()


@pytest.fixture
def fiftyone(monkeypatch):
    """The classes of FiftyOne with the arguments that its documentation lists."""

    def detection(*, label=None, bounding_box=None, mask=None, confidence=None):
        return SimpleNamespace(label=label, bounding_box=bounding_box, mask=mask, confidence=confidence)

    def detections(*, detections=None):
        return SimpleNamespace(detections=detections)

    def segmentation(*, mask=None):
        return SimpleNamespace(mask=mask)

    module = SimpleNamespace(Detection=detection, Detections=detections, Segmentation=segmentation)
    monkeypatch.setitem(sys.modules, "fiftyone", module)


@pytest.mark.usefixtures("fiftyone")
def test_fiftyone():
    result = overlapping()
    height, width = result.shape
    detections = result.to_fiftyone().detections
    for detection, segment in zip(detections, result.segments, strict=True):
        x, y, w, h = np.array(detection.bounding_box) * (width, height, width, height)
        assert (x, y, x + w, y + h) == pytest.approx(segment.box)
        assert detection.mask.shape == (round(h), round(w))  # FiftyOne's masks fill the box
        assert detection.mask.sum() == segment.area
        assert (detection.label, detection.confidence) == (segment.name, segment.score)
    mask = result.to_fiftyone("segmentation").mask
    np.testing.assert_array_equal(mask, result.label_map + 1)
    assert mask.dtype == np.uint8
    with pytest.raises(SettingError, match="unknown kind"):
        result.to_fiftyone("boxes")

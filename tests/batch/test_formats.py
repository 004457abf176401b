"""Batches in the formats of annotation tools, read by pycocotools, supervision and independent decoders."""

import json
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from deop.batch.formats import FormatOptions, export_batch
from deop.batch.plan import part_name, write_plan
from deop.batch.results import BatchResults
from deop.batch.settings import NAME
from deop.batch.storage import Storage
from deop.batch.table import encode, error_row, row_of
from deop.errors import DataError, OutputError, SettingError
from deop.images.panoptic_ids import colours_to_ids
from deop.results.segmentation import Segmentation
from tests.results.test_annotation_tools import decode_brush
from tests.results.test_polygons import fill

NAMES = ("cat", "sofa", "wall")
BROKEN = 3  # the row that has an error


def result_of(number, mode):
    """The result of an input: random labels of blocks, or overlapping instances."""
    random = np.random.default_rng(number)
    shape = (20 + number, 30)
    photo = np.zeros((*shape, 3), np.uint8)
    labels = np.kron(random.integers(-1, 3, (5, 6)), np.ones((5 + number, 5), int))[: shape[0]].astype(np.int32)
    if mode == "semantic":
        return Segmentation.from_semantic(photo, NAMES, labels, np.array([0.3, 0.6, 0.9]), isthing=(True, True, False))
    pieces = [((k % 3, 0.3 + k / 8, k % 3 < 2), random.random(shape) < 0.4) for k in range(4)]
    if mode == "instance":
        return Segmentation.from_instances(photo, NAMES, pieces)
    return Segmentation.from_panoptic(photo, NAMES, labels, [(0, 0.25, True), (0, 0.5, True), (2, 0.75, False)])


def write_batch(place, mode="semantic", masks="both", count=7, per_file=3, source="/photos"):
    """The files of a batch, and its results; row ``BROKEN`` has an error."""
    storage = Storage(str(place))
    ids = [f"{number % 2}/photo {number}.jpg" for number in range(count)]
    results = [result_of(number, mode) for number in range(count)]
    rows = [
        {
            "id": name, "path": f"{source}/{name}", "model": "nano", "settings": "0",
            **(error_row("broken", "ImageError") if number == BROKEN else row_of(result, masks)),
        }
        for number, (name, result) in enumerate(zip(ids, results, strict=True))
    ]  # fmt: skip
    shards = [slice(start, start + per_file) for start in range(0, count, per_file)]
    write_plan(storage, [{"base": f"{source}/", "ids": ids[shard], "count": len(ids[shard])} for shard in shards])
    settings = {"names": [[name, f"{name} 2"] for name in NAMES], "mode": mode, "input": str(source)}
    storage.write(NAME, json.dumps(settings).encode())
    for number, shard in enumerate(shards):
        storage.write(part_name(number), encode(rows[shard])[0])
    return results


def export(place, output, form, **options):
    return export_batch(BatchResults(str(place)), output, FormatOptions(form, **options))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# --- Rows


@pytest.mark.parametrize("masks", ["rle", "png", "both"])
@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_rows_are_the_results_that_were_written(tmp_path, mode, masks):
    expected = write_batch(tmp_path, mode, masks)
    batch = BatchResults(str(tmp_path))
    assert (batch.names, batch.mode, batch.total, batch.missing) == (NAMES, mode, 7, 0)
    if masks == "png" and mode != "semantic":
        with pytest.raises(DataError, match=r"0/photo 0\.jpg: .*--masks rle or both"):
            list(batch)
        return
    rows = list(batch)
    assert [row.number for row in rows] == list(range(7))
    assert [row.path for row in rows] == [f"/photos/{row.id}" for row in rows]
    for row, before in zip(rows, expected, strict=True):
        if row.number == BROKEN:
            assert (row.result, row.error) == (None, "broken")
            continue
        np.testing.assert_array_equal(row.result.label_map, before.label_map)
        assert (row.result.mode, row.result.names) == (mode, NAMES)
        for segment, other in zip(row.result.segments, before.segments, strict=True):
            np.testing.assert_array_equal(segment.mask, other.mask)
            for key in ("name", "class_id", "box", "area", "isthing"):
                assert getattr(segment, key) == getattr(other, key)
            assert segment.score == pytest.approx(other.score, abs=1e-6)
            assert len(str(segment.score)) < 10  # 0.3, not 0.30000001192092896


def test_rows_of_missing_files_keep_their_numbers(tmp_path):
    write_batch(tmp_path)
    (tmp_path / part_name(0)).unlink()
    batch = BatchResults(str(tmp_path))
    assert batch.missing == 1
    assert [row.number for row in batch] == [3, 4, 5, 6]


def test_damaged_batches(tmp_path):
    with pytest.raises(DataError, match="is not the output of deop batch"):
        BatchResults(str(tmp_path / "absent"))
    write_batch(tmp_path)
    part = tmp_path / part_name(1)
    content = part.read_bytes()
    part.write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"cannot read .*part-000001\.parquet"):
        list(BatchResults(str(tmp_path)))
    rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    rows[1]["segments"][0]["rle"] = "12"
    rows[1]["labels"] = None
    Storage(str(tmp_path)).write(part_name(1), encode(rows)[0])
    with pytest.raises(DataError, match=r"0/photo 4\.jpg: the run lengths do not fit"):
        list(BatchResults(str(tmp_path)))
    (tmp_path / NAME).write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        BatchResults(str(tmp_path))


# --- COCO


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_reads_the_masks(tmp_path, mode, polygons):
    from pycocotools.coco import COCO

    expected = write_batch(tmp_path / "batch", mode)
    exported = export(tmp_path / "batch", tmp_path / "a.json", "coco", polygons=polygons, tolerance=0.0)
    used = [result for number, result in enumerate(expected) if number != BROKEN]
    assert (exported.photos, exported.failed) == (6, 1)
    assert exported.segments == sum(len(result.segments) for result in used)
    data = COCO(tmp_path / "a.json")
    assert [category["name"] for category in data.loadCats(data.getCatIds())] == list(NAMES)
    assert sorted(data.getImgIds()) == [1, 2, 3, 5, 6, 7]  # the place in the batch, also where others failed
    for number, result in enumerate(expected):
        if number == BROKEN:
            continue
        (image,) = data.loadImgs(number + 1)
        assert (image["file_name"], image["height"], image["width"]) == (
            f"{number % 2}/photo {number}.jpg", *result.shape
        )  # fmt: skip
        annotations = data.loadAnns(data.getAnnIds(imgIds=[number + 1]))
        for annotation, segment in zip(annotations, result.segments, strict=True):
            np.testing.assert_array_equal(data.annToMask(annotation), segment.mask)
            assert annotation["category_id"] == segment.class_id + 1
            assert annotation["score"] == pytest.approx(segment.score, abs=1e-6)


def test_panoptic_pictures(tmp_path):
    expected = write_batch(tmp_path / "batch", "panoptic")
    export(tmp_path / "batch", tmp_path / "a.json", "coco-panoptic")
    content = json.loads((tmp_path / "a_panoptic.json").read_bytes())
    assert len(content["annotations"]) == 6
    for annotation in content["annotations"]:
        result = expected[annotation["image_id"] - 1]
        with Image.open(tmp_path / "a_panoptic" / annotation["file_name"]) as picture:
            ids = colours_to_ids(np.asarray(picture))
        for info in annotation["segments_info"]:
            np.testing.assert_array_equal(ids == info["id"], result.segments[info["id"] - 1].mask)


# --- Label Studio


def tasks_of(folder):
    return [task for file in sorted(folder.glob("tasks-*.json")) for task in json.loads(file.read_bytes())]


@pytest.mark.parametrize("polygons", [False, True])
def test_label_studio_tasks(tmp_path, out, polygons):
    expected = write_batch(tmp_path / "batch", "panoptic", source="s3://bucket/photos")
    export(tmp_path / "batch", out, "label-studio", polygons=polygons, tolerance=0.0, tasks=4)
    assert sorted(file.name for file in out.iterdir()) == ["config.xml", "tasks-000000.json", "tasks-000001.json"]
    config = xml.parse(out / "config.xml").getroot()
    control = config.find("PolygonLabels" if polygons else "BrushLabels")
    assert [label.get("value") for label in control] == list(NAMES)
    tasks = tasks_of(out)
    used = [result for number, result in enumerate(expected) if number != BROKEN]
    assert [task["data"]["image"] for task in tasks][:2] == [f"s3://bucket/photos/{k}/photo {k}.jpg" for k in range(2)]
    for task, result in zip(tasks, used, strict=True):
        masks = {segment.name: np.zeros(result.shape, bool) for segment in result.segments}
        for region in task["predictions"][0]["result"]:
            assert region["from_name"] == control.get("name")
            assert region["to_name"] == config.find("Image").get("name") == control.get("toName")
            if polygons:
                points = np.array(region["value"]["points"]) / 100 * result.shape[::-1]
                masks[region["value"]["polygonlabels"][0]] |= fill([np.rint(points)], result.shape)
            else:
                alpha = decode_brush(region["value"]["rle"]).reshape(*result.shape, 4)[..., 3]
                masks[region["value"]["brushlabels"][0]] |= alpha > 0
        for index, name in enumerate(NAMES):
            if name in masks:
                np.testing.assert_array_equal(masks[name], result.label_map == index)


def test_where_label_studio_finds_photos(tmp_path, out):
    photos = tmp_path / "my photos"
    write_batch(tmp_path / "batch", source=photos)
    with pytest.raises(SettingError, match=r"0/photo 0\.jpg: there is no photo file.*--image"):
        export(tmp_path / "batch", out, "label-studio")
    assert not out.exists()
    for number in range(7):
        place = photos / f"{number % 2}/photo {number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    export(tmp_path / "batch", out, "label-studio")
    assert tasks_of(out)[1]["data"]["image"] == "/data/local-files/?d=my%20photos/1/photo%201.jpg"
    other = tmp_path / "other"
    export(tmp_path / "batch", other, "label-studio", image="https://example.org/{name}?of={id}")
    assert tasks_of(other)[1]["data"]["image"] == "https://example.org/photo%201.jpg?of=1/photo%201.jpg"


@pytest.mark.parametrize("image", ["https://example.org", "{", "{other}", "{0}", "{id.x}"])
def test_an_address_without_a_place_for_the_photo_is_refused(image):
    with pytest.raises(SettingError, match="must have one of"):
        FormatOptions("label-studio", image=image)


# --- labelme, YOLO


def test_labelme_files_name_their_photos(tmp_path, out):
    from PIL import ImageChops

    photos = tmp_path / "photos"
    expected = write_batch(tmp_path / "batch", "instance", source=photos)
    for number in range(7):
        place = photos / f"{number % 2}/photo {number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3)).save(place)
    export(tmp_path / "batch", out, "labelme", tolerance=0.0)
    files = sorted(out.rglob("*.json"), key=lambda file: file.stem)
    assert [file.relative_to(out).as_posix() for file in files] == [
        f"{number % 2}/photo {number}.json" for number in range(7) if number != BROKEN
    ]
    for file in files:
        content = json.loads(file.read_bytes())
        with Image.open(file.parent / content["imagePath"]) as photo, Image.new("RGB", (3, 3)) as black:
            assert ImageChops.difference(photo.convert("RGB"), black).getbbox() is None
        result = expected[int(file.stem[-1])]
        for index, segment in enumerate(result.segments):
            rings = [np.array(shape["points"]) for shape in content["shapes"] if shape["group_id"] == index]
            np.testing.assert_array_equal(fill(rings, result.shape), segment.mask)


def test_yolo_labels(tmp_path, out):
    expected = write_batch(tmp_path / "batch")
    export(tmp_path / "batch", out, "yolo", tolerance=0.0)
    assert 'names:\n  0: "cat"' in (out / "data.yaml").read_text()
    for number, result in enumerate(expected):
        file = out / "labels" / f"{number % 2}" / f"photo {number}.txt"
        if number == BROKEN:
            assert not file.exists()
            continue
        masks = np.zeros((3, *result.shape), bool)
        for line in file.read_text().splitlines():
            index, *values = line.split()
            points = np.array(values, float).reshape(-1, 2) * result.shape[::-1]
            masks[int(index)] |= fill([np.rint(points)], result.shape)
        for index in range(3):
            np.testing.assert_array_equal(masks[index], result.label_map == index)


def test_ids_that_lead_out_or_repeat_get_names_of_their_own(tmp_path, out):
    write_batch(tmp_path / "batch", per_file=7)
    part = tmp_path / "batch" / part_name(0)
    rows = pq.read_table(part).to_pylist()
    for row, name in zip(rows, ["../a.jpg", "/b/a.jpg", "a.png", "x", "t.parquet:0:5", "..", "A/a.jpg"], strict=True):
        row["id"] = name
    Storage(str(tmp_path / "batch")).write(part_name(0), encode(rows)[0])
    export(tmp_path / "batch", out, "yolo")
    names = sorted(file.relative_to(out / "labels").as_posix() for file in out.rglob("*.txt"))
    assert len(names) == 6
    assert names == sorted(["a.txt", "a_1.txt", "a_2.txt", "t.txt", "5.txt", "A/a.txt"])


# --- Whole or nothing


@pytest.mark.parametrize("form", ["coco", "coco-panoptic", "label-studio", "labelme", "yolo"])
def test_nothing_is_left_after_an_error(tmp_path, form):
    write_batch(tmp_path / "batch", source="s3://bucket")
    (tmp_path / "batch" / part_name(2)).write_bytes(b"damaged")
    folder = tmp_path / "results"
    with pytest.raises(DataError):
        export(tmp_path / "batch", folder / ("a.json" if form.startswith("coco") else "a"), form)
    assert not folder.exists() or not list(folder.iterdir())


def test_outputs_that_exist_are_kept(tmp_path, out):
    write_batch(tmp_path / "batch")
    out.mkdir()
    (out / "other.txt").touch()
    with pytest.raises(OutputError, match="is not an empty directory"):
        export(tmp_path / "batch", out, "yolo")
    assert [file.name for file in out.iterdir()] == ["other.txt"]
    with pytest.raises(OutputError, match=r"suffix \.json"):
        export(tmp_path / "batch", out, "coco")
    with pytest.raises(OutputError, match="a path on this machine"):
        export(tmp_path / "batch", "s3://bucket/out", "yolo")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "tfrecord"}, "unknown format"),
        ({"form": "yolo", "polygons": True}, "always has polygons"),
        ({"form": "coco-panoptic", "polygons": True}, "masks only"),
        ({"form": "coco", "image": "{id}"}, "label-studio"),
        ({"form": "coco", "tolerance": -1.0}, "at least 0"),
        ({"form": "label-studio", "tasks": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_apply_are_refused(options, text):
    with pytest.raises(SettingError, match=text):
        FormatOptions(**options)


def test_a_batch_that_deop_wrote(tmp_path, out):
    """From photos to tasks, with the worker of known answers of the tests of batches."""
    from deop.batch import BatchOptions, run_batch
    from tests.batch.test_batch import FAKE, WORKER, labels_of, write_photos

    photos = write_photos(tmp_path / "photos", 3)
    run_batch(BatchOptions(str(photos), str(tmp_path / "batch"), WORKER, workers=1, command=FAKE, timeout=30.0))
    export(tmp_path / "batch", out, "label-studio")
    for number, task in enumerate(tasks_of(out)):
        assert task["data"]["image"] == f"/data/local-files/?d=photos/00/{number:03d}.png"
        for region in task["predictions"][0]["result"]:
            alpha = decode_brush(region["value"]["rle"]).reshape(*labels_of(number).shape, 4)[..., 3]
            index = int(region["value"]["brushlabels"][0].removeprefix("name "))
            np.testing.assert_array_equal(alpha > 0, labels_of(number) == index)
    assert (out / "config.xml").exists()

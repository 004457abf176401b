"""``deop batch-export``: options, messages and exit codes. tests/batch/test_formats.py tests what it writes."""

import json

import pytest

pytest.importorskip("pyarrow")

from deop.batch.plan import part_name
from tests.batch.test_formats import write_batch


@pytest.fixture
def results(here):
    write_batch(here / "results")
    return here / "results"


def test_a_batch_becomes_a_coco_file(deop, here, results):
    result = deop("batch-export", results, here / "coco.json", "--to", "coco")
    assert result.code == 0
    assert "6 photos with" in result.err
    assert "left out: 1 photos that failed" in result.err
    assert len(json.loads((here / "coco.json").read_bytes())["images"]) == 6
    again = deop("batch-export", results, here / "polygons.json", "--to", "coco", "--polygons", "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")
    annotation = json.loads((here / "polygons.json").read_bytes())["annotations"][0]
    assert isinstance(annotation["segmentation"], list)


def test_tasks_for_label_studio(deop, here, results):
    address = "https://example.org/{id}"
    result = deop("batch-export", results, here / "tasks", "--to", "label-studio", "--image", address, "--tasks", 5)
    assert result.code == 0
    tasks = json.loads((here / "tasks" / "tasks-000001.json").read_bytes())
    assert tasks[0]["data"]["image"] == "https://example.org/0/photo%206.jpg"


def test_an_unfinished_batch_is_named(deop, here, results):
    (results / part_name(1)).unlink()
    result = deop("batch-export", results, here / "coco.json", "--to", "coco")
    assert result.code == 0
    assert "is not finished: 1 of its 3 files are missing" in result.err
    assert "4 photos with" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("out.json",), 2, "--to"),
        (("out.json", "--to", "tfrecord"), 2, "--to"),
        (("out", "--to", "coco"), 3, ".json"),
        (("out.json", "--to", "coco", "--tolerance", "2"), 2, "add --polygons"),
        (("out", "--to", "yolo", "--polygons"), 2, "always has polygons"),
        (("out", "--to", "label-studio"), 2, "--image"),
        (("s3://bucket/out", "--to", "yolo"), 3, "a path on this machine"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(deop, here, results, arguments, code, text):
    result = deop("batch-export", results, *arguments)
    assert (result.code, text in result.err) == (code, True), result.err
    assert list(here.iterdir()) == [results]


def test_a_directory_that_is_no_batch(deop, here):
    result = deop("batch-export", here, here / "out.json", "--to", "coco")
    assert result.code == 1
    assert "is not the output of deop batch" in result.err

"""``deop evaluate`` and the reading of data sets on the base install."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.small_sets import PHOTOS, write_json, write_photos


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four photos with masks and panoptic files."""
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / "val")
    write_json(folder / "classes.json", json.loads((PHOTOS / "classes.json").read_text(encoding="utf-8")))
    return folder


def test_every_metric(deop, dataset):
    """IoU and accuracy are compared with counts from the files that were written."""
    process = deop("evaluate", dataset, "--json", "scores.json", "--save-maps", "maps", "--resamples", "50")
    assert process.returncode == 0, process.stderr
    assert "mIoU" in process.stdout
    scores = json.loads((deop.folder / "scores.json").read_text(encoding="utf-8"))
    assert (scores["engine"], scores["precision"], scores["images"]) == ("onnx", "float32", 4)
    for group in ("proposal_quality", "panoptic_quality", "instance_quality"):
        assert scores[group] is not None
    low, high = scores["intervals"]["miou"]
    assert low <= scores["miou"] <= high
    masks = sorted((dataset / "val" / "masks").iterdir())
    maps = sorted((deop.folder / "maps").iterdir())
    truth, predicted = (np.concatenate([pixels(path) for path in paths]) for paths in (masks, maps))
    ids = {entry["name"].split("|")[0]: entry["id"] for entry in json.loads((dataset / "classes.json").read_text())}
    predicted = predicted[np.isin(truth, list(ids.values()))]
    truth = truth[np.isin(truth, list(ids.values()))]
    assert scores["pixel_accuracy"] == pytest.approx((truth == predicted).mean())
    for name, value in scores["per_class"].items():
        true, named = truth == ids[name], predicted == ids[name]
        assert value == (pytest.approx((true & named).sum() / (true | named).sum()) if true.any() else None)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).ravel()


@pytest.mark.parametrize(
    "options",
    [
        ("--protocol", "with-background", "--background", "floor, sea"),
        ("--protocol", "with-background", "--threshold", "0.3"),
        ("--protocol", "cross-dataset"),
        ("--names", "present", "--limit", "2", "--threads", "1", "--device", "cpu", "--dtype", "float32"),
    ],
    ids=lambda options: " ".join(options[:4]),
)
def test_protocols(deop, dataset, options):
    process = deop("evaluate", dataset, "--json", "-", "--resamples", "5", *options)
    assert process.returncode == 0, process.stderr
    assert 0 < json.loads(process.stdout)["miou"] < 1


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (("--report", "page"), "jinja2"),
        (("--engine", "torch"), "torch"),
        (("--severance", "gate"), "torch"),
        (("--classifier", "two-stream"), "torch"),
        (("--dtype", "bfloat16"), "torch"),
        (("--proposer", "sam"), "torch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_needs_more_is_refused_before_anything_is_written(deop, dataset, options, needed):
    process = deop("evaluate", dataset, "--json", "scores.json", *options)
    assert process.returncode in (2, 4)
    assert re.search(rf"{needed}.*pip install \"deop\[torch\]\"", " ".join(process.stderr.split()))
    assert not list(deop.folder.iterdir())


def test_a_data_set_is_checked(deop, dataset):
    process = deop("prepare", "check", dataset)
    assert process.returncode == 0, process.stderr

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
        ("--proposals", "oracle"),
        ("--names", "present", "--limit", "2", "--threads", "1", "--device", "cpu", "--dtype", "float32"),
    ],
    ids=lambda options: " ".join(options[:4]),
)
def test_protocols(deop, dataset, options):
    process = deop("evaluate", dataset, "--json", "-", "--resamples", "5", *options)
    assert process.returncode == 0, process.stderr
    assert 0 < json.loads(process.stdout)["miou"] < 1


@pytest.mark.parametrize(
    ("options", "needed", "extra"),
    [
        (("--report", "page"), "jinja2", "report"),
        (("--engine", "torch"), "torch", "torch"),
        (("--severance", "gate"), "torch", "torch"),
        (("--classifier", "two-stream"), "torch", "torch"),
        (("--dtype", "bfloat16"), "torch", "torch"),
        (("--proposer", "sam"), "torch", "torch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_needs_more_is_refused_before_anything_is_written(deop, dataset, options, needed, extra):
    process = deop("evaluate", dataset, "--json", "scores.json", *options)
    assert process.returncode in (2, 4)
    assert re.search(rf"{needed}.*pip install \"deop\[{extra}\]\"", " ".join(process.stderr.split()))
    assert not list(deop.folder.iterdir())


def test_a_data_set_is_checked(deop, dataset):
    process = deop("prepare", "check", dataset)
    assert process.returncode == 0, process.stderr


def test_tar_files_need_nothing_more(deop, dataset):
    """They are packed and evaluated with the standard library, with the scores of the folder."""
    process = deop("prepare", "pack", dataset, "packed/val-{}.tar", "--split", "val", "--shard-mb", "0.01")
    assert process.returncode == 0, process.stderr
    assert len(list((deop.folder / "packed").glob("*.tar"))) > 1
    results = []
    for place in (dataset, "packed", "packed/val-{00000..00001}.tar"):
        process = deop("evaluate", place, "--json", "-", "--proposals", "oracle", "--limit", 2, "--resamples", 5)
        assert process.returncode == 0, process.stderr
        results.append(json.loads(process.stdout))
        del results[-1]["seconds_per_image"], results[-1]["data"]
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (("evaluate", "x.parquet"), "reading Parquet files needs pyarrow"),
        (("evaluate", "s3://bucket/x.tar"), "reading data at an address needs fsspec"),
        (("prepare", "check", "x.parquet"), "reading Parquet files needs pyarrow"),
        (("prepare", "pack", "DATASET", "y.parquet", "--split", "val"), "writing Parquet files needs pyarrow"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_parquet_files_need_an_extra(deop, dataset, arguments, needed):
    (deop.folder / "x.parquet").write_bytes(b"")
    process = deop(*(dataset if argument == "DATASET" else argument for argument in arguments))
    assert process.returncode == 4, process.stderr
    assert f'{needed}, which is not installed: pip install "deop[batch]"' in " ".join(process.stderr.split())

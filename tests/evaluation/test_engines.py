"""The same evaluations on both engines: equal scores, label maps, reports and errors."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop
from deop.data.folder import open_folder
from deop.errors import SettingError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import evaluate
from deop.evaluation.gallery import Gallery
from deop.evaluation.protocol import Protocol
from deop.evaluation.report import write_report
from deop.text.calibration import Calibration
from tests.fixtures.small_sets import PHOTOS, write_json, write_photos

DIFFERENT = {"engine", "seconds_per_image"}
"""Keys of results that differ between engines."""


@pytest.fixture(scope="module")
def engines():
    """The built-in model on both engines."""
    return tuple(deop.load("nano", engine=engine, device="cpu") for engine in ("onnx", "torch"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four photos with masks and panoptic files; a class of things and one of stuff are unseen."""
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / "val")
    write_json(folder / "classes.json", json.loads((PHOTOS / "classes.json").read_text(encoding="utf-8")))
    return open_folder(folder)


def flat(scores, prefix=""):
    """Nested results as pairs of a key and a value."""
    for key, value in scores.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], float):
            yield from flat(dict(enumerate(value)), f"{prefix}{key}.")
        else:
            yield prefix + str(key), value


def assert_equal(onnx, torch, points=0.003):
    """Check that results are equal but for rounding: single pixels at the border of two segments."""
    assert [scores["engine"] for scores in (onnx, torch)] == ["onnx", "torch"]
    first, second = (
        dict(flat({key: scores[key] for key in scores if key not in DIFFERENT})) for scores in (onnx, torch)
    )
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value == (pytest.approx(second[key], abs=points) if isinstance(value, float) else second[key]), key


def both(engines, data, protocol, **options):
    return [evaluate(model, data, protocol, bootstrap=Bootstrap(50), **options) for model in engines]


PROTOCOLS = {
    "plain": Protocol(),
    "generalized": Protocol(kind="generalized", unseen=("cat", "grass")),
    "cross-dataset": Protocol(kind="cross-dataset"),
    "present names": Protocol(names="present"),
    "background names": Protocol(kind="with-background", background=("floor", "sea")),
    "threshold": Protocol(kind="with-background", threshold=0.4),
    "two photos": Protocol(limit=2),
}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_scores(engines, data, protocol):
    if protocol.unseen:
        protocol = replace(protocol, unseen=data.names[:2])
    onnx, torch = both(engines, data, protocol)
    assert_equal(onnx, torch)
    assert onnx["precision"] == "float32"
    assert onnx["severance"] == torch["severance"] == engines[1].settings.severance.kind
    assert (onnx["classifier"], onnx["anchors"]) == ("one-pass", torch["anchors"])
    for group in ("proposal_quality", "panoptic_quality", "instance_quality"):
        assert onnx[group] is not None
    assert onnx["intervals"].keys() >= {"miou", "panoptic_quality.pq", "instance_quality.ap"}


def test_trained_names(data):
    """A list of names that training saw may be added to a loaded model."""
    models = [deop.load("nano", engine=engine, device="cpu") for engine in ("onnx", "torch")]
    for model in models:
        calibration = replace(model.settings.calibration, trained_names=("cat", "wall"))
        model.settings = replace(model.settings, calibration=calibration)
        assert isinstance(model.settings.calibration, Calibration)
    assert_equal(*both(models, data, Protocol(kind="cross-dataset")))


def test_given_masks(engines, data):
    """The true masks go through the graph "regions"; without it, the error says how to use them."""
    if engines[0].config.onnx.graphs_of(None).regions is None:
        with pytest.raises(SettingError, match="without a graph for given masks: use the torch engine"):
            both(engines, data, Protocol("oracle"))
        return
    onnx, torch = both(engines, data, Protocol("oracle"))
    assert_equal(onnx, torch)
    assert onnx["regions"] > 4
    assert 0 < onnx["region_accuracy"] <= 1
    assert onnx["proposal_quality"] is onnx["panoptic_quality"] is None


def test_label_maps_and_reports(engines, data, tmp_path):
    maps, pages = [], []
    for model in engines:
        photos, gallery = [], Gallery(count=1)

        def watch(photo, photos=photos, gallery=gallery):
            photos.append(photo.label_map)
            gallery.add(photo)

        scores = evaluate(model, data, watch=watch, bootstrap=Bootstrap(20))
        maps.append(np.concatenate([part.ravel() for part in photos]))
        page = write_report(tmp_path / model.engine, scores, gallery, "by hand", device=str(model.device))
        pages.append(page.read_text(encoding="utf-8"))
    assert (maps[0] == maps[1]).mean() >= 0.999
    libraries = ("onnxruntime", "torch")
    for page, engine, library, other in zip(pages, ("onnx", "torch"), libraries, reversed(libraries), strict=True):
        rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', page))
        assert (rows["Engine"], rows["Precision"]) == (engine, "float32")
        assert library in rows
        assert other not in rows


@pytest.mark.parametrize(
    "options",
    [{"severance": "gate"}, {"anchors": "decoder"}, {"classifier": "two-stream"}],
    ids=lambda options: next(iter(options)),
)
def test_options_that_need_torch_are_refused_before_a_photo_is_read(engines, data, monkeypatch, options):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a photo was read"))
    with pytest.raises(SettingError, match="use the torch engine"):
        evaluate(engines[0], data, Protocol(**options))


def test_command_line(data, tmp_path):
    """Options that need torch choose it; the engine is part of the results."""
    from typer.testing import CliRunner

    from deop.cli.app import app

    def engine_of(*options):
        target = tmp_path / "scores.json"
        folder = str(Path(data.root).parent)
        done = CliRunner().invoke(app, ["evaluate", folder, "--limit", "1", "--json", str(target), *options])
        assert done.exit_code == 0, done.output
        scores = json.loads(target.read_text(encoding="utf-8"))
        return scores["engine"], scores["precision"], scores["severance"]

    assert engine_of("--threads", "1")[:2] == ("onnx", "float32")
    assert engine_of("--engine", "torch")[:2] == ("torch", "float32")
    assert engine_of("--severance", "gate") == ("torch", "float32", "gate")

"""The command ``deop export``."""

import json
import sys

import pytest
from PIL import Image

from tests.cli.conftest import write_photo


@pytest.fixture
def calls(monkeypatch):
    """The arguments of ``export_model``, which writes a file instead of tracing a model."""
    pytest.importorskip("onnxscript")
    calls = []

    def write(model, folder, *, progress, **options):
        progress("tracing")
        calls.append((model, options))
        folder.mkdir()
        (folder / "encode.onnx").write_bytes(b"0" * 2_000_000)
        return folder

    monkeypatch.setattr("deop.export.folder.export_model", write)
    return calls


def test_options_reach_the_export(deop, tiny_clip, here, calls):
    write_photo(here / "photos" / "a.jpg")
    (here / "names.txt").write_text("cat\nsofa|couch\n")
    done = deop(
        "export", tiny_clip, "out", "--classes-file", "names.txt", "--severance", "gate", "--dtype", "int8",
        "--calibrate", "photos",
    )  # fmt: skip
    assert done.code == 0, done.err
    model, options = calls[0]
    assert model.proposer is None
    assert options["severance"] == "gate"
    assert options["precision"] == "int8"
    assert [path.name for path in options["calibrate"]] == ["a.jpg"]
    assert model.vocabulary(options["names"]).synonyms == (("cat",), ("sofa", "couch"))
    assert "tracing" in done.err
    assert "2 MB" in done.err
    assert "deop segment PHOTO" in done.err


def test_defaults(deop, tiny_clip, here, calls):
    assert deop("export", tiny_clip, "out").code == 0
    assert calls[0][1] == {"severance": None, "precision": "float32", "names": None, "calibrate": []}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--dtype", "int8"], 2, "--calibrate"),
        (["--dtype", "int8", "--calibrate", "gone"], 2, "not a directory"),
        (["--dtype", "int8", "--calibrate", "empty"], 2, "no photos"),
        (["--classes", "cat", "--classes-file", "names.txt"], 2, "exclude each other"),
        (["--classes-file", "gone.txt"], 2, "gone.txt"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(deop, here, monkeypatch, options, code, message):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("deop.zoo.load", lambda *_, **__: pytest.fail("loaded"))
    (here / "empty").mkdir()
    done = deop("export", "clip-b16", "out", *options)
    assert done.code == code
    assert message in done.err
    assert not (here / "out").exists()


def test_a_directory_with_other_files_is_refused_before_the_model_is_loaded(deop, here, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("deop.zoo.load", lambda *_, **__: pytest.fail("loaded"))
    (here / "out").mkdir()
    (here / "out" / "notes.txt").write_text("mine")
    done = deop("export", "clip-b16", "out")
    assert done.code == 3
    assert "out has files" in done.err
    assert (here / "out" / "notes.txt").read_text() == "mine"


def test_a_missing_library_is_named_with_its_extra(deop, here, monkeypatch):
    monkeypatch.setattr("deop.dependencies.find_spec", lambda name: None if name == "onnxscript" else sys)
    done = deop("export", "nano", "out")
    assert done.code == 4
    assert "deop[export]" in done.err


def test_an_unknown_severance_is_refused(deop, tiny_clip, here):
    pytest.importorskip("onnxscript")
    done = deop("export", tiny_clip, "out", "--severance", "wall")
    assert done.code == 2
    assert "wall" in done.err
    assert not (here / "out").exists()


@pytest.mark.slow
def test_an_exported_model_segments_as_torch_does(deop, tiny_clip, here):
    """Given masks, since the small CLIP has no proposer."""
    pytest.importorskip("onnxscript")
    write_photo(here / "a.jpg")
    mask = Image.new("L", (96, 64))
    mask.paste(1, (10, 10, 60, 50))
    mask.paste(2, (0, 40, 96, 64))
    mask.save(here / "m.png")
    done = deop("export", tiny_clip, "out")
    assert done.code == 0, done.err
    assert "largest differences from torch" in done.err
    arguments = ["segment", "a.jpg", "-c", "cat, sofa, wall", "--masks", "m.png", "--device", "cpu"]
    labels = {}
    for name, model in (("torch", tiny_clip), ("onnx", "out")):
        assert deop(*arguments, "--model", model, "--labels", f"{name}.png", "--json", f"{name}.json").code == 0
        labels[name] = list(Image.open(here / f"{name}.png").getdata())
    assert labels["torch"] == labels["onnx"]
    assert json.loads((here / "onnx.json").read_text())

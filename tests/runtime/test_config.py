"""The section "onnx" of ``config.json``: what is read, and what is refused by name."""

import json
import shutil
from dataclasses import asdict

import pytest

import deop
from deop.errors import CheckpointError, DeopError
from deop.images.preprocessing import CLIP
from deop.runtime import Model, read_runtime_config
from deop.runtime.config import Graphs, OnnxParts, TextParts, has_graphs, is_file_name
from deop.settings import Card, Settings
from deop.zoo import NANO

DIGEST = 64 * "0"


def parts(**changes):
    """A valid section, with changes."""
    values = {
        "version": 1,
        "graphs": {"float32": asdict(Graphs("encode.onnx", "regions.onnx")), "int8": {"encode": "encode8.onnx"}},
        "files": dict.fromkeys(["encode.onnx", "regions.onnx", "encode8.onnx", "weights.safetensors"], DIGEST)
        | dict.fromkeys(["names.safetensors", "text.onnx", "tokenizer.json", "words.txt"], DIGEST),
        "text": TextParts("names", file="names.safetensors", width=4),
        "normalization": CLIP,
        "no_object": [1, 2.5, 0, -1],
    }
    return asdict(OnnxParts(**(values | changes)))


def write(folder, section=None, **changes):
    """A config.json of an exported folder."""
    config = {
        "format": "deop-onnx", "version": 1, "deop": "0.1.0", "card": asdict(Card("a model")),
        "settings": asdict(Settings()), "onnx": parts() if section is None else section,
    }  # fmt: skip
    config = {key: value for key, value in (config | changes).items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_what_was_written_is_read(tmp_path):
    config = read_runtime_config(write(tmp_path))
    assert config.folder == tmp_path
    assert config.settings == Settings()
    assert config.card.name == "a model"
    assert config.onnx.graphs_of(None) == Graphs("encode.onnx", "regions.onnx")
    assert config.onnx.graphs_of("int8") == Graphs("encode8.onnx")
    assert config.onnx.normalization == CLIP
    assert list(config.onnx.no_object) == [1, 2.5, 0, -1]


def test_the_built_in_model_has_both_formats():
    config = read_runtime_config(NANO)
    assert config.settings == deop.load("nano", engine="torch", device="cpu").settings
    assert config.onnx.text.kind == "words"
    assert not config.onnx.masks_are_instances


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "has the format 'other'"),
        ({"format": "absent"}, "has the format None"),
        ({"format": ["deop-onnx"]}, r"has the format \['deop-onnx'\]"),
        ({"format": {}}, "has the format {}"),
        ({"version": 2}, "has version 2, and deop .* reads version 1: update deop"),
        ({"version": "1"}, "has version '1', .*: fetch or export the folder again"),
        ({"version": True}, "has version True"),
        ({"onnx": "absent"}, "has no ONNX graphs"),
        ({"onnx": []}, "expected a JSON object"),
        ({"surprise": 1}, "surprise is not known"),
        ({"card": "absent", "settings": "absent"}, "card is missing; settings is missing"),
        ({"settings": {"resize": {"short_side": "large"}}}, "short_side"),
        ({"card": {"licence": "MIT"}}, "unknown settings of the card: licence"),
    ],
)
def test_unusable_configs(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read_runtime_config(write(tmp_path, **changes))


TEXT = {"file": "names.safetensors", "width": 4}
CLIP_TEXT = {"graph": "text.onnx", "tokenizer": "tokenizer.json", "width": 4, "context_length": 77}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2, and deop .* reads version 1: update deop"),
        ({"files": {"../encode.onnx": DIGEST}}, "'../encode.onnx' is not the name of a file in the same folder"),
        ({"files": {"a/b": DIGEST}}, "'a/b' is not the name"),
        ({"files": {"C:x": DIGEST}}, "'C:x' is not the name"),
        ({"files": {"encode.onnx": "abc"}}, "SHA-256 of encode.onnx is 'abc': expected 64"),
        ({"files": {"encode.onnx": 7}}, "SHA-256 of encode.onnx"),
        ({"files": []}, "must be JSON objects"),
        ({"graphs": {}}, "names no precision"),
        ({"graphs": {"float64": {"encode": "encode.onnx"}}}, "unknown precision 'float64'"),
        ({"graphs": {"float32": {}}}, "no graph for float32"),
        ({"graphs": {"float32": {"encode": "/etc/passwd"}}}, "'/etc/passwd' is not the name"),
        ({"graphs": {"float32": {"encode": "unlisted.onnx"}}}, "unlisted.onnx is not listed"),
        (
            {"graphs": {"float32": {"encode": "encode.onnx", "boxes": "b.onnx"}}},
            "unknown settings of the graphs: boxes",
        ),
        ({"graphs": {"float32": {"encode": 3}}}, "'encode' of the graphs is 3"),
        ({"text": TextParts("names", file="more.safetensors", width=4)}, "more.safetensors is not listed"),
        ({"text": TextParts("names", file="names.safetensors")}, "width of the text encoder is 0"),
        ({"text": {**TEXT, "kind": "letters"}}, "'kind'"),
        ({"text": TextParts("clip", **CLIP_TEXT, identity="../../x" * 9)}, "identity of the text encoder"),
        ({"text": TextParts("clip", **{**CLIP_TEXT, "context_length": 0}, identity=DIGEST)}, "context length"),
        ({"text": TextParts("clip", **{**CLIP_TEXT, "tokenizer": ""}, identity=DIGEST)}, "'' is not the name"),
        ({"no_object": [1.0]}, '"no_object" has 1 numbers'),
        ({"no_object": ["a"] * 4}, "no_object"),
        ({"multiple": 0}, '"multiple" is 0'),
        ({"multiple": 32.5}, "'multiple'"),
        ({"smallest": -1}, '"smallest" is -1'),
        ({"normalization": {"mean": [0, 0, 0], "std": [1, 1, 0]}}, "std must be positive"),
    ],
)
def test_unusable_sections(tmp_path, changes, message):
    section = parts() | {
        key: asdict(value) if isinstance(value, TextParts) else value for key, value in changes.items()
    }
    with pytest.raises(CheckpointError, match=message) as caught:
        read_runtime_config(write(tmp_path, section))
    assert len(str(caught.value)) < 500


def test_unknown_keys_of_the_section(tmp_path):
    with pytest.raises(CheckpointError, match=r"unknown settings of the section .* colour"):
        read_runtime_config(write(tmp_path, parts() | {"colour": 1}))


@pytest.mark.parametrize("content", ["", "[", "[]", "3", "\0", "{" * 10_000])
def test_files_that_are_no_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_runtime_config(tmp_path)


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read_runtime_config(tmp_path)


def test_names_of_files():
    for name in ("encode.onnx", "a b", "...", "über.onnx"):
        assert is_file_name(name)
    for name in ("", ".", "..", "a/b", "a\\b", "C:", "\0", None, 3, "/x"):
        assert not is_file_name(name)


def test_which_configs_have_graphs():
    assert has_graphs({"format": "deop", "onnx": {}})
    assert not has_graphs({"format": "deop"})
    assert not has_graphs({"model_type": "clip", "onnx": {}})


@pytest.fixture
def nano(tmp_path):
    return shutil.copytree(NANO, tmp_path / "nano")


def change(folder, **changes):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["onnx"] |= changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", ["encode.onnx", "regions.onnx", "model.safetensors", "words.txt"])
def test_every_file_is_checked_before_anything_runs(nano, name, monkeypatch):
    """Also those that the first session does not need, such as the words."""
    content = (nano / name).read_bytes()
    for damaged, message in (
        (content[:-1], f"{name} is damaged or belongs to another model"),
        (content[: len(content) // 2] + b"~" + content[len(content) // 2 + 1 :], f"{name} is damaged"),
        (b"", f"{name} is empty"),
    ):
        (nano / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=message):
            deop.load(nano)
    (nano / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        deop.load(nano)
    (nano / name).mkdir()
    with pytest.raises(CheckpointError, match=f"cannot read .*{name}"):
        deop.load(nano)


def test_a_text_encoder_of_another_model(nano):
    config = json.loads((nano / "config.json").read_text(encoding="utf-8"))
    change(nano, text=config["onnx"]["text"] | {"width": 100})
    with pytest.raises(CheckpointError, match="the graph of another model"):
        deop.load(nano)


def test_an_exported_folder_is_not_for_torch(tmp_path):
    write(tmp_path)
    with pytest.raises(CheckpointError, match="holds graphs of ONNX Runtime only"):
        deop.load(tmp_path, engine="torch")


@pytest.mark.parametrize("engine", [None, "onnx"])
def test_arguments_that_an_exported_folder_does_not_have(tmp_path, engine):
    write(tmp_path)
    for options, message in (
        ({"proposer": "org/masks"}, "no ONNX graph for the proposer 'org/masks'"),
        ({"dtype": "bfloat16"}, "no ONNX graph for dtype 'bfloat16'"),
        ({"dtype": "int8", "proposer": "given"}, "no ONNX graph for given masks"),
    ):
        with pytest.raises(DeopError, match=message) as caught:
            deop.load(tmp_path, engine=engine, **options)  # type: ignore[call-overload]
        assert "load the model that was exported" in str(caught.value)


def test_engines_that_do_not_fit(tmp_path):
    for name in ("clip-b16", tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "clip"}')
        with pytest.raises(DeopError, match="has no ONNX graphs: export it"):
            deop.load(name, engine="onnx")
    with pytest.raises(DeopError, match="unknown engine 'tensorflow': choose onnx or torch"):
        deop.load("nano", engine="tensorflow")


def test_a_precision_that_the_folder_lacks():
    with pytest.raises(DeopError, match="no ONNX graph for dtype 'bfloat16'"):
        deop.load("nano", engine="onnx", dtype="bfloat16")
    with pytest.raises(DeopError, match=r"has graphs in float32.*, not in bfloat16"):
        Model.from_folder(NANO, precision="bfloat16")


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"device": "cuda:7", "proposer": "org/masks"}])
def test_without_torch_the_argument_that_needs_it_is_named(monkeypatch, options):
    monkeypatch.setattr("deop.runtime.engine.has_torch", lambda: False)
    monkeypatch.setattr("deop.zoo.has_torch", lambda: False)
    monkeypatch.setattr("deop.dependencies.find_spec", lambda name: None)
    with pytest.raises(DeopError, match=r'needs torch.*pip install "deop\[torch\]"|onnxruntime-gpu'):
        deop.load("nano", **options)


def test_the_engine_that_has_an_option(tmp_path, monkeypatch):
    from deop.runtime.engine import engine_for

    write(tmp_path)
    assert engine_for("nano", None, None, "one-pass") is None
    assert engine_for("nano", "gate", None, "one-pass") == "torch"
    assert engine_for("nano", None, None, "two-stream") == "torch"
    assert engine_for(str(tmp_path), "self", None, "one-pass") is None, "an exported folder is not for torch"
    monkeypatch.setattr("deop.runtime.engine.has_torch", lambda: False)
    assert engine_for("nano", "gate", None, "one-pass") is None

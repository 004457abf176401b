"""Names of files and of classes in every script, and such that mean something to a terminal, a page or a template."""

import json
import os
import re
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop
from deop.errors import DeopError, VocabularyError
from deop.results.segmentation import Segmentation
from deop.results.segments import Segment
from deop.text.vocabulary import Vocabulary
from tests.trust.bad_input import (
    CONTROL,
    HOSTILE,
    SCRIPTS,
    control_characters,
    encoded,
    hostile_files,
    write_quick_model,
)

VISIBLE = [name for name in (*SCRIPTS, *HOSTILE) if "|" not in name]


@pytest.fixture(autouse=True)
def no_user_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration" / name))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def result_of(names, mode="semantic") -> Segmentation:
    """A result in which every name has a stripe of the photo."""
    labels = np.repeat(np.arange(len(names), dtype=np.int32), 4)[:, None].repeat(20, 1)
    segments = [
        Segment(name=name, class_id=number, score=0.5, box=(0, 4 * number, 20, 4 * number + 4), area=80, isthing=True,
                value=number, pixels=labels, shape=labels.shape)
        for number, name in enumerate(names)
    ]  # fmt: skip
    photo = np.zeros((*labels.shape, 3), np.uint8)
    return Segmentation(tuple(names), labels, segments, photo, mode=mode, settings={}, source="photo.jpg")


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attributes}
        for name, value in attributes:
            if name in ("href", "src"):
                assert value.startswith(("#", "data:image/")), value

    def handle_data(self, data):
        self.text += data


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


# ---- names of classes


@pytest.mark.parametrize("name", VISIBLE)
def test_names_are_kept_as_they_are(name):
    assert Vocabulary.parse([name, "other thing"]).names[0] == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", CONTROL)
def test_control_characters_in_names_are_refused_or_removed_and_not_repeated(name):
    try:
        (kept,) = Vocabulary.parse([name]).names
    except VocabularyError as error:
        kept = str(error)
    assert not control_characters(kept)


@pytest.mark.parametrize("name", ["x" * 5000, "猫" * 5000, "x " * 2500, "x\x1b" * 2500, "|" * 5000, "x|" * 2499 + "x"])
def test_names_of_5000_characters(name):
    """Text encoders cut them; messages do not repeat them."""
    refusal = ""
    try:
        names = Vocabulary.parse([name, "cat"]).names
    except VocabularyError as error:
        refusal, names = str(error), ("", "")
    assert len(names) == 2
    assert len(refusal) < 400


@pytest.fixture(scope="module")
def model():
    loaded = deop.load("nano", engine="onnx", device="cpu", threads=1)
    loaded.cache = None
    return loaded


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*VISIBLE, "x" * 5000, "猫" * 5000], ids=lambda name: ascii(name[:30]))
def test_every_name_is_embedded_or_refused(name, model):
    """The small model reads Latin letters only, and says so."""
    if not re.search("[a-z0-9]", unicodedata.normalize("NFKD", name).casefold()):
        with pytest.raises(VocabularyError, match=r"Latin letters|no letter") as caught:
            model.embed(model.vocabulary([name, "cat"]))
        assert len(str(caught.value)) < 400
        return
    rows = np.asarray(model.embed(model.vocabulary([name, "cat"])).rows)
    assert len(rows) >= 2
    assert np.isfinite(rows).all()


@pytest.mark.filterwarnings("ignore")
def test_every_name_in_every_form_of_a_result(here):
    result = result_of(VISIBLE)
    result.overlay()
    for style in ("light", "outlines"):
        try:
            result.overlay(style=style)
        except DeopError:
            continue
    assert json.loads(json.dumps(result.summary(rle=True)))["names"] == VISIBLE
    result.save(here / "result.npz")
    assert list(Segmentation.load(here / "result.npz").names) == VISIBLE
    coco = json.loads(json.dumps(result.to_coco()))
    found = {category["name"] for category in coco["categories"]}
    assert found == set(VISIBLE)


def test_a_notebook_shows_names_as_text(here):
    tags = parsed(result_of(VISIBLE)._repr_html_())
    assert not tags.tags.keys() & {"script", "iframe", "object", "link", "form"}
    assert not {name for name in tags.attributes if name.startswith("on")}


def report_of(folder, model, stem, names):
    """The parsed page of `deop evaluate --report` for one photo of classes with these names."""
    from deop.cli import main

    data = folder / "data<b>set"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    labels = np.repeat(np.arange(1, len(names) + 1, dtype=np.uint8), 4)[:, None].repeat(64, 1)
    Image.fromarray(labels).save(data / "masks" / f"{stem}.png")
    photo = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    Image.fromarray(photo).save(data / "images" / f"{stem}.png")
    classes = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    (data / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
    report = folder / "report"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(data), "--report", str(report), "--model", str(model), "--device", "cpu"])
    assert ended.value.code in (None, 0)
    (page,) = report.rglob("*.html")
    return parsed(page.read_text(encoding="utf-8"))


def test_a_report_shows_names_as_text(here, capfd):
    pytest.importorskip("jinja2")
    model = write_quick_model(here.parent / "model")
    names = [name for name in HOSTILE if re.search("[a-z]", name)] + ["</title><script>alert(1)</script>"]
    hostile = report_of(here / "hostile", model, "<img src=x onerror=alert(1)>", names)
    harmless = report_of(here / "harmless", model, "photo", [f"name {number}" for number in range(len(names))])
    assert hostile.tags.keys() == harmless.tags.keys()
    for tag in ("script", "style", "img", "title"):
        assert hostile.tags[tag] == harmless.tags[tag]
    assert hostile.attributes == harmless.attributes
    out, err = capfd.readouterr()
    assert not control_characters(out + err)
    assert "49" not in hostile.text.split("{{7*7}}")[0][-5:], "a template was run"


# ---- names of files


@pytest.mark.filterwarnings("ignore")
def test_photos_with_every_name(here, capfd):
    """Each has its result, and no output of the command contains what a terminal would obey."""
    from deop.cli import main

    (here / "photos").mkdir()
    names = hostile_files()
    for name in names:
        (here / "photos" / name).write_bytes(encoded("PNG"))
    (here / "photos" / "\x1b[31mdamaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    model = write_quick_model(here.parent / "model")
    options = ["-c", "cat, wall", "-o", "out", "--json", "lines.jsonl", "--model", str(model), "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["segment", *(f"photos/{name}" for name in os.listdir("photos")), *options])  # noqa: PTH208
    out, err = capfd.readouterr()
    assert ended.value.code == 1, err
    assert not control_characters(out + err)
    assert "Traceback" not in err
    lines = [json.loads(line) for line in Path("lines.jsonl").read_text().splitlines()]
    assert len(lines) == len(names) + 1
    assert [line["photo"] for line in lines if "error" in line] == ["photos/\x1b[31mdamaged.png"]
    pictures = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(pictures) == len(names)
    assert not Path("pwned").exists()
    assert {path.name for path in here.iterdir()} == {"photos", "out", "lines.jsonl"}


@pytest.mark.parametrize("argument", ["x" * 5000, "\x1b[31m.png", "\u202egnp.exe", "a\rb.png", "[bold red]x[/].png"])
def test_a_missing_photo_with_such_a_name_is_reported(argument, here, capfd):
    from deop.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["segment", argument, "-c", "cat", "--device", "cpu"])
    out, err = capfd.readouterr()
    assert ended.value.code in (1, 2), err
    assert not control_characters(out + err)
    assert "unexpected" not in err
    assert "Traceback" not in err
    if argument.startswith("["):
        assert argument in err


OPTIONS = (
    ("--classes", "{}"), ("--classes-file", "{}"), ("--model", "{}"), ("--mode", "{}"), ("--threshold", "{}"),
    ("--proposer", "{}"), ("--masks", "{}"), ("--background", "cat,{}"), ("--things", "{}"), ("--device", "{}"),
    ("--severance", "{}"), ("--templates", "{}"), ("--out", "{}/{}"), ("--json", "/proc/{}"), ("--config", "{}"),
)  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option[0])
@pytest.mark.filterwarnings("ignore")
def test_values_of_options_never_reach_the_terminal_raw(option, here, capfd):
    from deop.cli import main

    value = "\x1b]0;owned\x07\u202e\x9b31m\x1b[2J\r"

    (here / "a.png").write_bytes(encoded("PNG"))
    names = [] if option[0].startswith("--classes") else ["-c", "cat"]
    name, form = option
    with pytest.raises(SystemExit) as ended:
        main(["segment", "a.png", *names, name, form.replace("{}", value)])
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    assert "unexpected" not in err, err
    assert not control_characters(out + err), (ended.value.code, err)


@pytest.mark.filterwarnings("ignore")
def test_what_a_model_folder_says_never_reaches_the_terminal_raw(here, capfd):
    """Its card, its keys and its values are texts of strangers."""
    from deop.cli import main

    folder = write_quick_model(here / "model")
    original = json.loads((folder / "config.json").read_text())
    (here / "a.png").write_bytes(encoded("PNG"))
    evil = "\x1b[2J\x07\u202e"
    for change in (
        lambda config: config.update({evil: 1}),
        lambda config: config.update(format=evil),
        lambda config: config["card"].update(name=evil, license=evil),
        lambda config: config["settings"].update(anchors=evil),
        lambda config: config["onnx"]["files"].update({evil: "0" * 64}),
        lambda config: config["onnx"]["graphs"].update({evil: {}}),
    ):
        config = json.loads(json.dumps(original))
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(SystemExit):
            main(["segment", "a.png", "-c", "cat, wall", "--model", str(folder), "--device", "cpu", "--overwrite"])
        out, err = capfd.readouterr()
        assert not control_characters(out + err)
        assert "Traceback" not in err

"""Names of files and of classes in every script, and such that mean something to a terminal, a page or a template."""

import json
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
from tests.trust.bad_input import CONTROL, HOSTILE, SCRIPTS, control_characters, write_quick_model

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

"""The report: one valid HTML page without external files, with the scores of the evaluation and a few photos."""

import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.data.labelled import LabelClass, LabelledData, Pair
from deop.errors import SettingError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import evaluate
from deop.evaluation.gallery import Gallery
from deop.evaluation.report import write_report
from deop.results.segmentation import Segmentation

NAMES = ("cat", "<b>dog</b> & co", "wall", "sea")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
SHAPES = {"line", "rect", "polyline", "circle"}


class Page(HTMLParser):
    """The elements and texts of a page. Elements that are not closed are errors."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID | SHAPES, f"<{tag}/> does not close itself in HTML"
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


class FakeModel:
    """A model that predicts "cat" in the left part of a photo, and in a larger part of each further photo."""

    def __init__(self, model):
        self.model, self.photos = model, 0
        for name in ("engine", "precision", "settings", "card", "vocabulary", "device"):
            setattr(self, name, getattr(model, name))

    def check_encoding(self, *options):
        return self.model.check_encoding(*options)

    def encode(self, photos, masks, **options):
        return self.model.encode(photos, [np.ones((1, 48, 64), bool)], **options)

    def label(self, encoded, vocabulary, *, mode="semantic", threshold=None):
        labels = np.full((48, 64), 2, np.int32)
        labels[:, : 4 * self.photos] = 0
        labels[:4, -4:] = -1
        self.photos += mode == "semantic"
        return Segmentation.from_semantic(
            encoded.photo, vocabulary.names, labels, np.full((48, 64), 0.5 + self.photos / 50)
        )


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_clip):
    """A report on 14 photos, half wall and half cat, one with a strip of dog."""
    from deop.encoders.clip import CLIPVision
    from deop.encoders.clip_text import CLIPText
    from deop.images.preprocessing import Resize
    from deop.model import DeOP
    from deop.settings import Settings

    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(14):
        pair = Pair(folder / f"{index:02}.png", folder / f"m{index:02}.png")
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(pair.photo)
        ids = np.full((48, 64), 3, np.uint8)
        ids[:, :32] = 1
        ids[-8:, :] = 2 if index == 0 else 0
        Image.fromarray(ids).save(pair.mask)
        pairs.append(pair)
    classes = tuple(LabelClass(index + 1, name) for index, name in enumerate(NAMES))
    model = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip),
                 settings=Settings(resize=Resize(64), templates="none")).eval()  # fmt: skip
    gallery = Gallery(count=3)
    data = LabelledData(folder, classes, tuple(pairs))
    result = evaluate(FakeModel(model), data, bootstrap=Bootstrap(100), watch=gallery.add)
    path = write_report(folder / "out", result, gallery, "deop evaluate 'my data' --report out")
    return result, gallery, path


def test_the_page_is_valid_and_has_no_external_files(report):
    _, _, path = report
    assert path.name == "index.html"
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data:)|\bfetch\(", text)
    assert not page.of("link")
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"].removeprefix("#") for link in page.of("a")} <= targets
    assert page.of("html")[0]["lang"] == "en"
    assert "<b>dog</b> & co" not in text  # names are text, not markup
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_images_are_few_readable_and_described(report):
    _, gallery, path = report
    images = Page(path.read_text(encoding="utf-8")).of("img")
    assert len(images) == 3 * 6
    for image in images:
        assert len(image["alt"]) > 4
        picture = Image.open(io.BytesIO(b64decode(image["src"].partition("base64,")[2])))
        assert picture.size == (int(image["width"]), int(image["height"])) == (64, 48)
    # In photo n, "cat" is predicted up to column 4 n, and is true up to column 32: photo 8 is the best.
    assert [one.name for one in gallery.best] == ["08", "07", "09"]
    assert gallery.worst[0].name == "00"
    assert all(one.pixel_accuracy <= gallery.best[-1].pixel_accuracy for one in gallery.worst)


def test_the_page_shows_the_scores_of_the_evaluation(report):
    result, gallery, path = report
    page = Page(path.read_text(encoding="utf-8"))
    low, high = result["intervals"]["miou"]
    for number in (result["miou"], result["pixel_accuracy"], low, high, *filter(None, result["per_class"].values())):
        assert f"{100 * number:.1f}" in page.text
    rows = {attributes["data-value"] for attributes in page.of("th") if "data-value" in attributes}
    assert rows == {"cat", "<b>dog</b> & co", "wall"}
    assert "not in the truth of these photos: sea" in page.text
    assert "1 of the 3 classes occur in fewer than three photos" in page.text
    assert "deop evaluate 'my data' --report out" in page.text
    assert sum(np.histogram(gallery.accuracies, 10, (0, 1))[0]) == result["images"] == 14
    matrix = gallery.confusion.matrix
    share = f"{100 * matrix[0, 2] / matrix[0].sum():.0f} %"
    bars = [attributes["aria-label"] for attributes in page.of("div") if attributes.get("role") == "img"]
    assert any(
        label.startswith("Pixels of cat are predicted as: correct") and f"wall {share}" in label for label in bars
    )
    assert any(label.startswith("Pixels predicted as wall truly are: correct") for label in bars)


def test_shares_of_a_photo_add_up(report):
    _, gallery, _ = report
    for one in (*gallery.best, *gallery.worst):
        assert sum(part.truth for part in one.shares) == pytest.approx(1)
        assert sum(part.predicted for part in one.shares) + one.unnamed == pytest.approx(1)
        assert sum(part.hit for part in one.shares) == pytest.approx(one.pixel_accuracy)
        assert len({part.colour for part in one.shares}) == len(one.shares)


def test_a_class_has_one_colour_in_all_photos(report):
    _, gallery, _ = report
    colours = {}
    for one in (*gallery.best, *gallery.worst):
        for part in one.shares:
            assert colours.setdefault(part.name, part.colour) == part.colour


def test_thumbnails_show_unknown_pixels_in_grey(report):
    _, gallery, _ = report
    photo = next(one for one in gallery.best if one.name == "08")
    truth = np.asarray(Image.open(io.BytesIO(b64decode(photo.truth.partition("base64,")[2])))).astype(int)
    spread = np.ptp(truth, axis=2)
    assert spread[42:].mean() < 12  # the last 8 rows
    assert spread[:36].mean() > 3 * spread[42:].mean()


def test_a_report_without_scores_or_worst_photos(report, tmp_path):
    result, _, _ = report
    empty = {**result, "intervals": {}, "images": 1, "per_class": dict.fromkeys(NAMES), "miou": None}
    page = Page(write_report(tmp_path, empty, Gallery(), "none").read_text(encoding="utf-8"))
    assert "There are no intervals for a single photo." in page.text
    assert not page.of("img")
    assert Path(tmp_path / "index.html").stat().st_size < 60_000


def test_an_empty_gallery_is_refused():
    with pytest.raises(SettingError, match="a gallery of 0 photos"):
        Gallery(count=0)

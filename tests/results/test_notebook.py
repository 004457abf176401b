"""A result in a notebook: self-contained, escaped, bounded in size, and with the names on the right pixels."""

import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from io import BytesIO

import numpy as np
from PIL import Image

from deop.results.segmentation import Segmentation
from tests.results.test_polygons import fill
from tests.results.test_segmentation import LABELS, NAMES, overlapping, photo_of


def parse(result) -> ET.Element:
    text = result._repr_html_()
    return ET.fromstring(re.sub(r"(<img [^>]*)>", r"\1/>", text))


def regions(root):
    """The text and the rings of each region."""
    for group in root.iter("g"):
        path, text = group.find("path"), group.find("text")
        assert path.find("title").text == text.text
        rings = [np.array(part.split(), float).reshape(-1, 2) for part in re.findall(r"M([^MZ]*)Z", path.get("d"))]
        yield text.text, rings


def test_png():
    assert overlapping()._repr_png_().startswith(b"\x89PNG")


def test_the_picture_and_the_regions_have_the_same_size():
    values = np.kron(LABELS, np.ones((40, 50), int))
    root = parse(Segmentation.from_semantic(photo_of(values.shape), NAMES, values))
    (image,) = root.iter("img")
    picture = Image.open(BytesIO(b64decode(image.get("src").removeprefix("data:image/jpeg;base64,"))))
    assert picture.size == (200, 160)
    (svg,) = root.iter("svg")
    assert svg.get("viewBox") == "0 0 200 160"
    found = {text.rsplit(" ", 3)[0]: fill(rings, values.shape) for text, rings in regions(root)}
    for index, name in enumerate(NAMES):
        np.testing.assert_array_equal(found[name], values == index)


def test_names_are_escaped():
    names = ['<script>alert("1")</script>', "a & b", "'\"><img src=x>"]
    root = parse(Segmentation.from_semantic(photo_of((40, 40)), names, np.kron(LABELS, np.ones((10, 10), int))))
    assert not list(root.iter("script"))
    assert len(list(root.iter("img"))) == 1
    texts = [text for text, _ in regions(root)]
    assert all(any(text.startswith(name) for text in texts) for name in names)


def test_nothing_is_requested_and_no_script_runs():
    text = overlapping()._repr_html_()
    assert "http" not in text
    assert "<script" not in text
    assert "url(" not in text
    assert not re.search(r"\son\w+=", text)


def test_the_size_is_bounded():
    random = np.random.default_rng(0)
    noise = random.integers(-1, 400, (450, 750))
    result = Segmentation.from_semantic(np.zeros((450, 750, 3), np.uint8), [f"name {k}" for k in range(401)], noise)
    text = result._repr_html_()
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert len(svg) < 400_000
    assert "+ 376 more" in text  # of 400 names, 24 are listed
    assert "not found: name 400" in text


def test_results_without_segments():
    root = parse(Segmentation.from_instances(photo_of((30, 40)), NAMES, []))
    assert list(regions(root)) == []
    assert "not found: cat, sofa, wall" in "".join(root.itertext())

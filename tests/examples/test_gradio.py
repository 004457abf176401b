"""examples/gradio: the function behind the page, and the card of the Space.

The page itself is tested by examples/gradio/test_app.py in an environment of its own (.ci/run), since Gradio needs an
older Pillow than constraints.txt has.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.examples.conftest import EXAMPLES


@pytest.fixture
def app(example, monkeypatch):
    class Error(Exception):
        """Of Gradio: a message on the page."""

    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(Error=Error, Blocks=object))
    return example("gradio/app.py")


def test_masks_and_shares_of_a_photo(app, model, cat):
    photo = np.asarray(Image.open(cat).convert("RGB"))
    (shown, masks), shares = app.segment(photo, "cat, wall", "semantic", 0.05)
    result = model.segment(photo, "cat, wall", threshold=0.05)
    assert shown is not None
    np.testing.assert_array_equal(shown, photo)
    assert list(shares) == ["cat", "wall"]
    assert sum(shares.values()) == pytest.approx((result.label_map >= 0).mean(), abs=1e-4)
    for (mask, text), segment in zip(masks, result.segments, strict=True):
        np.testing.assert_array_equal(mask > 0, segment.mask)
        assert text == f"{segment.name} ({segment.score:.0%})"


def test_mistakes_are_shown_on_the_page(app, cat):
    with pytest.raises(app.gr.Error, match="Choose a photo"):
        app.segment(None, "cat", "semantic", 0.1)
    photo = np.asarray(Image.open(cat).convert("RGB"))
    with pytest.raises(app.gr.Error, match="cat"):
        app.segment(photo, "cat, cat", "semantic", 0.1)


def test_photos_are_offered(app):
    found = app.examples()
    assert len(found) == len(app.EXAMPLES)
    assert all(str(EXAMPLES) in path for path, _ in found)


def test_the_card_has_what_a_space_needs():
    """https://huggingface.co/docs/hub/spaces-config-reference"""
    yaml = pytest.importorskip("yaml")
    head = (EXAMPLES / "gradio" / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    card = yaml.safe_load(head)
    assert (card["sdk"], card["title"]) == ("gradio", "deop")
    assert (EXAMPLES / "gradio" / card["app_file"]).is_file()
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {card["colorFrom"], card["colorTo"]} <= colours
    assert len(card["short_description"]) <= 60
    assert card["python_version"].split(".")[0] == "3"

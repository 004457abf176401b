"""The page, by Gradio's own client. Run in an environment with gradio: ``pytest examples/gradio``."""

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import app
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

PHOTO = Path(__file__).parents[1] / "pagoda.jpg"


@pytest.fixture(scope="module")
def client():
    """A client of the page."""
    page = app.build()
    _, address, _ = page.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield Client(address, verbose=False)
    page.close()


def test_a_photo_is_segmented(client):
    """The names that the model finds, with their shares."""
    masks, shares = client.predict(handle_file(str(PHOTO)), "pagoda|temple, sky", "semantic", 0.05, api_name="/segment")
    assert [entry["label"].split()[0] for entry in masks["annotations"]] == ["sky", "pagoda"]
    assert shares["label"] == "sky"
    assert {entry["label"] for entry in shares["confidences"]} == {"pagoda", "sky"}


def test_mistakes_are_answered(client):
    """An error names the mistake."""
    with pytest.raises(AppError, match="cat"):
        client.predict(handle_file(str(PHOTO)), "cat, cat", "semantic", 0.05, api_name="/segment")

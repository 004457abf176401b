"""Fixtures for tests of examples/: the built-in model, photos, and a batch of them."""

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """``example("cvat/deop_function.py")`` -> the module."""

    def load(place):
        path = EXAMPLES / place
        name = f"example_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # data classes look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def model():
    import deop

    return deop.load("nano")


@pytest.fixture(scope="session")
def cat(tmp_path_factory):
    """A photo of a cat, small so that tests are fast."""
    path = tmp_path_factory.mktemp("photos") / "cat.png"
    with Image.open(EXAMPLES / "chelsea.png") as image:
        image.convert("RGB").resize((226, 150)).save(path)
    return path


@pytest.fixture(scope="session")
def coffee():
    return EXAMPLES / "coffee.jpg"

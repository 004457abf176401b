"""Processes that see the libraries of the base install only."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop as package
from deop.dependencies import EXTRAS

HIDE = f"""
import sys
for library in {sorted(EXTRAS)}:
    sys.modules[library] = None  # every import of it raises ModuleNotFoundError
"""
COMMAND = "from deop.__main__ import main\nmain()\n"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """``program(code, argument, ...)`` runs a Python program and returns the finished process, with text output."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", str(Path(package.__file__).parents[1]))
    folder = tmp_path / "here"
    folder.mkdir()

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", HIDE + code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, check=False)

    run.folder = folder
    return run


@pytest.fixture
def deop(program):
    """``deop("segment", photo, ...)`` runs a command in an empty folder, ``deop.folder``."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return program(COMMAND, *arguments)

    run.folder = program.folder
    return run


@pytest.fixture
def photo(deop):
    """A photo of a cat in the folder."""
    path = deop.folder / "cat.png"
    with Image.open(EXAMPLES / "chelsea.png") as image:
        image.convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def model():
    """The built-in model in ONNX Runtime."""
    return package.load("nano", engine="onnx", device="cpu")


@pytest.fixture(scope="session")
def cat():
    """The pixels of that photo."""
    with Image.open(EXAMPLES / "chelsea.png") as image:
        return np.asarray(image.convert("RGB"))

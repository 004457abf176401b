"""Fixtures for tests of the command line: arguments in, exit code and output text out."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def no_user_configuration(tmp_path, monkeypatch):
    """Tests leave the user's deop.toml alone."""
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration" / name))


@pytest.fixture
def deop(capfd, monkeypatch):
    """``deop("models", "--json")`` -> exit code, stdout, stderr."""
    from deop.cli import main

    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return SimpleNamespace(code=exit_info.value.code or 0, out=out, err=err)

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_photo(path, size=(96, 64), seed=0):
    """Write a photo of noise and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path

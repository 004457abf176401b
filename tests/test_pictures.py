"""The pictures of README and docs are those that the code draws today."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"


@pytest.mark.slow
def test_committed_pictures_are_current(tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "benchmarks" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in PICTURES.glob("*.jpg")}, "run `python benchmarks/pictures.py`"
    for name in drawn:
        with Image.open(tmp_path / name) as new, Image.open(PICTURES / name) as old:
            assert new.size == old.size, name
            difference = np.abs(np.asarray(new, np.int16) - np.asarray(old, np.int16))
        # Processors round differently, which moves a few pixels of an outline.
        assert difference.mean() < 1, name


def test_pictures_are_small():
    for path in PICTURES.iterdir():
        assert path.stat().st_size < 150_000, path.name

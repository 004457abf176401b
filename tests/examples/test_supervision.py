"""examples/supervision: run as a command."""

import subprocess
import sys

import numpy as np
from PIL import Image

from tests.examples.conftest import EXAMPLES


def test_the_picture_and_the_counts(model, coffee, tmp_path):
    names = "cup, spoon"
    command = [sys.executable, EXAMPLES / "supervision" / "annotate.py", coffee, names, tmp_path / "out.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = model.segment(coffee, names, mode="panoptic")
    things = [segment.name for segment in result.segments if segment.isthing and segment.score >= 0.3]
    assert sorted(done.stdout.split("\n")[:-1]) == sorted(f"{things.count(name)} {name}" for name in set(things))
    with Image.open(tmp_path / "out.png") as picture:
        changed = (np.asarray(picture.convert("RGB")) != result.photo).any(axis=2)
    masks = [segment.mask for segment in result.segments if segment.score >= 0.3]
    assert changed[np.any(masks, axis=0)].mean() > 0.99
    assert changed[~np.any(masks, axis=0)].mean() < 0.1  # boxes and texts

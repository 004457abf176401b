"""The command ``deop train``: arguments, errors and the directory of the run."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo

RECIPE = """
model: nano
data: {folder: nowhere}
learn: [anchors]
anchors: {query: mask, heads: 1, hidden: 16}
augmentation: {short_sides: [64], crop: 64, pad: 64, colour: false}
loss_stride: 4
resize: {short_side: 64}
loop: {iterations: 2, batch: 1, log_every: 1}
"""


@pytest.fixture
def recipe(here):
    path = here / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def photos(here):
    root = here / "photos"
    write_photo(root / "images" / "a.png")
    (root / "masks").mkdir()
    mask = np.ones((64, 96), np.uint8)
    mask[:, 50:] = 2
    Image.fromarray(mask).save(root / "masks" / "a.png")
    (root / "classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}]))
    return root


@pytest.mark.slow
def test_training_by_a_recipe_gives_a_model_that_segments(deop, here, recipe, photos):
    done = deop("train", "deop", "--recipe", recipe, "--data", photos, "--device", "cpu", "loop.seed=3")
    assert done.code == 0, done.err
    assert "step 1 of 2  loss" in done.err
    assert "min left" in done.err
    assert "--model runs/small/model" in done.err
    assert done.out == ""
    assert "seed: 3" in (here / "runs" / "small" / "recipe.yaml").read_text(encoding="utf-8")
    assert sorted(path.name for path in (here / "runs" / "small").iterdir()) == [
        "checkpoints", "log", "model", "recipe.yaml",
    ]  # fmt: skip
    segmented = deop("segment", photos / "images" / "a.png", "--classes", "cat, wall", "--model", "runs/small/model")
    assert segmented.code == 0, segmented.err
    again = deop("train", "deop", "--recipe", recipe, "--data", photos, "--device", "cpu", "loop.seed=3")
    assert again.code == 2
    assert "already contains a run of 2 steps: continue it with --resume" in again.err
    resumed = deop("train", "deop", "-r", recipe, "--data", photos, "--device", "cpu", "loop.seed=3", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming after step 2" in resumed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("deop",), "training stage deop needs a recipe: give --recipe FILE"),
        (("deop", "--recipe", "small.yaml", "rte=1"), "unknown setting rte: did you mean rate?"),
        (("deop", "--recipe", "none.yaml"), "cannot read the recipe none.yaml"),
        (
            ("deop", "--recipe", "small.yaml", "--device", "cuda:1"),
            "unknown training device 'cuda:1': give --device cpu",
        ),
        (("everything", "--recipe", "small.yaml"), "'everything' is not one of"),
        (("prompt", "--recipe", "small.yaml"), "unknown setting learn"),
    ],
)
def test_wrong_usage(deop, recipe, arguments, message):
    done = deop("train", *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_missing_photos(deop, recipe):
    done = deop("train", "deop", "--recipe", recipe)
    assert done.code == 1
    assert "no photos in nowhere/train" in done.err

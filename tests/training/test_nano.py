"""The recipe of the small model runs in the house's loop: on a few real photos, interrupted and gone on with."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import deop
from deop.errors import SettingError, TrainingError
from deop.networks.efficientnet import EfficientNetLite
from deop.training.loop import fit
from deop.training.recipe import plain, read_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "nano"


@pytest.fixture(scope="module")
def nano():
    """The modules of the recipe, which are no package."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    import recipe
    import task

    yield recipe.NanoRecipe, task.NanoTask
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def few(data_folder, tmp_path_factory):
    """A few of the photos, and a trunk of random weights."""
    root = tmp_path_factory.mktemp("few")
    for name, count in (("coco-mini", 8), ("camvid-mini", 3)):
        source = data_folder / name
        stems = sorted(path.stem for path in (source / "train" / "masks").glob("*.png"))[:count]
        for path in source.glob("train/*/*"):
            if path.stem in stems:
                target = root / path.relative_to(data_folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
        for file in (source / "classes.json", source / "train" / "panoptic.json"):
            if file.exists():
                (root / file.relative_to(data_folder)).symlink_to(file)
    (root / "imagenet-mini").symlink_to(data_folder / "imagenet-mini")
    torch.manual_seed(0)
    weights = {f"trunk.{key}": value for key, value in EfficientNetLite().state_dict().items()}
    for key, shape in (("head", (1280, 352)), ("classifier", (1000, 1280))):
        weights |= {f"{key}.weight": torch.randn(shape) * shape[1] ** -0.5, f"{key}.bias": torch.zeros(shape[0])}
    save_file({key: value.contiguous() for key, value in weights.items()}, root / "trunk.safetensors")
    return root


def settings(kind, few, file, *more):
    small = ("coco=2", "camvid=1", "mosaics=1", "crop=64", "short=64", "layers=2", "region_hidden=32", "local_width=16",
             "loop.batch=4", "loop.iterations=4", "loop.seconds=0", "loop.precision=no", "loop.save_every=2",
             "loop.deterministic=true", "loop.workers=0", "loop.schedule.warmup=2")  # fmt: skip
    own = (f"data={few}", f"trunk={few / 'trunk.safetensors'}")
    return read_recipe(kind, FOLDER / file, (*small, *own, *more))


def run(nano, recipe, out, resume=False):
    torch.set_num_threads(1)
    task = nano[1](recipe, out.parent / "crops.safetensors", torch.device("cpu"))
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device="cpu", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "more"), [("gpu.yaml", ("singles=2",)), ("two-cores.yaml", ("pool=1",))])
def test_going_on_is_bit_identical_and_the_model_is_used(nano, few, tmp_path, monkeypatch, file, more):
    recipe = settings(nano[0], few, file, *more)
    whole = run(nano, recipe, tmp_path / "whole")
    forward = nano[1].forward

    def broken(self, batch):
        if batch.step == 3:
            raise RuntimeError("the machine is gone")
        return forward(self, batch)

    monkeypatch.setattr(nano[1], "forward", broken)
    with pytest.raises(RuntimeError, match="is gone"):
        run(nano, recipe, tmp_path / "broken")
    monkeypatch.undo()
    again = run(nano, recipe, tmp_path / "broken", resume=True)
    first, second = (load_file(done.model / "model.safetensors") for done in (whole, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)

    trunk = load_file(few / "trunk.safetensors")
    stem = next(value for key, value in first.items() if key.endswith("trunk.stem.weight"))
    assert torch.equal(stem, trunk["trunk.stem.weight"]) == (file == "two-cores.yaml")
    model = deop.load(whole.model, device="cpu")
    assert {"person", "bicyclist"} <= set(model.settings.calibration.trained_names)
    assert model.card.training_data.startswith("8 photos of COCO")
    found = model.segment(np.full((80, 100, 3), 90, np.uint8), ["person", "sky"])
    assert found.label_map.shape == (80, 100)
    with pytest.raises(TrainingError, match="another recipe"):
        run(nano, replace(recipe, noise=0.3), tmp_path / "broken", resume=True)


@pytest.mark.slow
def test_what_is_kept_apart_or_unseen_is_not_trained_on(nano, few, tmp_path):
    recipe = settings(nano[0], few, "two-cores.yaml", "pool=1", "camvid=0", "coco=3", "tune=4", "unseen=[person]")
    task = nano[1](recipe, tmp_path / "crops.safetensors", torch.device("cpu"))
    assert len(task.sources.sets[0]) == 6
    assert len(task.apart.pairs) == 2
    assert task.sources.sets[1] is None
    assert "person" not in task.trained_names
    assert "bicyclist" not in task.trained_names
    measured = task.validate()
    assert set(measured) == {"regions", "true_miou", "miou", "pixels"}


@pytest.mark.parametrize("file", ["gpu.yaml", "two-cores.yaml"])
def test_recipes_are_read(nano, file):
    assert read_recipe(nano[0], FOLDER / file).loop.batch


def test_recipes_that_cannot_be(nano):
    with pytest.raises(SettingError, match="coco \\+ camvid \\+ mosaics are 19"):
        read_recipe(nano[0], FOLDER / "gpu.yaml", ("coco=13",))
    with pytest.raises(SettingError, match="trunk_rate"):
        read_recipe(nano[0], FOLDER / "gpu.yaml", ("pool=3",))

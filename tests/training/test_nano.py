"""The recipe of the small model runs in the house's loop: on a few real photos, interrupted and gone on with."""

import json
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


def link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


@pytest.fixture(scope="module")
def few(data_folder, tmp_path_factory):
    """A few of the photos, and a trunk of random weights."""
    root = tmp_path_factory.mktemp("few")
    wanted = {"coco-mini": 8, "camvid-mini": 3, "msrc": 4, "pets": 2, "coco-things": 4, "bsds": 2, "coco-unlabelled": 2}
    for name, count in wanted.items():
        source = data_folder / name
        for split in [path.parent for path in sorted(source.rglob("images")) if path.parent.name != "val"]:
            labelled = split / ("masks" if (split / "masks").is_dir() else "images")
            stems = sorted(path.stem for path in labelled.iterdir())[:count]
            for path in split.rglob("*"):
                if path.stem in stems or (path.suffix == ".json" and path.is_file()):
                    link(path, root / path.relative_to(data_folder))
        for file in source.glob("*.json"):
            link(file, root / file.relative_to(data_folder))
    (root / "imagenet-mini").symlink_to(data_folder / "imagenet-mini")
    torch.manual_seed(0)
    weights = {f"trunk.{key}": value for key, value in EfficientNetLite().state_dict().items()}
    for key, shape in (("head", (1280, 352)), ("classifier", (1000, 1280))):
        weights |= {f"{key}.weight": torch.randn(shape) * shape[1] ** -0.5, f"{key}.bias": torch.zeros(shape[0])}
    save_file({key: value.contiguous() for key, value in weights.items()}, root / "trunk.safetensors")
    return root


def settings(kind, few, file, *more):
    counts = ("coco=2", "camvid=1", "mosaics=1", "things=1", "msrc=1", "pets=1", "bsds=1", "loop.batch=8")
    small = (*counts, "crop=64", "short=64", "layers=2", "region_hidden=32", "local_width=16",
             "loop.iterations=4", "loop.seconds=0", "loop.precision=no", "loop.save_every=2",
             "loop.deterministic=true", "loop.workers=0", "loop.schedule.warmup=2", "pseudo.start=1.0")  # fmt: skip
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
def test_photos_without_labels_get_those_of_the_average(nano, few, tmp_path):
    more = ("unlabelled=1", "loop.batch=9", "pseudo.start=0.0", "pseudo.sure=0.0", "singles=2")
    recipe = settings(nano[0], few, "gpu.yaml", *more, f"snapshot={tmp_path / 'weights.safetensors'}")
    assert run(nano, recipe, tmp_path / "run").steps == 4
    about = json.loads((tmp_path / "weights.json").read_text())
    assert sum(entry["steps"] for entry in about["history"]) == 4
    assert about["history"][0]["guessed"] > 0


@pytest.mark.slow
def test_what_is_kept_apart_or_unseen_is_not_trained_on(nano, few, tmp_path):
    recipe = settings(nano[0], few, "two-cores.yaml", "pool=1", "camvid=0", "coco=3", "tune=4", "unseen=[person]")
    task = nano[1](recipe, tmp_path / "crops.safetensors", torch.device("cpu"))
    assert len(task.sources.sets["coco"]) == 6
    assert len(task.apart().pairs) == 2
    assert "camvid" not in task.sources.sets
    assert not {"person", "man"} & set(task.trained_names)
    assert "bicyclist" not in task.trained_names
    measured = task.validate()
    assert set(measured) == {"regions", "true_miou", "miou", "pixels"}


@pytest.mark.parametrize("file", ["gpu.yaml", "two-cores.yaml"])
def test_recipes_are_read(nano, file):
    assert read_recipe(nano[0], FOLDER / file).loop.batch


def test_recipes_that_cannot_be(nano):
    with pytest.raises(SettingError, match=r"coco \+ msrc .* mosaics are 22"):
        read_recipe(nano[0], FOLDER / "gpu.yaml", ("coco=11",))
    with pytest.raises(SettingError, match="trunk_rate"):
        read_recipe(nano[0], FOLDER / "gpu.yaml", ("pool=3",))
    with pytest.raises(SettingError, match="need the teacher"):
        read_recipe(nano[0], FOLDER / "gpu.yaml", ("unlabelled=3", "loop.batch=24", "pseudo.start=1.0"))


def test_labels_are_sets_of_names(nano):
    import sets

    classes = {"coco": ["cat", "banner", "house", "wall"], "msrc": ["building", "road|street"], "pets": ["cat", "dog"],
               "camvid": ["sky"]}  # fmt: skip
    things = {name: torch.tensor([label in ("cat", "dog") for label in own]) for name, own in classes.items()}
    space = sets.space_of(classes, things, {1: "dog", 2: "ship"}, 3)
    assert space.names == ("cat", "banner", "house", "wall", "building", "road", "dog")

    def allowed(name, number):
        label = int(space.tables[name][number])
        return None if label < 0 else {space.names[index] for index in space.allowed[label].nonzero()[:, 0]}

    assert allowed("coco", 0) is None
    assert allowed("coco", 1) == {"cat"}
    assert int(space.tables["coco"][1]) == int(space.tables["pets"][1]) == 0  # one label for one name
    assert allowed("msrc", 1) == {"building", "house"}
    assert allowed("pets", 0) == set(space.names) - {"cat", "dog"}
    assert allowed("camvid", 1) == set()
    assert not space.region[space.tables["pets"][0]]
    assert space.own_names["msrc"] == ("building", "road")
    assert int(space.own["msrc"][space.tables["msrc"][2]]) == 1
    assert space.allowed[space.imagenet + 1].nonzero().tolist() == [[space.names.index("dog")]]
    assert not space.allowed[space.imagenet + 2].any()

    held_out = sets.space_of(classes, things, {}, 3, unseen=("house",))
    assert int(held_out.tables["coco"][3]) == -1
    building = int(held_out.tables["msrc"][1])
    assert not held_out.allowed[building].any()  # it could be a house
    assert int(held_out.own["msrc"][building]) == 0
    with pytest.raises(SettingError, match="submarine"):
        sets.space_of(classes, things, {}, 3, unseen=("submarine",))


def test_losses_of_sets_are_those_of_all_that_may_be(nano):
    import losses

    torch.manual_seed(0)
    allowed = torch.cat([torch.eye(4), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])]).bool()
    logits, labels = torch.randn(6, 4), torch.tensor([2, 4, -1, 5, 6, 4])
    p = logits.softmax(-1)
    expected = torch.tensor([-p[0, 2].log(), -p[1, :2].sum().log(), 0, 0, 0, -p[5, :2].sum().log()])
    torch.testing.assert_close(losses.label_loss(logits, labels, allowed), expected)
    shares = torch.nn.functional.one_hot(labels.clamp_min(0), 7).float()[[0, 1, 5]] * 0.5
    several = torch.tensor([4])
    torch.testing.assert_close(
        losses.shares_loss(logits[[0, 1, 5]], shares, allowed, several), 0.5 * expected[[0, 1, 5]]
    )
    smoothed = losses.label_loss(logits, labels, allowed, 0.1)
    assert torch.all(smoothed[[0, 1, 5]] != expected[[0, 1, 5]])
    logits.requires_grad_()
    losses.label_loss(logits, labels, allowed, 0.1).sum().backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[2:5].any()


def test_a_matched_query_keeps_out_of_what_is_no_segment(nano):
    import losses

    segments = torch.full((1, 16, 16), -1)
    segments[:, :8, :8] = 0
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 2.0  # the first query takes all
    unknown = losses.divide_loss([logits], segments, 4)
    segments[segments < 0] = -2
    assert losses.divide_loss([logits], segments, 4) > unknown + 0.5
    logits[:, 0, 2:] = logits[:, 0, :, 2:] = -9.0
    assert losses.divide_loss([logits], segments, 4) < unknown


def test_shrunk_sets_are_read_as_they_were_written(nano, tmp_path):
    import packed

    import data

    rng = np.random.default_rng(0)
    classes = np.zeros((60, 80), np.uint8)
    classes[20:, 40:] = 2
    photo = np.full((60, 80, 3), 90, np.uint8)
    one = data.Example(photo, classes, (classes > 0).astype(np.uint8))
    small = data.Example(photo[:30], rng.integers(0, 3, (30, 80), dtype=np.uint8), np.zeros((30, 80), np.uint8))
    packed.write(tmp_path / "msrc.npz", data.Examples((one, small), ("a", "b|c"), np.array([True, False])),
                 packed.Shrink(40, 80))  # fmt: skip
    found = packed.read_set(tmp_path, "msrc")
    assert found.names == ("a", "b|c")
    assert found.things.tolist() == [True, False]
    assert [example.photo.shape for example in found.photos] == [(30, 40, 3), (15, 40, 3)]
    assert abs(found.photos[0].photo.astype(int) - 90).max() < 4
    assert np.array_equal(found.photos[0].classes, classes[1::2, 1::2])
    photos = data.on_canvas(found, torch.tensor([-1, 7, 9]))
    assert photos.labels.shape == (2, 40, 40)
    assert set(photos.labels[0].unique().tolist()) == {0, 10}


def test_a_packed_trunk_is_nearly_the_same(nano, tmp_path):
    import trunk

    torch.manual_seed(0)
    state = {
        "trunk.a.weight": torch.randn(6, 3, 3, 3),
        "trunk.a.bias": torch.randn(6),
        "head.weight": torch.randn(5, 6),
    }
    trunk.write_packed(state, tmp_path / "trunk.npz")
    found = trunk.read_trunk(tmp_path / "trunk.npz")
    assert found.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, atol=0.004, rtol=0)

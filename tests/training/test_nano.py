"""The recipe of the small model: its label space and losses, compressed data, and training on a few photos."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from recipes.nano import data, extrapolate, losses, new_names, objective, packed, snapshot, trunk
from recipes.nano.recipe import Nano, NanoRecipe
from recipes.nano.sets import build_label_space
from recipes.nano.task import NanoTask
from safetensors.torch import load_file, save_file

import deop
from deop.data.folder import open_folder
from deop.errors import CheckpointError, DataError, SettingError, TrainingError
from deop.networks.efficientnet import EfficientNetLite
from deop.training.loop import fit
from deop.training.recipe import plain, read_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "nano"


def link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


@pytest.fixture(scope="module")
def small_data(data_folder, tmp_path_factory):
    """A directory with a few photos of each data set, and random weights of the trunk."""
    root = tmp_path_factory.mktemp("small")
    counts = {"coco-mini": 8, "camvid-mini": 3, "msrc": 4, "pets": 2, "coco-things": 4, "bsds": 2, "coco-unlabelled": 2}
    for name, count in counts.items():
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


def small_recipe(root, file, *settings):
    counts = ("coco=2", "camvid=1", "mosaics=1", "things=1", "msrc=1", "pets=1", "bsds=1", "loop.batch=8")
    sizes = ("crop=64", "short=64", "layers=2", "region_hidden=32", "local_width=16")
    loop = ("iterations=4", "seconds=0", "precision=no", "save_every=2", "deterministic=true", "workers=0")
    paths = (f"data={root}", f"trunk={root / 'trunk.safetensors'}")
    more = ("loop.schedule.warmup=2", "pseudo.start=1.0")
    changes = (*counts, *sizes, *(f"loop.{setting}" for setting in loop), *more, *paths, *settings)
    return read_recipe(NanoRecipe, FOLDER / file, changes)


def train(recipe, out, resume=False):
    torch.set_num_threads(1)
    task = NanoTask(recipe, out.parent / "crops.safetensors", torch.device("cpu"))
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device="cpu", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "settings"), [("gpu.yaml", ("singles=2",)), ("two-cores.yaml", ("pool=1",))])
def test_resumed_run_has_the_same_weights_and_the_model_segments(small_data, tmp_path, monkeypatch, file, settings):
    recipe = small_recipe(small_data, file, *settings)
    complete = train(recipe, tmp_path / "complete")
    forward = NanoTask.forward

    def fail_at_step_3(self, batch):
        if batch.step == 3:
            raise RuntimeError("killed")
        return forward(self, batch)

    monkeypatch.setattr(NanoTask, "forward", fail_at_step_3)
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe, tmp_path / "resumed")
    monkeypatch.undo()
    resumed = train(recipe, tmp_path / "resumed", resume=True)
    expected, actual = (load_file(result.model / "model.safetensors") for result in (complete, resumed))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)

    initial = load_file(small_data / "trunk.safetensors")
    stem = next(value for key, value in expected.items() if key.endswith("trunk.stem.weight"))
    is_frozen = file == "two-cores.yaml"
    assert torch.equal(stem, initial["trunk.stem.weight"]) == is_frozen
    model = deop.load(complete.model, device="cpu")
    assert {"person", "bicyclist"} <= set(model.settings.calibration.trained_names)
    assert model.card.training_data.startswith("8 photos of COCO")
    result = model.segment(np.full((80, 100, 3), 90, np.uint8), ["person", "sky"])
    assert result.label_map.shape == (80, 100)
    with pytest.raises(TrainingError, match="another recipe"):
        train(replace(recipe, noise=0.3), tmp_path / "resumed", resume=True)


@pytest.mark.slow
def test_unlabelled_photos_get_pseudo_labels_and_the_snapshot_unpacks(small_data, tmp_path, monkeypatch):
    from recipes.nano import unpack

    snapshot = tmp_path / "weights.safetensors"
    settings = ("unlabelled=1", "loop.batch=9", "pseudo.start=0.0", "pseudo.confidence=0.0", "singles=2")
    run = train(small_recipe(small_data, "gpu.yaml", *settings, f"snapshot={snapshot}"), tmp_path / "run")
    about = json.loads(snapshot.with_suffix(".json").read_text(encoding="utf-8"))
    assert run.steps == sum(entry["steps"] for entry in about["history"]) == 4
    assert about["history"][0]["pseudo_labelled"] > 0
    monkeypatch.setattr(sys, "argv", ["unpack", str(snapshot), str(tmp_path / "model")])
    unpack.main()
    expected, actual = (load_file(folder / "model.safetensors") for folder in (run.model, tmp_path / "model"))
    assert actual.keys() == expected.keys()
    assert all(torch.allclose(actual[key].float(), expected[key].float(), atol=2e-3, rtol=2e-3) for key in expected)


@pytest.mark.slow
def test_a_run_starts_from_the_snapshot_of_another(small_data, tmp_path):
    file = tmp_path / "weights.safetensors"
    train(small_recipe(small_data, "gpu.yaml", "singles=0", f"snapshot={file}"), tmp_path / "first")
    recipe = small_recipe(small_data, "continue.yaml", "singles=0", "local_width=0", f"start={file}")
    task = NanoTask(recipe, tmp_path / "crops.safetensors", torch.device("cpu"))
    tensors, expected = snapshot.snapshot_tensors(task.model.snapshot_parts()), load_file(file)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    run = fit(task, recipe.loop, tmp_path / "second", recipe=plain(recipe), device="cpu", progress=False)
    assert run.steps == 4


def test_a_snapshot_must_fit_the_model(small_data, tmp_path):
    recipe = small_recipe(small_data, "continue.yaml", "local_width=0")
    first, second = Nano(recipe), Nano(recipe)
    tensors = snapshot.snapshot_tensors(first.snapshot_parts())
    key = "encoder.class_token"
    assert not torch.equal(first.encoder.class_token, second.encoder.class_token)
    save_file(tensors, tmp_path / "fits.safetensors")
    snapshot.load_snapshot(tmp_path / "fits.safetensors", second.snapshot_parts())
    assert torch.equal(second.encoder.class_token, tensors[key].float())
    without = {name: value for name, value in tensors.items() if name != key}
    for number, wrong in enumerate(({**tensors, "local.x": torch.zeros(1)}, without, {**tensors, key: torch.zeros(1)})):
        save_file(wrong, tmp_path / f"{number}.safetensors")
        with pytest.raises(CheckpointError, match="1 weights differ, such as"):
            snapshot.load_snapshot(tmp_path / f"{number}.safetensors", second.snapshot_parts())


def test_quantized_snapshots_have_127_levels(tmp_path):
    torch.manual_seed(0)
    state = {"encoder.weight": torch.randn(3, 4, 2), "encoder.bias": torch.randn(3)}
    trunk.write_quantized(state, tmp_path / "weights.npz", snapshot.LEVELS)
    read = snapshot.read_snapshot(tmp_path / "weights.npz")
    assert torch.equal(read["encoder.bias"], state["encoder.bias"])
    step = state["encoder.weight"].flatten(1).abs().amax(1)[:, None, None] / 127
    assert ((read["encoder.weight"] - state["encoder.weight"]).abs() <= 0.501 * step).all()


@pytest.mark.slow
def test_held_out_photos_and_unseen_names_are_not_trained_on(small_data, tmp_path):
    settings = ("pool=1", "camvid=0", "coco=3", "tune=4", "unseen=[person]")
    recipe = small_recipe(small_data, "two-cores.yaml", *settings)
    task = NanoTask(recipe, tmp_path / "crops.safetensors", torch.device("cpu"))
    assert len(task.sources.sets["coco"]) == 6
    assert len(task.held_out_photos().pairs) == 2
    assert "camvid" not in task.sources.sets
    assert not {"person", "man"} & set(task.trained_names)
    assert "bicyclist" not in task.trained_names
    assert set(task.validate()) == {"regions", "true_miou", "miou", "pixels"}


@pytest.mark.parametrize("file", ["gpu.yaml", "continue.yaml", "two-cores.yaml", "commercial.yaml"])
def test_yaml_files_are_valid(file):
    assert read_recipe(NanoRecipe, FOLDER / file).loop.batch


def test_contradictory_recipes_are_rejected():
    with pytest.raises(SettingError, match=r"coco \+ msrc .* mosaics is 22"):
        read_recipe(NanoRecipe, FOLDER / "gpu.yaml", ("coco=11",))
    with pytest.raises(SettingError, match="trunk_rate"):
        read_recipe(NanoRecipe, FOLDER / "gpu.yaml", ("pool=3",))
    with pytest.raises(SettingError, match="no local branch"):
        read_recipe(NanoRecipe, FOLDER / "continue.yaml", ("local_width=64",))
    with pytest.raises(SettingError, match="need pseudo-labels"):
        read_recipe(NanoRecipe, FOLDER / "gpu.yaml", ("unlabelled=3", "loop.batch=24", "pseudo.start=1.0"))

    with pytest.raises(SettingError, match=r"terms of camvid, mosaics allow research only"):
        read_recipe(NanoRecipe, FOLDER / "two-cores.yaml", ("licenses=[4]",))
    with pytest.raises(SettingError, match=r"terms of singles allow research only"):
        read_recipe(NanoRecipe, FOLDER / "commercial.yaml", ("singles=4", "pool=0"))


@pytest.mark.parametrize("place", ["images", "annotations"])
def test_only_photos_with_the_licenses_of_the_recipe_are_read(tmp_path, place):
    folder = tmp_path / "coco-mini" / "train"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    licenses = {"a": 4, "b": 1, "c": 5, "d": 3}
    for value, key in enumerate(licenses):
        Image.new("RGB", (40, 30), (value, 9, 9)).save(folder / "images" / f"{key}.png")
        Image.new("L", (40, 30), 1).save(folder / "masks" / f"{key}.png")
    (folder / "classes.json").write_text('[{"id": 1, "name": "cat"}]')
    listing = {"images": [], "annotations": []}
    listing[place] = [{"file_name": f"{key}.png", "license": number} for key, number in licenses.items()]
    (folder / "panoptic.json").write_text(json.dumps(listing))
    read = packed.licensed_part(open_folder(folder.parent, "train"), (4, 5))
    assert [pair.key for pair in read.pairs] == ["a", "c"]
    (tmp_path / "msrc.npz").touch()
    with pytest.raises(DataError, match="does not name the licenses"):
        packed.read_set(tmp_path, "msrc", (4,))


def test_extrapolation_continues_the_line_through_two_snapshots():
    first, second = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([2.0, 0.0])}
    for factor, expected in ((0.0, [1.0, 2.0]), (0.5, [1.5, 1.0]), (1.0, [2.0, 0.0]), (1.5, [2.5, -1.0])):
        assert extrapolate.extrapolate(first, second, factor)["a"].tolist() == expected
    with pytest.raises(CheckpointError, match="different models"):
        extrapolate.extrapolate(first, {"a": torch.zeros(3)}, 0.5)


def test_new_names_are_twenty_that_training_never_saw():
    names = [name for boxes in new_names.PHOTOS.values() for name in boxes]
    assert len(new_names.PHOTOS) == 10
    assert len(set(names)) == len(names) == 20
    assert not set(names) & set(deop.load("nano").settings.calibration.trained_names)


PAGES = (
    "recipes/nano/NOTES.md",
    "recipes/nano/gpu.yaml",
    "recipes/nano/continue.yaml",
    "recipes/nano/two-cores.yaml",
    "recipes/nano/commercial.yaml",
    "docs/training.md",
    "src/deop/assets/nano/README.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_documented_commands_name_modules_of_the_package(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    modules = re.findall(r"python -m (recipes[\w.]*)", text)
    assert modules
    assert all(importlib.util.find_spec(module) for module in modules)
    assert not re.findall(r"python recipes/\S*", text)


@pytest.mark.slow
def test_training_starts_from_the_root_of_the_repository():
    command = [sys.executable, "-m", "recipes.nano.train", "--help"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "Train the small model" in output


@pytest.fixture(scope="module")
def classes():
    """The class names of four data sets."""
    return {"coco": ["cat", "banner", "house", "wall"], "msrc": ["building", "road|street"], "pets": ["cat", "dog"],
            "camvid": ["sky"]}  # fmt: skip


@pytest.fixture(scope="module")
def things(classes):
    """Which classes are things."""
    return {source: torch.tensor([name in ("cat", "dog") for name in names]) for source, names in classes.items()}


def test_labels_are_sets_of_joint_names(classes, things):
    space = build_label_space(classes, things, {1: "dog", 2: "ship"}, 3)
    assert space.names == ("cat", "banner", "house", "wall", "building", "road", "dog")

    def allowed(source, number):
        label = int(space.label_of_class[source][number])
        return None if label < 0 else {space.names[index] for index in space.allowed[label].nonzero()[:, 0]}

    assert allowed("coco", 0) is None
    assert allowed("coco", 1) == {"cat"}
    assert int(space.label_of_class["coco"][1]) == int(space.label_of_class["pets"][1]) == 0  # one label per name
    assert allowed("msrc", 1) == {"building", "house"}
    assert allowed("pets", 0) == set(space.names) - {"cat", "dog"}
    assert allowed("camvid", 1) == set()
    assert not space.positive[space.label_of_class["pets"][0]]
    assert space.own_names["msrc"] == ("building", "road")
    assert int(space.own_index["msrc"][space.label_of_class["msrc"][2]]) == 1
    assert space.allowed[space.first_imagenet + 1].nonzero().tolist() == [[space.names.index("dog")]]
    assert not space.allowed[space.first_imagenet + 2].any()


def test_labels_that_may_be_an_unseen_name_are_void(classes, things):
    space = build_label_space(classes, things, {}, 3, unseen=("house",))
    assert int(space.label_of_class["coco"][3]) == -1
    building = int(space.label_of_class["msrc"][1])
    assert not space.allowed[building].any()  # a building may be a house
    assert int(space.own_index["msrc"][building]) == 0
    with pytest.raises(SettingError, match="submarine"):
        build_label_space(classes, things, {}, 3, unseen=("submarine",))


def test_label_losses_are_negative_log_probabilities_of_the_allowed_names():
    torch.manual_seed(0)
    allowed = torch.cat([torch.eye(4), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])]).bool()
    logits, labels = torch.randn(6, 4), torch.tensor([2, 4, -1, 5, 6, 4])
    p = logits.softmax(-1)
    expected = torch.tensor([-p[0, 2].log(), -p[1, :2].sum().log(), 0, 0, 0, -p[5, :2].sum().log()])
    torch.testing.assert_close(losses.label_loss(logits, labels, allowed), expected)
    shares = F.one_hot(labels.clamp_min(0), 7).float()[[0, 1, 5]] * 0.5
    actual = losses.label_shares_loss(logits[[0, 1, 5]], shares, allowed, torch.tensor([4]))
    torch.testing.assert_close(actual, 0.5 * expected[[0, 1, 5]])
    smoothed = losses.label_loss(logits, labels, allowed, 0.1)
    assert torch.all(smoothed[[0, 1, 5]] != expected[[0, 1, 5]])
    logits.requires_grad_()
    losses.label_loss(logits, labels, allowed, 0.1).sum().backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[2:5].any()


def test_matched_queries_are_penalized_outside_all_segments():
    segments = torch.full((1, 16, 16), -1)
    segments[:, :8, :8] = 0
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 2.0  # the first query covers the photo
    unknown = losses.partition_loss([logits], segments, 4)
    segments[segments < 0] = -2
    assert losses.partition_loss([logits], segments, 4) > unknown + 0.5
    logits[:, 0, 2:] = logits[:, 0, :, 2:] = -9.0
    assert losses.partition_loss([logits], segments, 4) < unknown


def test_regions_are_the_pixels_of_their_number():
    rng = np.random.default_rng(0)
    blocks = torch.from_numpy(rng.integers(-1, 3, (2, 4, 4)))
    numbers = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    coverage = losses.region_coverage(numbers, 3, 16)
    for region in range(3):
        torch.testing.assert_close(coverage[:, region], F.avg_pool2d((numbers == region).float(), 16))
    label_of_region = torch.tensor([5, -1, 7])
    labels = torch.where(numbers >= 0, label_of_region[numbers.clamp_min(0)], 9)
    actual = objective.labels_of_regions(numbers, labels)
    assert actual.shape == (2, objective.SEGMENTS)
    for crop in range(2):
        assert set(blocks[crop].unique().tolist()) >= {0, 1, 2}
        assert actual[crop].tolist() == [5, -1, 7] + [-1] * (objective.SEGMENTS - 3)


def test_renumbering_keeps_the_largest_regions():
    numbers = torch.zeros(1, 16, 16, dtype=torch.int64)
    numbers[:, :4], numbers[:, 4:12], numbers[:, 12:, :8] = 7, 3, 127
    actual = data.renumber_by_area(numbers, 2)
    assert actual[0, :, 0].unique_consecutive().tolist() == [1, 0, -1]
    assert actual[0, 15, 15] == -1


def test_compressed_sets_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    classes = np.zeros((60, 80), np.uint8)
    classes[20:, 40:] = 2
    photo = np.full((60, 80, 3), 90, np.uint8)
    large = data.Example(photo, classes, (classes > 0).astype(np.uint8))
    small = data.Example(photo[:30], rng.integers(0, 3, (30, 80), dtype=np.uint8), np.zeros((30, 80), np.uint8))
    examples = data.Examples((large, small), ("a", "b|c"), np.array([True, False]))
    packed.write_examples(tmp_path / "msrc.npz", examples, packed.Compression(40, 80))
    actual = packed.read_set(tmp_path, "msrc")
    assert actual.names == ("a", "b|c")
    assert actual.things.tolist() == [True, False]
    assert [example.photo.shape for example in actual.photos] == [(30, 40, 3), (15, 40, 3)]
    assert abs(actual.photos[0].photo.astype(int) - 90).max() < 4
    assert np.array_equal(actual.photos[0].classes, classes[1::2, 1::2])
    photos = data.on_canvas(actual, torch.tensor([-1, 7, 9]))
    assert photos.labels.shape == (2, 40, 40)
    assert set(photos.labels[0].unique().tolist()) == {0, 10}


def test_quantized_trunk_is_close(tmp_path):
    torch.manual_seed(0)
    state = {
        "trunk.a.weight": torch.randn(6, 3, 3, 3),
        "trunk.a.bias": torch.randn(6),
        "head.weight": torch.randn(5, 6),
    }
    trunk.write_quantized(state, tmp_path / "trunk.npz")
    actual = trunk.read_trunk(tmp_path / "trunk.npz")
    assert actual.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(actual[key], value, atol=0.004, rtol=0)

"""The three stages with tiny random models on noise photos, from a recipe to a model folder that segments photos."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import deop
from deop.data.augment import Augmentation
from deop.data.folder import open_folder
from deop.data.pack import pack
from deop.data.samples import TrainingPhotos
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.errors import DataError, SettingError, VocabularyError
from deop.images.preprocessing import CLIP, IMAGENET, Resize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.settings import Settings
from deop.training.recipe import build
from deop.training.stages import deop as anchors_stage
from deop.training.stages import prompt as prompt_stage
from deop.training.stages import proposals as proposal_stage
from deop.training.stages.common import ClassNames, Data, PhotoBatches, Validation
from deop.training.task import LoopSettings
from tests.cli.conftest import write_photo

ROOT = Path(__file__).parents[3]
NETWORK = {
    "depth": 50, "stem_width": 4, "width": 4, "hidden": 16, "heads": 2, "ffn": 16, "decoder_layers": 2, "queries": 6,
    "conv_dim": 32, "mask_dim": 16, "class_mlp": [16, 16, 32], "dropout": 0.1,
}  # fmt: skip
LOOP = {"iterations": 2, "batch": 2, "save_every": 1, "log_every": 1, "clip": 0.01}
SMALL = {"short_sides": [64], "crop": 64, "pad": 64, "colour": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six photos: four with a cat, one with nothing but an unseen dog, and one without any class."""
    root = tmp_path_factory.mktemp("photos")
    listing = [
        {"id": 3, "name": "cat", "isthing": True, "seen": True},
        {"id": 5, "name": "wall", "isthing": False, "seen": True},
        {"id": 7, "name": "dog", "isthing": True, "seen": False},
    ]
    (root / "classes.json").write_text(json.dumps(listing))
    for number in range(6):
        write_photo(root / "train" / "images" / f"{number}.png", seed=number)
        mask = np.zeros((64, 96), np.uint8)
        if number < 4:
            mask[10:40, 20:60] = 3
            mask[:, 70:] = 5
            mask[:32, 70:83] = 0
            mask[50:, :30] = 7
        elif number == 4:
            mask[:, :50] = 7
        (root / "train" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "train" / "masks" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def base(tiny_clip, tmp_path_factory):
    """A model in deop's format with a learned prompt and a MaskFormer with six queries."""
    torch.manual_seed(0)
    text = CLIPText.from_folder(tiny_clip)
    text.add_prompt(4, 0)
    settings = Settings(resize=Resize(64))
    model = DeOP(CLIPVision.from_folder(tiny_clip), text, MaskFormer(MaskFormerConfig(**NETWORK)), settings=settings)
    return model.save_pretrained(tmp_path_factory.mktemp("base"))


def recipe_of(kind, model, folder, **changes):
    return build(kind, {"model": str(model), "data": {"folder": str(folder)}, "loop": LOOP, **changes}, "test")


def state(folder):
    return load_file(folder / "model.safetensors")


def changed(before, after):
    """The keys of new and changed tensors."""
    old, new = state(before), state(after)
    return {key for key, value in new.items() if key not in old or not torch.equal(old[key], value)}


def segments(run, folder):
    model = deop.load(run.model)
    actual = model.segment(folder / "train" / "images" / "0.png", ["cat", "wall"])
    assert actual.label_map.shape == (64, 96)
    return model


def test_only_seen_classes_are_used(folder):
    actual = Data(str(folder)).open()
    assert actual.names == ("cat", "wall")
    labels = actual.labels(actual.pairs[0])
    assert set(np.unique(labels)) == {-1, 0, 1}
    assert (labels[50:, :30] == -1).all()  # the dog is void
    assert Data(str(folder), unseen=("cat",)).open().names == ("wall", "dog")
    assert [pair.photo.stem for pair in actual.pairs] == ["0", "1", "2", "3"]  # the others have no seen class
    with pytest.raises(DataError, match="has no class named cow"):
        Data(str(folder), unseen=("cow",)).open()
    with pytest.raises(DataError, match="no photo shows any of the 0 seen classes"):
        Data(str(folder), unseen=("cat", "dog", "wall")).open()


def test_each_epoch_has_every_photo_once_in_another_order(folder):
    unchanged = Augmentation(short_sides=None, crop=None, colour=False, flip=0, pad=None)
    batches = PhotoBatches(TrainingPhotos(Data(str(folder)).open(), unchanged, 0))
    epochs = [[batches.sample(row).photo.stem for row in range(start, start + 4)] for start in range(0, 40, 4)]
    assert all(sorted(epoch) == ["0", "1", "2", "3"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_stage_1(base, folder, tmp_path):
    recipe = recipe_of(prompt_stage.PromptRecipe, base, folder, prefix=4, shots=3)
    run = prompt_stage.train(recipe, tmp_path, device="cpu")
    assert changed(base, run.model) == {"text.prompt.prefix"}
    model = segments(run, folder)
    assert model.settings.calibration.trained_names == ("cat", "wall")
    assert "4 photos, 2 names (stage 'prompt')" in model.card.training_data


def test_stage_1_loss_by_hand(base, folder):
    recipe = recipe_of(prompt_stage.PromptRecipe, base, folder, prefix=4, shots=3)
    model = prompt_stage.prepare(recipe)
    crops = prompt_stage.CropBatches(recipe.data.open(), recipe, model.encoder.crop_side)
    assert sorted(label for _, label in crops.pairs) == [0] * 3 + [1] * 3
    batch = crops(range(6))
    assert not batch.inside.all()
    task = prompt_stage.PromptTask(model, ["cat", "wall"], crops, recipe).train()
    actual = task(batch)["entropy"]

    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP.mean, CLIP.std))
    pixels = torch.where(batch.inside[:, None], (batch.pixels - mean) / std, torch.zeros(()))
    with torch.no_grad():
        images = F.normalize(model.encoder(pixels).image, dim=-1)
    rows = F.normalize(model.text.embed(["cat", "wall"]), dim=-1)
    torch.testing.assert_close(actual, F.cross_entropy(100 * images @ rows.T, batch.labels))
    actual.backward()
    assert model.text.prompt.prefix.grad.abs().sum() > 0
    original = prompt_stage.masked_pixels(batch, CLIP, "original")
    outside = ~batch.inside[:, None].expand_as(pixels)
    assert torch.equal(original.masked_select(outside).unique(), torch.tensor([0.41, 0.46, 0.48]))


def test_crops_are_tight_around_the_class(folder):
    recipe = recipe_of(prompt_stage.PromptRecipe, "nowhere", folder, area=[1.0, 1.0], aspect=1.0, shots=2, flip=0.0)
    crops = prompt_stage.CropBatches(recipe.data.open(), recipe, 32)
    photo, label = crops.pairs[0]
    pixels, inside, actual = crops.crop(int(np.argsort(prompt_stage.shuffled(len(crops.pairs), 0, 0))[0]))
    assert (label, actual) == (0, 0)
    assert inside.all()  # the cat is a rectangle, and the window of ratio 1 lies in it
    source = np.asarray(Image.open(folder / "train" / "images" / f"{photo}.png"))[10:40, 25:55]
    expected = np.asarray(Image.fromarray(source).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(30, 40), (5, 200), (200, 5), (1, 1)])
def test_windows_lie_inside_and_have_the_requested_area(size):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        y, x, height, width = prompt_stage.random_window(size[0], size[1], (0.08, 1.0), 4 / 3, rng)
        assert 0 <= y <= size[0] - height
        assert 0 <= x <= size[1] - width
        assert min(height, width) >= 1
        shares.append(height * width / (size[0] * size[1]))
    if size == (30, 40):
        assert 0.05 < min(shares) < 0.15
        assert max(shares) > 0.8


def test_stage_2(base, folder, tmp_path):
    recipe = recipe_of(proposal_stage.ProposalRecipe, base, folder, network=NETWORK, augmentation=SMALL)
    run = proposal_stage.train(recipe, tmp_path, device="cpu")
    keys = changed(base, run.model)
    assert "no_object" in keys
    assert all(key.startswith(("proposer.", "no_object")) for key in keys)
    assert segments(run, folder).proposer.config.queries == 6


def test_stage_2_groups(base, folder):
    recipe = recipe_of(proposal_stage.ProposalRecipe, base, folder, network=NETWORK)
    task = proposal_stage.ProposalTask(proposal_stage.prepare(recipe), ["cat"], fake_batches(recipe), recipe)
    actual = {name: (group.rate, group.decay) for group in task.groups() for name in group.names}
    network = "model.proposer.network."
    assert actual[network + "backbone.stem.conv1.conv.weight"] == pytest.approx((1e-5, 1e-4))
    assert actual[network + "decoder.queries"] == (1e-4, 0.0)
    assert actual[network + "decoder.norm.weight"] == (1e-4, 0.0)
    assert actual[network + "mask_head.layers.0.weight"] == (1e-4, 1e-4)
    assert actual["model.no_object"] == (1e-4, 1e-4)
    assert not any("encoder" in name or "text" in name for name in actual)


def fake_batches(recipe):
    return PhotoBatches(TrainingPhotos(recipe.data.open(), recipe.augmentation, 0))


def test_stage_2_backbone_from_a_file(base, folder, tmp_path):
    from safetensors.torch import save_file

    source = MaskFormer(MaskFormerConfig(**NETWORK)).network.backbone.state_dict()
    # In the original, the norm is a part of the convolution.
    renamed = {key.replace(".conv.weight", ".weight"): value + 1 for key, value in source.items()}
    save_file(renamed, tmp_path / "backbone.safetensors")
    recipe = recipe_of(
        proposal_stage.ProposalRecipe, base, folder, network=NETWORK, start=str(tmp_path / "backbone.safetensors")
    )
    loaded = proposal_stage.prepare(recipe).proposer.network.backbone.state_dict()
    assert all(torch.equal(loaded[key], source[key] + 1) for key in source)


STAGE_3 = {
    "augmentation": SMALL,
    "anchors": {"heads": 2, "hidden": 16},
    "tower": {"positions_at_input": True, "positions_in_blocks": [1, 2], "positions_grid": 6, "statistics": "imagenet"},
    "severance": {"kind": "gate"},
    "resize": {"short_side": 64},
    "padding": "inside",
}


def test_stage_3(base, folder, tmp_path):
    recipe = recipe_of(anchors_stage.DeOPRecipe, base, folder, **STAGE_3)
    run = anchors_stage.train(recipe, tmp_path, device="cpu")
    keys = changed(base, run.model)
    assert {key.split(".")[0] for key in keys} == {"encoder", "anchors", "no_object", "text"}
    assert {key for key in keys if key.startswith("encoder.")} == {
        f"encoder.learned_positions.{place}" for place in ("input", "1", "2")
    }
    assert {key for key in keys if key.startswith("text.")} == {"text.prompt.prefix"}
    model = segments(run, folder)
    assert model.settings.anchors == "decoder"
    assert model.settings.severance.kind == "gate"
    assert model.encoder.normalization == IMAGENET
    assert model.settings.calibration.trained_names == ("cat", "wall")


def test_partition_and_prior_of_the_trained_model(base, folder):
    recipe = recipe_of(anchors_stage.DeOPRecipe, base, folder, **STAGE_3, partition="score", prior=0.3)
    settings = anchors_stage.prepare(recipe).settings
    assert (settings.partition, settings.prior) == ("score", 0.3)
    with pytest.raises(SettingError, match="prior 2"):
        anchors_stage.prepare(recipe_of(anchors_stage.DeOPRecipe, base, folder, **STAGE_3, prior=2))


def test_validation_on_training_photos_is_refused(base, folder, tmp_path):
    """``split`` is "train" by default, also for the validation."""
    changes = STAGE_3 | {"validation": {"data": {"folder": str(folder)}}, "loop": LOOP | {"validate_every": 1}}
    recipe = recipe_of(anchors_stage.DeOPRecipe, base, folder, **changes)
    with pytest.raises(SettingError, match=r"4 of the 4 validation photos in .* are also trained on: set validation"):
        anchors_stage.train(recipe, tmp_path, device="cpu")


@pytest.mark.slow
def test_stage_3_resumes(base, folder, tmp_path):
    """A resumed run is bit-identical, with dropout, colour changes and crops."""
    loop = LOOP | {"iterations": 3}
    recipe = recipe_of(anchors_stage.DeOPRecipe, base, folder, **STAGE_3 | {"loop": loop, "noisy_masks": True})
    uninterrupted = anchors_stage.train(recipe, tmp_path / "whole", device="cpu")
    forward = anchors_stage.DeOPTask.forward
    count = iter(range(10))

    def broken(self, batch):
        if next(count) == 2:
            raise RuntimeError("gone")
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchors_stage.DeOPTask, "forward", broken)
        with pytest.raises(RuntimeError, match="gone"):
            anchors_stage.train(recipe, tmp_path / "broken", device="cpu")
    resumed = anchors_stage.train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert not changed(uninterrupted.model, resumed.model)
    start = anchors_stage.prepare(recipe)
    assert not torch.equal(start.anchors.queries, deop.load(resumed.model).anchors.queries)


def packed(folder, tmp_path, form):
    """The training photos as Parquet or tar files."""
    (tmp_path / "packed").mkdir(exist_ok=True)
    pack(open_folder(folder, "train"), tmp_path / "packed" / f"train-{{}}.{form}", shard_mb=0.05)
    assert len(list((tmp_path / "packed").glob(f"train-*.{form}"))) > 1
    return tmp_path / "packed"


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_packed_photos_give_the_same_steps(base, folder, tmp_path, form):
    """Weights after training are equal bit by bit, whatever form the photos have."""
    place = packed(folder, tmp_path, form)
    runs = [
        anchors_stage.train(
            recipe_of(anchors_stage.DeOPRecipe, base, data, **STAGE_3), tmp_path / f"run{number}", device="cpu"
        )
        for number, data in enumerate((folder, place))
    ]
    assert not changed(runs[0].model, runs[1].model)
    crops = [
        prompt_stage.CropBatches(recipe.data.open(), recipe, 32)(range(4))
        for recipe in (recipe_of(prompt_stage.PromptRecipe, base, data, shots=2) for data in (folder, place))
    ]
    assert torch.equal(crops[0].pixels, crops[1].pixels)
    assert torch.equal(crops[0].labels, crops[1].labels)
    changes = STAGE_3 | {"loop": LOOP | {"validate_every": 1}, "validation": {"data": {"folder": str(place)}}}
    with pytest.raises(SettingError, match=r"4 of the 4 validation photos in .* are also trained on"):
        anchors_stage.train(recipe_of(anchors_stage.DeOPRecipe, base, place, **changes), tmp_path / "run", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_workers_read_packed_photos_and_a_killed_run_resumes(base, folder, tmp_path, form):
    """Batches from two worker processes, ended with kill -9 after a step, give the weights of the folder."""
    place = packed(folder, tmp_path, form)
    loop = LOOP | {"iterations": 3, "workers": 2}
    whole = anchors_stage.train(
        recipe_of(anchors_stage.DeOPRecipe, base, folder, **STAGE_3 | {"loop": loop}), tmp_path / "a", device="cpu"
    )
    changes = {"model": str(base), "data": {"folder": str(place)}, **STAGE_3, "loop": loop}
    (tmp_path / "recipe.yaml").write_text(json.dumps(changes))
    kill = (
        "import os, signal, sys; from deop.cli import main; from deop.training.stages import deop as stage\n"
        "forward, count = stage.DeOPTask.forward, iter(range(9))\n"
        "def killed(self, batch):\n"
        "    next(count) == 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return forward(self, batch)\n"
        "if sys.argv.pop(1) == 'kill': stage.DeOPTask.forward = killed\n"
        "main()"
    )
    command = ["train", "deop", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "b")]
    for how, code in (("kill", -9), ("go", 0)):
        arguments = [sys.executable, "-c", kill, how, *command, "--device", "cpu", "--resume"]
        arguments += ["--threads", str(torch.get_num_threads())]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code, done.stderr
    assert "resuming after step 2" in done.stderr
    assert not changed(whole.model, tmp_path / "b" / "model")


def test_large_row_groups_are_reported_before_training(folder, tmp_path, monkeypatch):
    place = packed(folder, tmp_path, "parquet")
    monkeypatch.setattr("deop.data.parquet._WIDE", 1000)
    with pytest.warns(UserWarning, match="row groups of up to .* `deop prepare pack` writes smaller ones"):
        assert Data(str(place)).open().names == ("cat", "wall")


@pytest.mark.slow
def test_stage_3_on_the_small_model(folder, tmp_path):
    """A proposer without slots: each mask's query is computed from the features under it."""
    changes = {"anchors": {"query": "mask", "heads": 1, "hidden": 16}, "learn": ["anchors", "no_object"],
               "augmentation": SMALL, "loss_stride": 4}  # fmt: skip
    recipe = recipe_of(anchors_stage.DeOPRecipe, "nano", folder, **changes)
    run = anchors_stage.train(recipe, tmp_path, device="cpu")
    model = segments(run, folder)
    assert model.anchors.config.width == 257
    assert model.no_object.shape == (257,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn": ["queries"]}, "learn has queries: choose from positions, anchors"),
        ({"learn": ["positions"], "anchors": None}, "has no learned positions: describe them in tower"),
        ({"learn": ["anchors"], "anchors": None}, "has no anchor decoder to train: describe a new one"),
        ({"anchors": {"query": "slots"}}, "anchors.query is 'slots': expected slot or mask"),
        ({"learn": []}, "learn is empty: choose from positions"),
        ({"learn": ["no_object"]}, "new decoder, which would stay untrained: set anchors=null"),
        ({"loss_stride": 0}, "loss_stride is 0: expected a number above 0"),
        ({"rate": float("nan")}, "rate is nan: expected a number above 0"),
        ({"decay": -1e-4}, "decay is -0.0001: expected 0 or more"),
        ({"loop": LOOP | {"validate_every": 1}}, "loop.validate_every needs photos"),
        ({"validation": {"data": {"folder": "x"}}}, "validation.data has no effect: set loop.validate_every"),
        ({"validation": {"proposals": "orakle"}}, "proposals is 'orakle': expected model or oracle"),
        ({"data": {"folder": "x", "limit": 0}}, "limit is 0: expected 1 or more photos"),
    ],
)
def test_stage_3_reports_missing_parts(base, folder, changes, message):
    with pytest.raises(SettingError, match=message):
        anchors_stage.prepare(recipe_of(anchors_stage.DeOPRecipe, base, folder, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn": ["prompt"], "anchors": None}, "nano has no learned prompt: start with stage 1"),
        ({"learn": ["anchors"]}, "needs a proposer with one query per mask, which NanoProposer does not have"),
        (
            {"tower": {"positions_at_input": True}},
            "tower changes CLIP's encoder, and this is a NanoEncoder",
        ),
    ],
)
def test_parts_that_the_small_model_cannot_train(folder, changes, message):
    with pytest.raises(SettingError, match=message):
        anchors_stage.prepare(recipe_of(anchors_stage.DeOPRecipe, "nano", folder, **changes))


@pytest.mark.slow
def test_two_processes_have_the_same_losses_as_one(base, folder, tmp_path):
    """Stage 3 with ``accelerate launch``."""
    from tests.training.test_loop import logged

    path = tmp_path / "recipe.yaml"
    import yaml

    values = {"model": str(base), "data": {"folder": str(folder)}, "loop": LOOP, **STAGE_3}
    values["anchors"] = values["anchors"] | {"dropout": 0.0}
    path.write_text(yaml.safe_dump(values))
    train = ["-m", "deop", "train", "deop", "--recipe", str(path), "--device", "cpu", "--out"]
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name, before in (("one", []), ("two", launcher)):
        command = [sys.executable, *before, *train, str(tmp_path / name)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("trained for 2 steps") == 1
    one, two = ([value for _, value in logged(tmp_path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 0}, "shots is 0: expected a number above 0"),
        ({"prefix": 0}, "nothing to train"),
        ({"suffix": -1}, "suffix is -1: expected 0 or more"),
        ({"area": [0.5, 0.1]}, r"area is \(0.5, 0.1\): expected a minimum and a maximum"),
        ({"aspect": 0.5}, "aspect is 0.5: expected a ratio of 1 or more"),
        ({"flip": 2.0}, "flip is 2.0: expected a probability"),
    ],
)
def test_stage_1_refuses_values_out_of_range(changes, message):
    with pytest.raises(SettingError, match=message):
        recipe_of(prompt_stage.PromptRecipe, "nowhere", "nowhere", **changes)


def test_stage_2_refuses_values_out_of_range():
    with pytest.raises(SettingError, match="backbone_rate is 0: expected a number above 0"):
        recipe_of(proposal_stage.ProposalRecipe, "nowhere", "nowhere", backbone_rate=0)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Data("photos", unseen="dog"), "unseen is 'dog': give a list of names"),
        (lambda: Validation(proposals="orakle"), "unknown proposals 'orakle'"),
        (lambda: anchors_stage.DeOPRecipe("nano", Data("x"), LoopSettings(1, 1), learn="anchors"), "give a list"),
    ],
)
def test_values_of_another_type_are_refused(create, message):
    with pytest.raises(SettingError, match=message):
        create()


def test_names_in_a_set_are_refused(base):
    with pytest.raises(VocabularyError, match="a set"):
        ClassNames(deop.load(base, device="cpu"), {"cat", "wall"})


def test_frozen_names_take_part_in_training_after_inference_mode(base):
    """Embeddings that are first used in inference mode, on another device, can still be saved for a backward pass."""
    model = deop.load(base, device="cpu")
    names = ClassNames(model, ["cat", "wall"])
    elsewhere = SimpleNamespace(text=model.text, cache=None, device="meta")
    with torch.inference_mode():
        names.frozen(elsewhere)
    rows = names.frozen(elsewhere).rows
    weight = torch.ones(1, rows.shape[1], device="meta", requires_grad=True)
    (weight @ rows.T).sum().backward()
    assert weight.grad is not None


def test_training_continues_after_a_validation(base, folder):
    """A validation runs in inference mode. It must leave no tensors behind that a backward pass cannot use."""
    recipe = recipe_of(anchors_stage.DeOPRecipe, base, folder, **STAGE_3)
    data = recipe.data.open()
    model = anchors_stage.prepare(recipe)
    batches = PhotoBatches(TrainingPhotos(data, recipe.augmentation, 0))
    task = anchors_stage.DeOPTask(model, data.names, batches, recipe)
    task.eval()
    model.segment(folder / "train" / "images" / "0.png", ["cat", "wall"])
    task.train()
    sum(task(batches(range(2))).values()).backward()
    assert model.anchors.queries.grad is not None

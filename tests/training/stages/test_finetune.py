"""Fine-tuning: the adaptor folds away exactly, photos are kept apart, before and after are told."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import deop
from deop.encoders.clip import CLIPVision
from deop.errors import DataError, SettingError
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.settings import Settings
from deop.training.recipe import read_recipe
from deop.training.stages.adaptor import LowRank, add_adaptor, fold_adaptor
from deop.training.stages.common import Data
from deop.training.stages.finetune import (
    FinetuneRecipe,
    Measured,
    OverfittingWarning,
    Report,
    _warn,
    divide,
    read_report,
    train,
)
from tests.cli.conftest import write_photo
from tests.training.stages.test_stages import NETWORK

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")
pytest.importorskip("kornia")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    (root / "classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "lamp post"}]))
    for number in range(5):
        write_photo(root / "images" / f"{number}.png", seed=number)
        mask = np.ones((64, 96), np.uint8)
        mask[:, 40 + number :] = 2
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def base(tiny_clip, tmp_path_factory):
    from deop.encoders.clip_text import CLIPText

    torch.manual_seed(0)
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    model = DeOP(*parts, MaskFormer(MaskFormerConfig(**NETWORK)), settings=Settings(resize=Resize(64)))
    return model.save_pretrained(tmp_path_factory.mktemp("base"))


def recipe_of(folder, *overrides):
    small = {"short_sides": [64], "crop": 64, "pad": 64}
    loop = {"iterations": 4, "batch": 2, "save_every": 0, "validate_every": 2, "log_every": 1}
    return read_recipe(
        FinetuneRecipe, None, overrides, {"data": {"folder": str(folder)}, "augmentation": small, "loop": loop}
    )


@pytest.mark.parametrize("dim", [0, 1])
def test_the_map_by_hand(dim):
    torch.manual_seed(0)
    weight, adaptor = torch.randn(6, 6), LowRank(6, 2, dim)
    assert torch.equal(adaptor(weight), weight)  # it begins as the identity
    torch.nn.init.normal_(adaptor.grow)
    whole = torch.eye(6) + adaptor.grow @ adaptor.shrink
    torch.testing.assert_close(adaptor(weight), whole @ weight if dim == 0 else weight @ whole.T)


@pytest.mark.parametrize("kind", ["clip", "nano"])
def test_folding_changes_nothing(tiny_clip, kind):
    """What the encoder gives with the adaptor, it gives without it after folding, under its old keys."""
    encoder = CLIPVision.from_folder(tiny_clip) if kind == "clip" else deop.load("nano", device="cpu").encoder
    keys, pixels = set(encoder.state_dict()), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain = encoder(pixels).patches.clone()
        add_adaptor(encoder, 3)
        torch.testing.assert_close(encoder(pixels).patches, plain)
        for name, parameter in encoder.named_parameters():
            if name.endswith(("grow", "shrink")):
                parameter.copy_(0.3 * torch.randn_like(parameter))
        adapted = encoder(pixels).patches.clone()
        fold_adaptor(encoder)
        folded = encoder(pixels).patches
    assert not torch.allclose(adapted, plain, atol=1e-3)
    torch.testing.assert_close(folded, adapted)
    assert set(encoder.state_dict()) == keys


def test_photos_are_kept_apart(folder):
    found = Data(str(folder)).open()
    learn, held = divide(found, recipe_of(folder))
    assert (len(learn.pairs), len(held.pairs)) == (4, 1)
    assert set(learn.pairs) | set(held.pairs) == set(found.pairs)
    fewer = divide(found, recipe_of(folder, "photos=3"))
    assert [len(part.pairs) for part in fewer] == [2, 1]
    assert divide(found, recipe_of(folder, "photos=3")) == fewer
    assert any(divide(found, recipe_of(folder, f"loop.seed={seed}"))[1] != held for seed in range(1, 6))
    with pytest.raises(DataError, match=r"has 1 photo to use"):
        divide(found, recipe_of(folder, "photos=1"))
    with pytest.raises(SettingError, match=r"held_out is 1\.0"):
        recipe_of(folder, "held_out=1.0")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["anchors.hidden=16"], ["learn=[adaptor]", "anchors=null"]])
def test_a_few_photos(base, folder, tmp_path, overrides):
    recipe = recipe_of(folder, *overrides, f"model={base}", f"others.folder={folder}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OverfittingWarning)
        run = train(recipe, tmp_path, device="cpu")
    report = read_report(run.folder)
    assert report.photos == (4, 1)
    assert report.before.others is not None
    assert 0 <= report.unchanged <= 1
    model = deop.load(run.model)
    assert (model.anchors is not None) == (recipe.anchors is not None)
    assert model.settings.calibration.trained_names == ("cat", "lamp post")
    assert "(stage 'finetune')" in model.card.training_data
    before = deop.load(base).encoder.state_dict()
    assert {key for key, value in model.encoder.state_dict().items() if not torch.equal(value, before[key])} <= {
        "projection"
    }


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((0.2, 0.2), (0.6, 0.25), r"over-fitting: the 8 training photos gained 40.0 points .* held-out ones \+5.0"),
        ((0.2, 0.2), (0.25, 0.2), r"named no better than before \(20.0 and 20.0 % mIoU\)"),
    ],
)
def test_warnings(before, after, message):
    with pytest.warns(OverfittingWarning, match=message):
        _warn(Report(Measured(*before), Measured(*after), 1.0, (8, 2), 10))


def test_no_warning_where_all_is_well(recwarn):
    _warn(Report(Measured(0.2, 0.2), Measured(0.35, 0.3), 1.0, (8, 2), 10))
    assert not recwarn.list

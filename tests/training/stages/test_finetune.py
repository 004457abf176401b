"""Fine-tuning: the adaptor is folded exactly, held-out photos are separate, and scores are reported."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import deop
from deop.encoders.clip import CLIPVision
from deop.errors import DataError, SettingError
from deop.evaluation.evaluate import evaluate
from deop.evaluation.protocol import Protocol
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.settings import Settings
from deop.training.recipe import plain, read_recipe
from deop.training.stages.adaptor import LowRank, add_adaptor, fold_adaptor
from deop.training.stages.common import Data
from deop.training.stages.finetune import (
    BankScore,
    BankWarning,
    FinetuneRecipe,
    Measured,
    OverfittingWarning,
    Report,
    _warn,
    divide,
    read_report,
    score_bank,
    train,
)
from tests.cli.conftest import write_photo
from tests.training.stages.test_stages import NETWORK


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
def test_the_adaptor_by_hand(dim):
    torch.manual_seed(0)
    weight, adaptor = torch.randn(6, 6), LowRank(6, 2, dim)
    assert torch.equal(adaptor(weight), weight)  # starts as the identity
    torch.nn.init.normal_(adaptor.grow)
    matrix = torch.eye(6) + adaptor.grow @ adaptor.shrink
    torch.testing.assert_close(adaptor(weight), matrix @ weight if dim == 0 else weight @ matrix.T)


@pytest.mark.parametrize("kind", ["clip", "nano"])
def test_folding_keeps_the_features(tiny_clip, kind):
    """After folding, the encoder has the same output as with the adaptor, and its original keys."""
    encoder = (
        CLIPVision.from_folder(tiny_clip) if kind == "clip" else deop.load("nano", engine="torch", device="cpu").encoder
    )
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


def counts(photos):
    return tuple(len(part.pairs) for part in (photos.training, photos.choice, photos.report))


def test_held_out_photos_are_not_trained_on(folder):
    data = Data(str(folder)).open()
    photos = divide(data, recipe_of(folder))
    assert counts(photos) == (4, 1, 1)
    assert set(photos.training.pairs) | set(photos.report.pairs) == set(data.pairs)
    fewer = divide(data, recipe_of(folder, "photos=3"))
    assert counts(fewer) == (2, 1, 1)
    assert divide(data, recipe_of(folder, "photos=3")) == fewer
    assert any(divide(data, recipe_of(folder, f"loop.seed={seed}")).report != photos.report for seed in range(1, 6))
    assert counts(divide(data, recipe_of(folder, "photos=2", "held_out=0.9"))) == (1, 1, 1)


@pytest.mark.parametrize(("share", "expected"), [(0.4, (3, 1, 1)), (0.6, (2, 2, 1)), (0.8, (1, 2, 2))])
def test_reported_photos_take_no_part_in_the_choice(folder, share, expected):
    photos = divide(Data(str(folder)).open(), recipe_of(folder, f"held_out={share}"))
    assert counts(photos) == expected
    parts = [set(part.pairs) for part in (photos.training, photos.choice, photos.report)]
    assert len(set.union(*parts)) == sum(expected)
    assert photos.independent


def test_one_held_out_photo_is_reported_as_not_independent(folder):
    data = Data(str(folder)).open()
    photos = divide(data, recipe_of(folder))
    assert photos.choice == photos.report
    assert not photos.independent
    last_weights = divide(data, recipe_of(folder, "loop.best=", "loop.patience=0", "held_out=0.4"))
    assert counts(last_weights) == (3, 2, 2)  # nothing is chosen, so all held-out photos are reported
    assert last_weights.independent


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("photos=6", DataError, "has 5 photos, fewer than photos=6"),
        ("photos=1", SettingError, "photos is 1: expected 2 or more"),
        ("held_out=1.0", SettingError, r"held_out is 1\.0"),
        ("learn=[adaptor]", SettingError, "would stay untrained: set anchors=null"),
        ("rank=0", SettingError, "rank is 0: expected a number above 0"),
    ],
)
def test_impossible_divisions_are_refused(folder, override, error, message):
    with pytest.raises(error, match=message):
        divide(Data(str(folder)).open(), recipe_of(folder, override))


def test_one_photo_is_too_few(folder):
    with pytest.raises(DataError, match="has only 1 photo"):
        divide(Data(str(folder), limit=1).open(), recipe_of(folder))


@pytest.mark.slow
def test_the_reported_photos_are_those_of_the_report(base, folder, tmp_path, monkeypatch):
    """Validations during training see the choice photos only, scores before and after are of the reported ones."""
    recipe = recipe_of(folder, "anchors.hidden=16", f"model={base}", "held_out=0.4")
    photos = divide(recipe.data.open(), recipe)
    evaluated = {"during": [], "report": []}

    def recording(place):
        def run(model, data, *arguments, **options):
            evaluated[place].append(data.pairs)
            return evaluate(model, data, *arguments, **options)

        return run

    monkeypatch.setattr("deop.evaluation.evaluate.evaluate", recording("during"))
    monkeypatch.setattr("deop.training.stages.finetune.evaluate", recording("report"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OverfittingWarning)
        run = train(recipe, tmp_path, device="cpu")
    assert set(evaluated["during"]) == {photos.choice.pairs}
    assert set(evaluated["report"]) == {photos.training.pairs, photos.report.pairs}
    report = read_report(run.folder)
    assert report.independent
    assert report.held_out_label == "held-out photos (1)"


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["anchors.hidden=16"], ["learn=[adaptor]", "anchors=null"]])
def test_a_few_photos(base, folder, tmp_path, overrides):
    recipe = recipe_of(folder, *overrides, f"model={base}", f"others.folder={folder}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OverfittingWarning)
        run = train(recipe, tmp_path, device="cpu")
    report = read_report(run.folder)
    assert (report.training_photos, report.choice_photos, report.reported_photos) == (4, 1, 1)
    assert not report.independent
    assert report.before.others is not None
    assert 0 <= report.unchanged <= 1
    assert report.seconds > 0
    model = deop.load(run.model)
    assert (model.anchors is not None) == (recipe.anchors is not None)
    assert model.settings.calibration.trained_names == ("cat", "lamp post")
    assert "(stage 'finetune')" in model.card.training_data
    before = deop.load(base).encoder.state_dict()
    assert {key for key, value in model.encoder.state_dict().items() if not torch.equal(value, before[key])} <= {
        "projection"
    }


def test_a_bank_of_the_training_photos_is_scored(base, folder):
    """Its score is that of the untuned model with what ``deop.learn`` makes of the same photos."""
    recipe = recipe_of(folder, f"model={base}")
    photos = divide(recipe.data.open(), recipe)
    model = deop.load(base)
    score = score_bank(model, photos)
    arrays = [np.asarray(Image.open(pair.photo).convert("RGB")) for pair in photos.training.pairs]
    labels = [photos.training.labels(pair) for pair in photos.training.pairs]
    masks = [np.stack([one == 0, one == 1]) for one in labels]
    bank = deop.learn(model, arrays, masks, [["cat", "lamp post"]] * len(arrays))
    assert score.regions == len(bank)
    expected = evaluate(model, photos.report, Protocol(bank=bank))["miou"]
    assert score.held_out == pytest.approx(expected)
    assert score.seconds > 0
    assert not recipe_of(folder, "bank=false").bank
    clash = replace(photos, training=replace(photos.training, classes=two_names_of_one_word(photos.training)))
    with pytest.warns(BankWarning, match="share a word"):
        assert score_bank(model, clash) is None


def two_names_of_one_word(data):
    return tuple(replace(entry, name=name) for entry, name in zip(data.classes, ("cat", "cat|lamp"), strict=True))


def report_of(before, after, independent=True):
    return Report(Measured(*before), Measured(*after), 1.0, 8, 1, 2, independent, 10)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((0.2, 0.2), (0.6, 0.25), r"over-fitting: the 8 training photos gained 40.0 points .* held-out photos \+5.0"),
        ((0.2, 0.2), (0.25, 0.2), r"not segmented better than before \(20.0 and 20.0 % mIoU\)"),
    ],
)
def test_warnings(before, after, message):
    with pytest.warns(OverfittingWarning, match=message):
        _warn(report_of(before, after))


def test_no_warning_after_a_good_run(recwarn):
    _warn(report_of((0.2, 0.2), (0.35, 0.3)))
    assert not recwarn.list


def test_the_label_says_if_the_weights_were_chosen_on_the_reported_photos():
    assert report_of((0, 0), (0, 0), independent=False).held_out_label == (
        "held-out photos (2; the weights were chosen on these photos)"
    )


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "no JSON", '{"before": 3, "after": 4}', '{"before": {}, "after": {}}']
)
def test_a_damaged_report_is_reported(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"cannot read the report .*report\.json"):
        read_report(tmp_path)


def test_a_written_report_is_read_back(tmp_path):
    report = report_of((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for one in (report, replace(report, seconds=9.5, bank=BankScore(0.4, 2.5, 30))):
        (tmp_path / "report.json").write_text(json.dumps(plain(one)))
        assert read_report(tmp_path) == one
    older = {key: value for key, value in plain(report).items() if key not in ("seconds", "bank")}
    (tmp_path / "report.json").write_text(json.dumps(older))
    assert read_report(tmp_path) == report

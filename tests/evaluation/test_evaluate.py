"""Evaluation compared with an independent count from the saved label maps."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from deop.cli.app import app
from deop.data.folder import open_folder
from deop.data.labelled import LabelClass
from deop.data.pack import pack
from deop.data.source import open_data
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.errors import DataError, SettingError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import Protocol, evaluate
from deop.evaluation.metrics import iou
from deop.evaluation.protocol import LabelSpace
from deop.images.preprocessing import CLIP, Resize
from deop.model import DeOP
from deop.proposals.types import Proposals
from deop.settings import Settings
from deop.text.calibration import Calibration

NAMES = ("cat", "dog|puppy", "wall", "sofa")


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for index in range(3):
        size = (40 + 8 * index, 64)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{index}.png")
        ids = np.repeat(np.repeat(rng.integers(0, 4, (size[0] // 8, 8)), 8, 0), 8, 1).astype(np.uint8)
        Image.fromarray(ids).save(tmp_path / "masks" / f"{index}.png")
    entries = [{"id": index + 1, "name": name, "isthing": True} for index, name in enumerate(NAMES)]
    (tmp_path / "classes.json").write_text(json.dumps(entries))
    return tmp_path


@pytest.fixture
def model(tiny_clip):
    settings = Settings(resize=Resize(64), templates="none")
    return DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=settings).eval()


@pytest.mark.parametrize("form", ["one.parquet", "many-{}.parquet", "one.tar", "many-{}.tar"])
@pytest.mark.parametrize("protocol", [Protocol(), Protocol("oracle", "present"), Protocol(unseen=("wall",), limit=2)])
def test_packed_photos_have_the_scores_of_the_folder(model, dataset, tmp_path, form, protocol):
    """Every number, also those of the bootstrap, which depend on the order of the photos."""
    model.set_proposer(Halves())
    data = open_folder(dataset)
    (tmp_path / "packed").mkdir()
    pack(data, tmp_path / "packed" / form, shard_mb=0.01)
    seen = []
    results = [
        evaluate(model, one, protocol, watch=lambda photo: seen.append(photo.pair.key), bootstrap=Bootstrap(50))
        for one in (data, open_data(tmp_path / "packed" / form.replace("{}", "*")))
    ]
    for result in results:
        del result["seconds_per_image"], result["data"]
    assert results[0] == results[1]
    assert seen == ["0", "1", "2"][: protocol.limit] * 2


@pytest.mark.parametrize("names", ["all", "present"])
def test_against_counts_of_the_predictions(model, dataset, names):
    data = open_folder(dataset)
    result = evaluate(model, data, Protocol("oracle", names, unseen=("wall",)))
    inter, union, hits, pixels, regions = np.zeros(4), np.zeros(4), 0, 0, []
    for pair in data.pairs:
        ids = np.asarray(Image.open(pair.mask)).astype(int)
        present = sorted(set(ids.ravel()) - {0})
        requested = range(1, 5) if names == "all" else present
        segmentation = model.segment(pair.photo, [NAMES[index - 1] for index in requested], masks=ids)
        predicted = np.array([*requested, 0])[segmentation.label_map]
        for label in range(1, 5):
            inter[label - 1] += ((predicted == label) & (ids == label)).sum()
            union[label - 1] += ((predicted == label) | (ids == label))[ids > 0].sum()
        hits, pixels = hits + (predicted == ids)[ids > 0].sum(), pixels + (ids > 0).sum()
        regions += [(predicted[ids == label] == label).all() for label in present]
    expected = [inter[k] / union[k] if k < 3 else None for k in range(4)]  # no photo has a sofa
    assert list(result["per_class"]) == ["cat", "dog", "wall", "sofa"]
    assert list(result["per_class"].values()) == pytest.approx(expected)
    assert result["miou"] == pytest.approx(np.mean(expected[:3]))
    assert result["pixel_accuracy"] == pytest.approx(hits / pixels)
    assert result["region_accuracy"] == pytest.approx(np.mean(regions))
    assert result["unseen_miou"] == pytest.approx(expected[2])
    assert result["seen_miou"] == pytest.approx(np.mean(expected[:2]))
    assert result["images"] == 3


def recount(data, folder, background=False):
    """IoU of each id, its means and the pixel accuracy, from PNG files alone and without code from deop."""
    ids = [entry.id for entry in data.classes] + [0] * background
    pixels = np.zeros((3, len(ids)), np.int64)  # correct, true, predicted
    for pair in data.pairs:
        saved = folder / f"{pair.photo.stem}.png"
        if not saved.exists():
            continue
        truth, predicted = (np.asarray(Image.open(path)).astype(int) for path in (pair.mask, saved))
        counted = np.isin(truth, ids)
        for index, label in enumerate(ids):
            true, named = (truth == label) & counted, (predicted == label) & counted
            pixels[:, index] += (true & named).sum(), true.sum(), named.sum()
    hits, truth, named = pixels.tolist()
    iou = [h / (t + n - h) if t else None for h, t, n in zip(hits, truth, named, strict=True)]
    defined = [value for value in iou if value is not None]
    either = sum(t > 0 or n > 0 for t, n in zip(truth, named, strict=True))
    return iou, math.fsum(defined) / len(defined), math.fsum(defined) / either, sum(hits) / sum(truth)


def assert_recounts(result, data, folder, background=False):
    iou, mean, original, accuracy = recount(data, folder, background)
    assert list(result["per_class"].values()) == iou  # exactly
    assert result["miou"] == pytest.approx(mean, rel=1e-14)  # the order of the sum may differ
    assert result["miou_absent_as_zero"] == pytest.approx(original, rel=1e-14)
    assert result["pixel_accuracy"] == accuracy


def test_saved_maps_have_the_same_scores(model, dataset, tmp_path):
    data = open_folder(dataset)

    def save(photo):
        photo.space.save(photo.label_map, tmp_path / "maps" / f"{photo.pair.photo.stem}.png")

    result = evaluate(model, data, Protocol("oracle"), watch=save)
    assert_recounts(result, data, tmp_path / "maps")
    wide = replace(data, classes=(*data.classes, LabelClass(300, "sea")))
    LabelSpace.of(wide, model, Protocol()).save(np.array([[0, 4, -1]]), tmp_path / "wide.png")
    assert np.asarray(Image.open(tmp_path / "wide.png")).tolist() == [[1, 300, 65535]]


@pytest.mark.parametrize("name", ["coco-mini", "camvid-mini"])
def test_nano_on_real_photos_matches_its_saved_maps(name, data_folder, tmp_path):
    real_photos(data_folder / name, tmp_path, ["--limit", "2"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-mini", "camvid-mini"])
def test_nano_on_all_real_photos_matches_its_saved_maps(name, data_folder, tmp_path):
    real_photos(data_folder / name, tmp_path, [])


def real_photos(folder, tmp_path, more):
    from typer.testing import CliRunner

    arguments = ["evaluate", str(folder), "--json", str(tmp_path / "found.json"), "--save-maps", str(tmp_path / "maps")]
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    result, data = json.loads((tmp_path / "found.json").read_text()), open_folder(folder, "val")
    assert len(list((tmp_path / "maps").iterdir())) == result["images"]
    assert_recounts(result, data, tmp_path / "maps")
    low, high = result["intervals"]["miou"]
    assert 0 <= low < high <= 1
    assert result["proposal_quality"]["truth"] == ("panoptic" if name_has_panoptic(data) else "components")
    assert (result["panoptic_quality"] is not None) == name_has_panoptic(data)


def name_has_panoptic(data):
    return (data.root / "panoptic.json").exists()


def test_generalized_asks_for_all_names_at_once(model, dataset):
    data = open_folder(dataset)
    protocol = Protocol("oracle", unseen=("wall",))
    assert protocol.kind == "generalized"
    assert Protocol("oracle", "present", unseen=("wall",)).kind == "plain"
    result = evaluate(model, data, protocol, bootstrap=Bootstrap(50))
    assert result["protocol"] == "generalized"
    assert result["hiou"] == pytest.approx(
        2 * result["seen_miou"] * result["unseen_miou"] / (result["seen_miou"] + result["unseen_miou"] or 1)
    )
    assert {"miou", "hiou", "seen_miou", "region_accuracy"} <= set(result["intervals"])


def test_unseen_names_from_the_data_set_and_with_synonyms(model, dataset):
    data = open_folder(dataset)
    marked = replace(data, classes=tuple(replace(entry, seen=entry.name != "dog|puppy") for entry in data.classes))
    by_class_list = evaluate(model, marked, Protocol("oracle", kind="generalized"))
    assert by_class_list["unseen"] == ["dog"]
    assert by_class_list["unseen_miou"] == by_class_list["per_class"]["dog"]
    for name in ("dog", "dog|puppy"):
        assert evaluate(model, data, Protocol("oracle", unseen=(name,)))["hiou"] == by_class_list["hiou"]
    assert evaluate(model, marked, Protocol("oracle"))["hiou"] == by_class_list["hiou"]
    assert evaluate(model, marked, Protocol("oracle", unseen=("wall",)))["unseen"] == ["wall"]
    assert evaluate(model, marked, Protocol("oracle", kind="cross-dataset"))["hiou"] is None


def test_cross_dataset_separates_trained_and_new_names(model, dataset):
    data = open_folder(dataset)
    result = evaluate(model, data, Protocol("oracle", kind="cross-dataset"))
    assert "new_names_miou" not in result  # this model has no list of trained names
    model.settings = replace(model.settings, calibration=Calibration(trained_names=("Puppy", "wall", "horse")))
    result = evaluate(model, data, Protocol("oracle", kind="cross-dataset"))
    score = result["per_class"]
    assert result["trained_names_miou"] == pytest.approx((score["dog"] + score["wall"]) / 2)
    assert result["new_names_miou"] == pytest.approx(score["cat"])  # no photo has a sofa
    assert result["miou"] == pytest.approx((score["dog"] + score["wall"] + score["cat"]) / 3)


@pytest.mark.parametrize("listed", [False, True])
def test_background_is_an_additional_class(model, dataset, tmp_path, listed):
    model.set_proposer(Halves())
    if listed:  # listed first, and still 0 in the masks
        entries = json.loads((dataset / "classes.json").read_text())
        (dataset / "classes.json").write_text(json.dumps([{"id": 0, "name": "background"}, *entries]))
    data = open_folder(dataset)

    def save(photo):
        photo.space.save(photo.label_map, tmp_path / "maps" / f"{photo.pair.photo.stem}.png")

    result = evaluate(model, data, Protocol(kind="with-background", threshold=0.26), watch=save)
    assert list(result["per_class"]) == ["cat", "dog", "wall", "sofa", "background"]
    named = replace(data, classes=tuple(entry for entry in data.classes if entry.id))
    assert_recounts(result, named, tmp_path / "maps", background=True)
    assert 0 < result["per_class"]["background"] < 1
    plain = evaluate(model, named, Protocol(threshold=0.26))
    assert "background" not in plain["per_class"]
    assert plain["per_class"]["cat"] >= result["per_class"]["cat"]  # where background pixels are ignored


class Halves:
    """Two masks: the left half, and the left part of the right half."""

    normalization = CLIP

    def __call__(self, pixels):
        logits = torch.full((len(pixels), 2, 16, 16), -9.0)
        logits[:, 0, :, :8], logits[:, 1, :, 8:12] = 3.0, 1.0
        return [Proposals(part) for part in logits]


def test_watch_gets_each_photo_and_its_scores(model, dataset):
    model.set_proposer(Halves())
    photos = []
    result = evaluate(model, open_folder(dataset), watch=photos.append)
    assert [photo.pair.photo.stem for photo in photos] == ["0", "1", "2"]
    counts = sum(photo.confusion.counts for photo in photos)
    np.testing.assert_array_equal(iou(counts)[:3], list(result["per_class"].values())[:3])
    for photo in photos:
        assert len(photo.scores) == len(photo.correct) <= 2
        hits, _, named = photo.confusion.counts
        labels = sorted(set(photo.label_map.ravel()) - {-1}, key=lambda label: -(photo.label_map == label).sum())
        assert list(photo.correct) == [bool(hits[label] / named[label] > 0.5) for label in labels if named[label]]
    assert result["per_class_images"] == {"cat": 3, "dog": 3, "wall": 3, "sofa": 0}
    quality = result["proposal_quality"]
    assert quality["truth"] == "components"
    assert quality["proposals_per_image"] == 2


def test_command_line(tiny_clip, dataset, tmp_path):
    from typer.testing import CliRunner

    out = tmp_path / "out" / "scores.json"
    arguments = ["evaluate", str(dataset), "--model", str(tiny_clip), "--proposals", "oracle", "--limit", "2",
                 "--device", "cpu", "--severance", "gate"]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "mIoU" in done.output
    result = json.loads(out.read_text())
    assert result["images"] == 2
    assert result["severance"] == "gate"
    assert json.loads(CliRunner().invoke(app, [*arguments, "--json", "-"]).stdout)["miou"] == result["miou"]


def test_unusable_options_are_reported(model, dataset):
    data = open_folder(dataset)
    with pytest.raises(SettingError, match="does not have these unseen names: tiger"):
        evaluate(model, data, Protocol("oracle", unseen=("tiger",)))
    for wrong, message in [
        ({"proposals": "orakle"}, "unknown proposals 'orakle'"),
        ({"kind": "open"}, "unknown protocol 'open': choose one of plain, generalized"),
        ({"kind": "cross-dataset", "unseen": ("cat",)}, "the protocol cross-dataset does not use unseen names"),
        ({"kind": "cross-dataset", "names": "present"}, "asks for all names"),
        ({"kind": "with-background", "proposals": "oracle"}, "where the background is"),
        ({"threshold": 1.5}, "threshold is 1.5: expected a number in"),
        ({"limit": 0}, "limit is 0: expected 1 or more photos"),
        ({"unseen": "wall"}, "unseen is 'wall': give a list of names"),
        ({"unseen": {"wall"}}, "unseen is .*: give a list of names"),
        ({"background": "sky"}, "background is 'sky': give a list of names"),
        ({"background": {"sky", "wall"}}, "background is .*: give a list of names"),
    ]:
        with pytest.raises(SettingError, match=message):
            Protocol(**wrong)
    with pytest.raises(SettingError, match="needs the names that training did not see"):
        evaluate(model, data, Protocol("oracle", kind="generalized"))
    with pytest.raises(SettingError, match="this model names every pixel"):
        evaluate(model, data, Protocol(kind="with-background"))
    zero = replace(data, classes=(LabelClass(0, "sky"), *data.classes[1:]))
    with pytest.raises(SettingError, match="id 0 is 'sky'"):
        evaluate(model, zero, Protocol(kind="with-background", threshold=0.5))
    with pytest.raises(SettingError, match="no proposer"):
        evaluate(model, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severance": "gat"}, "'gat'"),
        ({"anchors": "centre"}, "unknown anchors 'centre'"),
        ({"anchors": "decoder"}, "no anchor decoder"),
        ({"classifier": "two-stream", "severance": "gate"}, "omit severance"),
        ({"classifier": "two-stream", "anchors": "pool"}, "omit anchors"),
    ],
)
def test_options_are_checked_before_a_photo_is_read(model, dataset, monkeypatch, options, message):
    monkeypatch.setattr(LabelSpace, "truth", lambda *arguments: pytest.fail("a photo was read"))
    with pytest.raises(SettingError, match=message):
        evaluate(model, open_folder(dataset), Protocol("oracle", **options))


def test_two_streams_report_no_severance(model, dataset):
    """Crops are encoded without severance, whatever the model's own setting is."""
    scores = evaluate(model, open_folder(dataset), Protocol("oracle", classifier="two-stream", limit=1))
    assert (scores["classifier"], scores["severance"]) == ("two-stream", None)


def test_a_data_set_without_a_counted_pixel_is_an_error(model, dataset):
    data = open_folder(dataset)
    classes = tuple(replace(entry, id=entry.id + 100) for entry in data.classes)
    with pytest.raises(DataError, match="none of the 3 photos has a pixel of a class"):
        evaluate(model, replace(data, classes=classes), Protocol("oracle"))


def test_photos_in_folders_below_images(model, dataset):
    expected = evaluate(model, open_folder(dataset), Protocol("oracle"), bootstrap=Bootstrap(2))
    for name in ("images", "masks"):
        (dataset / name / "city").mkdir()
        (dataset / name / "1.png").rename(dataset / name / "city" / "1.png")
    data = open_folder(dataset)
    assert [pair.key for pair in data.pairs] == ["0", "2", "city/1"]
    moved = evaluate(model, data, Protocol("oracle"), bootstrap=Bootstrap(2))
    assert moved["per_class"] == expected["per_class"]


@pytest.mark.parametrize("name", ["background", "other"])
def test_a_class_of_everything_else_gets_the_pixels_that_no_name_gets(model, dataset, name):
    """As in ``deop segment``; in the protocol with-background it is the class of pixels without a name."""
    classes = json.loads((dataset / "classes.json").read_text(encoding="utf-8"))
    (dataset / "classes.json").write_text(json.dumps([{"id": 0, "name": name}, *classes]))
    data, maps = open_folder(dataset), []
    result = evaluate(model, data, Protocol("oracle"), watch=lambda photo: maps.append(photo.label_map))
    assert result["everything_else"] == name
    for pair, actual in zip(data.pairs, maps, strict=True):
        masks = np.asarray(Image.open(pair.mask)).astype(int) + 1
        assert (actual == model.segment(pair.photo, [name, *NAMES], masks=masks).label_map).all()
        assert (actual >= 0).all()
    space = LabelSpace.of(data, model, Protocol(kind="with-background", threshold=0.5))
    assert (space.names, space.vocabulary.everything_else) == (("cat", "dog", "wall", "sofa", "background"), None)

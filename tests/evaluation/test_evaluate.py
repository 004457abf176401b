"""Evaluation against an independent count from the saved label maps."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.cli.app import app
from deop.data.folder import open_folder
from deop.encoders.clip import CLIPVision
from deop.encoders.text import CLIPText
from deop.errors import SettingError
from deop.evaluation.evaluate import Protocol, evaluate
from deop.images import Resize
from deop.model import DeOP
from deop.settings import Settings

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


@pytest.mark.parametrize("names", ["all", "present"])
def test_against_counts_of_the_answers(model, dataset, names):
    data = open_folder(dataset)
    found = evaluate(model, data, Protocol("oracle", names, unseen=("wall",)))
    inter, union, hits, pixels, regions = np.zeros(4), np.zeros(4), 0, 0, []
    for pair in data.pairs:
        ids = np.asarray(Image.open(pair.mask)).astype(int)
        there = sorted(set(ids.ravel()) - {0})
        asked = range(1, 5) if names == "all" else there
        answer = model.segment(pair.photo, [NAMES[index - 1] for index in asked], masks=ids)
        given = np.array([*asked, 0])[answer.label_map]
        for label in range(1, 5):
            inter[label - 1] += ((given == label) & (ids == label)).sum()
            union[label - 1] += ((given == label) | (ids == label))[ids > 0].sum()
        hits, pixels = hits + (given == ids)[ids > 0].sum(), pixels + (ids > 0).sum()
        regions += [(given[ids == label] == label).all() for label in there]
    expected = [inter[k] / union[k] if k < 3 else None for k in range(4)]  # no photo has a sofa
    assert list(found["per_class"]) == ["cat", "dog", "wall", "sofa"]
    assert list(found["per_class"].values()) == pytest.approx(expected)
    assert found["miou"] == pytest.approx(np.mean(expected[:3]))
    assert found["pixel_accuracy"] == pytest.approx(hits / pixels)
    assert found["region_accuracy"] == pytest.approx(np.mean(regions))
    assert found["unseen_miou"] == pytest.approx(expected[2])
    assert found["seen_miou"] == pytest.approx(np.mean(expected[:2]))
    assert found["images"] == 3


def test_command_line(tiny_clip, dataset, tmp_path, capsys):
    from typer.testing import CliRunner

    out = tmp_path / "out" / "scores.json"
    arguments = ["evaluate", str(dataset), "--model", str(tiny_clip), "--proposals", "oracle", "--limit", "2",
                 "--device", "cpu", "--severance", "gate"]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "mIoU" in done.output
    found = json.loads(out.read_text())
    assert found["images"] == 2
    assert found["severance"] == "gate"
    assert json.loads(CliRunner().invoke(app, [*arguments, "--json", "-"]).stdout)["miou"] == found["miou"]


def test_clear_errors(model, dataset):
    data = open_folder(dataset)
    with pytest.raises(SettingError, match="unseen names that the data set does not have: tiger"):
        evaluate(model, data, Protocol("oracle", unseen=("tiger",)))
    with pytest.raises(SettingError, match="unknown proposals 'orakle'"):
        Protocol("orakle")
    with pytest.raises(SettingError, match="no proposer"):
        evaluate(model, data)

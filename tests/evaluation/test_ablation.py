"""The ablation benchmark: its rows are plain evaluations, and its differences are paired."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deop.data.folder import open_folder
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import Protocol, evaluate
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.zoo import load

FILE = Path(__file__).parents[2] / "benchmarks" / "ablation.py"


@pytest.fixture(scope="module")
def ablation():
    spec = importlib.util.spec_from_file_location("ablation", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ablation"]


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"data/images/{index}.png")
        ids = np.kron(rng.integers(1, 4, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
        Image.fromarray(ids).save(tmp_path / f"data/masks/{index}.png")
    entries = [{"id": index + 1, "name": name} for index, name in enumerate(["cat", "dog", "wall"])]
    (tmp_path / "data/classes.json").write_text(json.dumps(entries))
    (tmp_path / "unseen.txt").write_text("dog\n\n")
    return tmp_path / "data"


def run(ablation, *arguments):
    import typer

    app = typer.Typer()
    app.command()(ablation.main)
    done = CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_rows_are_plain_evaluations(ablation, dataset, tiny_clip, tmp_path):
    out = run(ablation, dataset, "--model", tiny_clip, "--proposals", "oracle", "--severance", "none,gate,affinity",
              "--unseen", tmp_path / "unseen.txt", "--json", tmp_path / "rows.json", "--resamples", 100)  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["severance"], row["classifier"], row["anchors"]) for row in rows] == [
        ("none", "one-pass", "pool"), ("gate", "one-pass", "pool"), ("affinity", "one-pass", "pool"),
        (None, "two-stream", None),
    ]  # fmt: skip
    model = load(tiny_clip, proposer="given", device="cpu")
    for row in (rows[1], rows[3]):
        protocol = Protocol("oracle", severance=row["severance"], classifier=row["classifier"], unseen=("dog",))
        scores = evaluate(model, open_folder(dataset), protocol, bootstrap=Bootstrap(100))
        for key in ("miou", "hiou", "region_accuracy", "per_class", "intervals"):
            assert row["found"][key] == scores[key]
        gain = row["against_first"]["miou"]
        assert gain["gain"] == pytest.approx(scores["miou"] - rows[0]["found"]["miou"])
        assert gain["interval"][0] <= gain["interval"][1]
    assert rows[0]["against_first"]["miou"] == {"gain": 0, "interval": [0, 0]}
    assert "it has no learned anchors to compare" in out
    for row in rows:
        kind = row["severance"] or "-"
        line = next(line for line in out.splitlines() if line.startswith(f"{kind} ") and row["classifier"] in line)
        assert f"{100 * row['found']['miou']:.1f}" in line
    assert "hIoU" in out


def test_differences_are_paired(ablation):
    bootstrap = Bootstrap(200)
    draws = np.random.default_rng(0).normal(0.5, 0.2, 200)
    first, second = (
        ablation.Row(
            {"miou": 0.5 + gain, "images": 2}, {"miou": draws + gain}, ablation.Setting("none", "one-pass", "pool")
        )
        for gain in (0, 0.01)
    )
    gain = second.minus(first, bootstrap)["miou"]
    assert gain["interval"] == pytest.approx([0.01, 0.01])  # not 0, although the interval of each score is 0.8 wide
    assert "*" in ablation._gain(gain)
    assert "*" not in ablation._gain({"gain": 0.1, "interval": [-0.01, 0.2]})


def test_learned_anchors_are_compared_if_the_model_has_some(ablation, tiny_clip):
    model = load(tiny_clip, proposer="given", device="cpu")
    assert ablation.anchors_of(model, "model")[0] == ["pool"]
    model.anchors = AnchorDecoder(AnchorConfig(width=32, heads=4, query="slot"))
    assert ablation.anchors_of(model, "model") == (["pool", "decoder"], "")
    assert "tied to its own masks" in ablation.anchors_of(model, "oracle")[1]
    model.anchors = AnchorDecoder(AnchorConfig(width=32, heads=4, query="mask"))
    both = ablation.settings_of(["none", "self"], ablation.anchors_of(model, "oracle")[0])
    assert [setting.anchors for setting in both] == ["pool", "pool", "decoder", "decoder", None]
    assert both[0] == ablation.Setting("none", "one-pass", "pool")

"""benchmarks/zoo.py: its rows are plain evaluations, its differences are paired, and failures do not end a run."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.data.folder import open_folder
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import Protocol, evaluate
from deop.severance import Severance
from deop.zoo import load
from tests.proposals.tiny_networks import mask2former

FILE = Path(__file__).parents[2] / "benchmarks" / "zoo.py"
NAMES = ["self", "region, uniform", "region, k"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("zoo_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo_benchmark"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["zoo_benchmark"]


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"data/images/{index}.png")
        ids = np.kron(rng.integers(1, 4, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
        Image.fromarray(ids).save(tmp_path / f"data/masks/{index}.png")
    entries = [{"id": index + 1, "name": name} for index, name in enumerate(["cat", "dog", "wall"])]
    (tmp_path / "data/classes.json").write_text(json.dumps(entries))
    return tmp_path / "data"


def run(script, *arguments, status=0):
    assert script.main([str(word) for word in arguments]) == status


def rows_of(text):
    """The cells of each row of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_random_tower_at_two_sizes_with_own_and_true_masks(script, dataset, tiny_clip, tmp_path):
    mask2former().save_pretrained(tmp_path / "proposer")
    run(script, dataset, "--models", tiny_clip, "--proposer", tmp_path / "proposer", "--sizes", 48, 64,
        "--resamples", 50, "--device", "cpu", "--output", tmp_path / "table.md",
        "--json", tmp_path / "rows.json")  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    expected = [
        (masks, size, kind, residual)
        for masks in ("own", "true") for size in (48, 64) for residual in ("0.2", "0") for kind in NAMES
    ]  # fmt: skip
    assert [(row["masks"], row["size"], row["kind"], row["residual"]) for row in rows] == expected
    text = (tmp_path / "table.md").read_text()
    cells = rows_of(text)
    assert [(row[1], int(row[2]), row[3], row[4]) for row in cells] == expected
    assert all(row[6] == f"{100 * values['found']['miou']:.1f}" for row, values in zip(cells, rows, strict=True))
    assert len({len(row) for row in cells}) == 1
    best = re.findall(r"^- `(.+?)`, (\w+) masks: ([\d.]+) with (\d+) pixels", text, re.MULTILINE)
    for masks in ("own", "true"):
        highest = max((row for row in rows if row["masks"] == masks), key=lambda row: row["found"]["miou"])
        assert (str(tiny_clip), masks, f"{100 * highest['found']['miou']:.1f}", str(highest["size"])) in best


def test_rows_are_plain_evaluations(script, dataset, tiny_clip, tmp_path):
    run(script, dataset, "--models", tiny_clip, "--masks", "true", "--sizes", 64, "--resamples", 50,
        "--device", "cpu", "--limit", 2, "--json", tmp_path / "rows.json")  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    model = load(tiny_clip, device="cpu")
    model.settings = replace(model.settings, resize=replace(model.settings.resize, short_side=64))
    severed = Severance("region", similarity="k", residual=0.0, mlp=False)
    scores = evaluate(
        model, open_folder(dataset), Protocol("oracle", severance=severed, limit=2), bootstrap=Bootstrap(50)
    )
    (row,) = [row for row in rows if row["kind"] == "region, k" and row["residual"] == "0"]
    assert {key: row["found"][key] for key in ("miou", "region_accuracy", "intervals")} == {
        key: scores[key] for key in ("miou", "region_accuracy", "intervals")
    }
    assert row["to_the_first"]["miou"]["gain"] == pytest.approx(scores["miou"] - rows[0]["found"]["miou"])
    low, high = row["to_the_first"]["miou"]["interval"]
    assert low <= high
    assert rows[0]["to_the_first"]["miou"] == {"gain": 0, "interval": [0, 0]}


def test_the_model_in_the_package(script, dataset, capsys):
    run(script, dataset, "--models", "nano", "--sizes", 64, "--resamples", 20, "--device", "cpu", "--limit", 1)
    cells = rows_of(capsys.readouterr().out)
    assert [row[1] for row in cells] == ["own"] * 6 + ["true"] * 6
    assert all(row[7] == "" for row in cells), "a single photo has no interval"


def test_nano_keeps_its_severed_layers(script):
    default = load("nano", engine="torch", device="cpu").settings.severance
    variants = [severance for _, _, severance in script.severances(default)]
    assert {severance.layers for severance in variants} == {default.layers}
    assert len(set(variants)) == 6


def test_a_model_that_fails_is_reported_and_the_others_are_evaluated(script, dataset, tiny_clip, capsys):
    run(script, dataset, "--models", "gone-b16", tiny_clip, "--masks", "true", "--sizes", 64, "--resamples", 20,
        "--device", "cpu", "--limit", 1, status=1)  # fmt: skip
    text = capsys.readouterr().out
    assert len(rows_of(text)) == 6
    assert "failed: `gone-b16`: there is no model named 'gone-b16'" in text


def test_only_differences_beyond_chance_exclude_a_row(script):
    bootstrap = Bootstrap(200)
    draws = np.random.default_rng(0).normal(0.5, 0.2, 200)

    def row(kind, gain, noise):
        scores = {"miou": 0.5 + gain, "images": 2}
        return script.Row(scores, {"miou": draws + gain + noise}, "m", 448, "own", kind, "0")

    noise = np.random.default_rng(1).normal(0, 0.1, 200)
    rows = [row("self", 0, 0), row("region, uniform", 0.02, noise), row("region, k", 0.03, 0)]
    (line,) = script.best_of(rows, bootstrap)
    assert "53.0 with 448 pixels, region, k, no residual, no MLP" in line
    assert line.endswith("Not distinguishable from it: 448 pixels, region, uniform, no residual, no MLP.")

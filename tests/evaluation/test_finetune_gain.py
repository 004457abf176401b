"""The fine-tuning benchmark: it uses finished runs again, but only for the same request."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from deop.errors import SettingError
from deop.training.recipe import plain, read_recipe, write_recipe
from deop.training.stages.finetune import FinetuneRecipe, Measured, Report

FILE = Path(__file__).parents[2] / "benchmarks" / "finetune_gain.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("finetune_gain", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["finetune_gain"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["finetune_gain"]


def recipe_of(*overrides):
    return read_recipe(FinetuneRecipe, None, overrides, {"data": {"folder": "photos"}, "photos": 5})


@pytest.fixture
def run(benchmark, tmp_path, monkeypatch):
    """A function that makes or reuses a run of the benchmark, with a fake training and the given scores."""

    def train(recipe, folder, resume):
        folder.mkdir(parents=True, exist_ok=True)
        write_recipe(plain(recipe), folder / "recipe.yaml")
        score = Measured(0.1, 0.2)
        report = Report(score, score, 0.75, 4, 1, 1, False, 20)
        (folder / "report.json").write_text(json.dumps(plain(report)))

    monkeypatch.setattr(benchmark, "train", train)

    def run(recipe, score, limit=None):
        return benchmark.one_run(recipe, tmp_path / "run", {"limit": limit}, lambda model: {"own": score})

    return run


def test_scores_are_reused_for_the_same_request(run):
    first = run(recipe_of(), 0.5)
    assert first == {"photos": 5, "seed": 0, "unchanged": 0.75, "overfits": False, "own": 0.5}
    assert run(recipe_of(), 0.6) == first


def test_scores_on_other_photos_are_measured_again(run):
    run(recipe_of(), 0.5)
    assert run(recipe_of(), 0.6, limit=3)["own"] == 0.6


def test_a_finished_run_with_another_recipe_is_refused(run):
    run(recipe_of(), 0.5)
    with pytest.raises(SettingError, match=r"another recipe: rate was 0.001, now 0.1. Choose another folder"):
        run(recipe_of("rate=0.1"), 0.5)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"request": 3}'])
def test_damaged_scores_are_measured_again(run, tmp_path, text):
    run(recipe_of(), 0.5)
    (tmp_path / "run" / "scores.json").write_text(text)
    assert run(recipe_of(), 0.6)["own"] == 0.6


def test_numbers_of_photos(benchmark):
    assert benchmark.numbers_in("5, 20") == [5, 20]
    with pytest.raises(SettingError, match="--photos is 'five'"):
        benchmark.numbers_in("five")

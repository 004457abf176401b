"""Recipes: YAML into data classes, and errors that name the key."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.training.recipe import build, plain, read_recipe, write_recipe
from deop.training.task import LoopSettings

pytest.importorskip("yaml")


@dataclass(frozen=True)
class Recipe:
    loop: LoopSettings
    model: str = "nano"
    names: tuple[str, ...] = ()
    side: int | None = 512
    kind: Literal["whole", "original"] = "whole"
    severance: Severance | None = None
    rate: float = field(default=1e-3)


TEXT = """
# a comment
model: nano
rate: 2e-4
names: [sky, tree-merged]
loop:
  iterations: 10
  batch: 2
  schedule: {kind: cosine, warmup: 3}
"""


def read(tmp_path, text=TEXT, *overrides, **options):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return read_recipe(Recipe, path, overrides, **options)


def test_nested_values_and_overrides(tmp_path):
    overrides = ("loop.schedule.kind=poly", "side=null", "rate=.5e1", "names=[a, b]", "severance.kind=gate")
    found = read(tmp_path, TEXT, *overrides, base={"model": "other", "loop": {"seed": 3}})
    assert found.rate == 5.0
    assert found.side is None
    assert found.names == ("a", "b")
    assert found.model == "other"
    assert (found.loop.schedule.kind, found.loop.schedule.warmup, found.loop.seed) == ("poly", 3, 3)
    assert found.severance == Severance("gate")
    assert read(tmp_path).rate == 2e-4


def test_a_recipe_comes_back_as_it_was_written(tmp_path):
    recipe = read(tmp_path)
    write_recipe(plain(recipe), tmp_path / "again.yaml")
    assert read_recipe(Recipe, tmp_path / "again.yaml") == recipe
    assert build(Recipe, plain(recipe), "memory") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.iteration=3", r"unknown setting loop.iteration: did you mean loop.iterations"),
        ("warmup=3", r"unknown setting warmup: did you mean loop.schedule.warmup\?"),
        ("qqq=1", r"unknown setting qqq: there are kind, loop, model"),
        ("loop.batch=two", r"loop.batch is 'two': expected a whole number"),
        ("loop=3", r"loop is 3: expected settings below it"),
        ("names=sky", r"names is 'sky': expected a list, each a text"),
        ("side=wide", r"side is 'wide': expected a whole number or null"),
        ("kind=half", r"kind is 'half': expected whole or original"),
        ("loop.batch=0", r"batch is 0: expected 1 or more"),
        ("loop.schedule.kind=step", r"unknown schedule 'step': choose one of poly"),
        ("model", r"'model' is no setting: write key=value"),
        ("names=[a", r"is not YAML"),
    ],
)
def test_errors_name_the_key(tmp_path, override, message):
    with pytest.raises(SettingError, match=message):
        read(tmp_path, TEXT, override)


@dataclass(frozen=True)
class Small:
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(iterations=5, batch=3, seed=7))


def test_what_is_left_out_stays_as_the_recipe_has_it():
    found = read_recipe(Small, None, ["loop.batch=4"])
    assert (found.loop.iterations, found.loop.batch, found.loop.seed) == (5, 4, 7)


def test_what_has_no_default_must_be_there(tmp_path):
    with pytest.raises(SettingError, match=r"loop.batch must be set"):
        read(tmp_path, "loop: {iterations: 3}")
    with pytest.raises(SettingError, match=r"no recipe"):
        read(tmp_path, "nothing")
    with pytest.raises(SettingError, match=r"cannot read the recipe"):
        read_recipe(Recipe, Path("nowhere.yaml"))


STAGES = ("prompt", "proposals", "deop")
RECIPES = [path for path in sorted((Path(__file__).parents[2] / "recipes").glob("*/*.yaml")) if path.stem in STAGES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_of_a_stage_is_read(path):
    """Unknown keys and values that do not fit are errors, so reading is the test."""
    from deop.training.stages import deop, prompt, proposals

    kinds = {"prompt": prompt.PromptRecipe, "proposals": proposals.ProposalRecipe, "deop": deop.DeOPRecipe}
    found = read_recipe(kinds[path.stem], path)
    assert found.loop.iterations >= 100


def test_the_recipe_of_the_paper_says_what_the_method_says():
    """METHOD sections 1, 7 and 9, a second time."""
    from deop.data.augment import STAGE_2, STAGE_3
    from deop.training.losses import AnchorWeights, ProposalWeights
    from deop.training.matching import DEOP_COSTS
    from deop.training.stages import deop, proposals

    folder = Path(__file__).parents[2] / "recipes" / "coco-stuff"
    third = read_recipe(deop.DeOPRecipe, folder / "deop.yaml")
    assert third.augmentation == replace(STAGE_3, padding="original")
    assert third.weights == AnchorWeights()
    assert third.anchors == deop.Anchors()
    assert (third.rate, third.decay, third.loop.clip, third.loop.batch) == (2e-4, 1e-4, 0.01, 16)
    second = read_recipe(proposals.ProposalRecipe, folder / "proposals.yaml")
    assert second.augmentation == replace(STAGE_2, padding="original")
    assert second.weights == ProposalWeights()
    assert second.costs == DEOP_COSTS
    assert second.network == proposals.MaskFormerConfig()
    assert second.loop.iterations == third.loop.iterations == 60_000


def test_no_is_a_text_and_true_is_a_switch(tmp_path):
    """loop.precision=no, as an error advises, and as one would write it in a file."""
    from deop.training.stages.deop import DeOPRecipe

    folder = Path(__file__).parents[2] / "recipes" / "coco-mini"
    found = read_recipe(DeOPRecipe, folder / "deop.yaml", ("loop.precision=no", "loop.deterministic=false"))
    assert found.loop.precision == "no"
    assert found.loop.deterministic is False

"""Recipes: YAML is read into data classes, and errors name the key."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.training.recipe import build, plain, read_recipe, write_recipe
from deop.training.task import LoopSettings


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
    recipe = read(tmp_path, TEXT, *overrides, base={"model": "other", "loop": {"seed": 3}})
    assert recipe.rate == 5.0
    assert recipe.side is None
    assert recipe.names == ("a", "b")
    assert recipe.model == "other"
    assert (recipe.loop.schedule.kind, recipe.loop.schedule.warmup, recipe.loop.seed) == ("poly", 3, 3)
    assert recipe.severance == Severance("gate")
    assert read(tmp_path).rate == 2e-4


def test_a_written_recipe_is_read_back(tmp_path):
    recipe = read(tmp_path)
    write_recipe(plain(recipe), tmp_path / "again.yaml")
    assert read_recipe(Recipe, tmp_path / "again.yaml") == recipe
    assert build(Recipe, plain(recipe), "memory") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.iteration=3", r"unknown setting loop.iteration: did you mean loop.iterations"),
        ("warmup=3", r"unknown setting warmup: did you mean loop.schedule.warmup\?"),
        ("qqq=1", r"unknown setting qqq: the settings here are kind, loop, model"),
        ("loop.batch=two", r"loop.batch is 'two': expected a whole number"),
        ("loop=3", r"loop is 3: expected nested settings"),
        ("names=sky", r"names is 'sky': expected a list, each a string"),
        ("side=wide", r"side is 'wide': expected a whole number or null"),
        ("kind=half", r"kind is 'half': expected whole or original"),
        ("loop.batch=0", r"batch is 0: expected 1 or more"),
        ("loop.schedule.kind=step", r"unknown schedule 'step': choose one of poly"),
        ("model", r"'model' is not a setting: write key=value"),
        ("names=[a", r"is not valid YAML"),
    ],
)
def test_errors_name_the_key(tmp_path, override, message):
    with pytest.raises(SettingError, match=message):
        read(tmp_path, TEXT, override)


@dataclass(frozen=True)
class Small:
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(iterations=5, batch=3, seed=7))


def test_omitted_nested_settings_keep_the_defaults_of_the_recipe():
    recipe = read_recipe(Small, None, ["loop.batch=4"])
    assert (recipe.loop.iterations, recipe.loop.batch, recipe.loop.seed) == (5, 4, 7)


def test_settings_without_default_are_required(tmp_path):
    with pytest.raises(SettingError, match=r"loop.batch must be set"):
        read(tmp_path, "loop: {iterations: 3}")
    with pytest.raises(SettingError, match=r"is not a recipe"):
        read(tmp_path, "nothing")
    with pytest.raises(SettingError, match=r"cannot read the recipe"):
        read_recipe(Recipe, Path("nowhere.yaml"))


STAGES = ("prompt", "proposals", "deop")
RECIPES = [path for path in sorted((Path(__file__).parents[2] / "recipes").glob("*/*.yaml")) if path.stem in STAGES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_of_a_stage_is_read(path):
    """Unknown keys and wrong types are errors, so reading the recipe is the test."""
    from deop.training.stages import deop, prompt, proposals

    kinds = {"prompt": prompt.PromptRecipe, "proposals": proposals.ProposalRecipe, "deop": deop.DeOPRecipe}
    recipe = read_recipe(kinds[path.stem], path)
    assert recipe.loop.iterations >= 100


def test_the_recipes_of_the_paper_have_the_values_of_the_method():
    """docs/method.md §1, §7 and §9."""
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


def test_no_is_a_string_and_true_is_a_boolean(tmp_path):
    """Error messages suggest loop.precision=no."""
    from deop.training.stages.deop import DeOPRecipe

    folder = Path(__file__).parents[2] / "recipes" / "coco-mini"
    recipe = read_recipe(DeOPRecipe, folder / "deop.yaml", ("loop.precision=no", "loop.deterministic=false"))
    assert recipe.loop.precision == "no"
    assert recipe.loop.deterministic is False


def test_a_recipe_in_another_encoding_is_reported(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes("seed: 1  # Größe".encode("latin-1"))
    with pytest.raises(SettingError, match=r"cannot read the recipe .*recipe\.yaml"):
        read_recipe(Recipe, tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"), [("model: a\nmodel: b", "'model' is repeated"), ("[" * 9999, "not valid")]
)
def test_yaml_that_cannot_be_used_is_reported(tmp_path, text, message):
    with pytest.raises(SettingError, match=message):
        read(tmp_path, text)

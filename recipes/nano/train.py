"""Train the small model by one of the YAML recipes in this directory.

    python -m recipes.nano.train recipes/nano/gpu.yaml --out OUT [--resume] [KEY=VALUE ...]

The trained model is OUT/model. See NOTES.md.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from deop.errors import DeopError
from deop.training.loop import fit
from deop.training.recipe import plain, read_recipe
from recipes.nano.recipe import NanoRecipe
from recipes.nano.task import NanoTask


def main(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace those of the recipe.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/nano"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint, if any.")] = False,
    device: Annotated[str | None, typer.Option(help="Device; cpu: do not use a GPU.")] = None,
    until: Annotated[
        float, typer.Option(help="Unix time at which training ends, instead of after loop.seconds; 0: not used.")
    ] = 0,
) -> None:
    """Train the small model, and write a model folder."""
    values = read_recipe(NanoRecipe, recipe, settings or ())
    cache_device = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
    torch.set_float32_matmul_precision("high")  # TF32 in the losses on a GPU; no effect on a CPU
    task = NanoTask(values, out / "crops.safetensors", cache_device)
    if until:
        seconds = max(until - time.time(), 1.0)
        values = replace(values, loop=replace(values.loop, seconds=seconds))
        task.recipe = values
    run = fit(task, values.loop, out, recipe=plain(values), resume=resume, device=device)
    print(f"trained {run.steps} steps: {run.model}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error

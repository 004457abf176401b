"""Train the small model, by one of the recipes beside this file.

    python recipes/nano/train.py recipes/nano/gpu.yaml --out OUT [--resume] [key=value ...]

``OUT/model`` is then what --model takes; ``pack.py`` makes the files that ship of it. See NOTES.md.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path[:0] = [str(Path(__file__).parent)]
from recipe import NanoRecipe  # noqa: E402
from task import NanoTask  # noqa: E402

from deop.errors import DeopError  # noqa: E402
from deop.training.loop import fit  # noqa: E402
from deop.training.recipe import plain, read_recipe  # noqa: E402


def main(
    recipe: Annotated[Path, typer.Argument(help="A YAML file.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Over the recipe.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/nano"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, if any.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu keeps off a GPU.")] = None,
    until: Annotated[float, typer.Option(help="Second of the Unix clock at which training ends; 0: as it is set.")] = 0,
) -> None:
    """Train, and leave a model folder."""
    described = read_recipe(NanoRecipe, recipe, settings or ())
    place = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
    torch.set_float32_matmul_precision("high")  # of losses on a GPU; it changes nothing on a CPU
    task = NanoTask(described, out / "crops.safetensors", place)
    if until:
        seconds = max(until - time.time(), 1.0)
        described = replace(described, loop=replace(described.loop, seconds=seconds))
        task.recipe = described
    run = fit(task, described.loop, out, recipe=plain(described), resume=resume, device=device)
    print(f"trained {run.steps} steps: {run.model}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error

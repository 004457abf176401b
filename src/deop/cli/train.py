"""``deop train``: the stages of training, each from a recipe."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deop.cli.console import Debug, say


class Stage(StrEnum):
    """What can be trained."""

    prompt = "prompt"
    proposals = "proposals"
    deop = "deop"
    finetune = "finetune"


def train(
    stage: Annotated[
        Stage,
        typer.Argument(
            help="prompt: stage 1; proposals: stage 2; deop: stage 3, the anchors; finetune: a few photos of your own.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Over the recipe: loop.seed=1 rate=1e-4.", show_default=False),
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", "-r", help="A YAML file.", show_default=False)] = None,
    data: Annotated[
        str | None, typer.Option(help="The labelled folder, instead of the recipe's.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="What it starts from, instead of the recipe's.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/ and the recipe's name.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, if any.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu keeps off a GPU; by default one that is there.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a stage on a labelled folder.

    Several GPUs: accelerate launch -m deop train ... The result is a folder that --model takes; beside it are the
    recipe with all its values, TensorBoard's log and the checkpoints.
    """
    from deop.errors import SettingError

    if recipe is None and stage is not Stage.finetune:
        raise SettingError("which recipe? Give one with --recipe FILE; recipes/ has the paper's and small ones")
    if device not in (None, "cpu"):
        raise SettingError(f"device {device!r}: training takes the GPU that is there, or cpu")
    kind, run = _stage(stage)
    from deop.training.recipe import read_recipe

    base: dict[str, Any] = {} if data is None else {"data": {"folder": data}}
    base |= {} if model is None else {"model": model}
    described = read_recipe(kind, recipe, settings or (), base)
    folder = out or Path("runs") / (recipe.stem if recipe else str(stage))
    done = run(described, folder, resume=resume, device=device)
    import os

    if os.environ.get("RANK", "0") == "0":  # of several processes the first
        if stage is Stage.finetune:
            _show_report(done)
        say(f'trained {done.steps} steps\n  deop segment PHOTO --classes "cat, sofa, wall" --model {done.model}')


def _stage(stage: Stage) -> tuple[type[Any], Any]:
    if stage is Stage.prompt:
        from deop.training.stages import prompt

        return prompt.PromptRecipe, prompt.train
    if stage is Stage.proposals:
        from deop.training.stages import proposals

        return proposals.ProposalRecipe, proposals.train
    if stage is Stage.finetune:
        from deop.training.stages import finetune

        return finetune.FinetuneRecipe, finetune.train
    from deop.training.stages import deop

    return deop.DeOPRecipe, deop.train


def _show_report(run: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from deop.training.stages.finetune import read_report

    report = read_report(run.folder)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for label in ("mIoU, per cent", "before", "after"):
        table.add_column(label, justify="left" if label.startswith("mIoU") else "right")
    rows = {
        f"held-out photos ({report.photos[1]})": (report.before.held_out, report.after.held_out),
        f"training photos ({report.photos[0]})": (report.before.training, report.after.training),
        "other names": (report.before.others, report.after.others),
    }
    for label, values in rows.items():
        if values[0] is not None:
            table.add_row(label, *(f"{100 * (value or 0):.1f}" for value in values))
    console = Console()
    console.print(table)
    console.print(f"{100 * report.unchanged:.1f} % of pixels keep their name among names it was not tuned on")

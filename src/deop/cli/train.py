"""``deop train``: the training stages, each configured by a recipe."""

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deop.cli.completion import models
from deop.cli.console import PlainConsole, say
from deop.cli.options import Debug, Threads, option
from deop.dependencies import require
from deop.errors import SettingError
from deop.files import check_writable


class StageName(StrEnum):
    """The training stages."""

    prompt = "prompt"
    proposals = "proposals"
    deop = "deop"
    finetune = "finetune"


def train(
    stage: Annotated[
        StageName,
        typer.Argument(
            metavar="STAGE",
            help="prompt (stage 1), proposals (stage 2), deop (stage 3: the anchor decoder), or finetune (adapt a "
            "model to a few labelled photos).",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings that override the recipe's, such as loop.seed=1 rate=1e-4.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        option("--recipe", "-r", metavar="FILE", help="The recipe, a YAML file. Required except for finetune."),
    ] = None,
    data: Annotated[
        str | None, option("--data", metavar="DIR", help="The labelled data set. Default: the recipe's.")
    ] = None,
    model: Annotated[
        str | None,
        option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=models,
            help="The model to start from. Default: the recipe's.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", metavar="DIR", help="The directory of the run. Default: runs/ and the recipe's name."),
    ] = None,
    resume: Annotated[
        bool, option("--resume", help="Continue from the last checkpoint in the directory of the run, if there is one.")
    ] = False,
    device: Annotated[
        str | None, option("--device", metavar="DEVICE", help="cpu trains on the CPU. Default: a GPU if there is one.")
    ] = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train or fine-tune a model on a labelled data set.

    The directory of the run contains the trained model (for --model), the complete recipe, a TensorBoard log and the
    checkpoints. To train on several GPUs, run: accelerate launch -m deop train ...
    """
    if recipe is None and stage is not StageName.finetune:
        raise SettingError(f"training stage {stage} needs a recipe: give --recipe FILE, such as one of recipes/")
    if device not in (None, "cpu"):
        raise SettingError(f"unknown training device {device!r}: give --device cpu, or omit it to train on the GPU")
    require("deop train", "torch", "accelerate", "yaml", extra="train")
    from deop.networks.threads import set_threads

    set_threads(threads)
    recipe_class, run = _stage(stage)
    from deop.training.recipe import read_recipe

    base: dict[str, Any] = {} if data is None else {"data": {"folder": data}}
    base |= {} if model is None else {"model": model}
    complete_recipe = read_recipe(recipe_class, recipe, settings or (), base)
    folder = out or Path("runs") / (recipe.stem if recipe else str(stage))
    check_writable([folder / "recipe.yaml"])
    result = run(complete_recipe, folder, resume=resume, device=device)
    if os.environ.get("RANK", "0") == "0":  # only the first of several processes reports
        if stage is StageName.finetune:
            _print_report(result)
        example = shlex.join(["deop", "segment", "PHOTO", "--classes", "cat, sofa, wall", "--model", str(result.model)])
        say(f"trained for {result.steps} steps. To use the model, run:\n  {example}")


def _stage(stage: StageName) -> tuple[type[Any], Any]:
    """The recipe class of a stage, and the function that trains it."""
    if stage is StageName.prompt:
        from deop.training.stages import prompt

        return prompt.PromptRecipe, prompt.train
    if stage is StageName.proposals:
        from deop.training.stages import proposals

        return proposals.ProposalRecipe, proposals.train
    if stage is StageName.finetune:
        from deop.training.stages import finetune

        return finetune.FinetuneRecipe, finetune.train
    from deop.training.stages import deop

    return deop.DeOPRecipe, deop.train


def _print_report(run: Any) -> None:
    from rich.table import Table

    from deop.training.stages.finetune import read_report

    report = read_report(run.folder)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("mIoU, %")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    rows = {
        report.held_out_label: (report.before.held_out, report.after.held_out),
        f"training photos ({report.training_photos})": (report.before.training, report.after.training),
        "other names": (report.before.others, report.after.others),
    }
    for label, values in rows.items():
        if values[0] is not None:
            table.add_row(label, *(f"{100 * (value or 0):.1f}" for value in values))
    console = PlainConsole()
    console.print(table)
    if report.bank is not None:
        bank, words, tuned = report.bank, report.before.held_out, report.after.held_out
        took = "" if report.seconds is None else f" after {report.seconds:.0f} s of training"
        console.print(
            f"without training, the same photos as examples: {100 * bank.held_out:.1f} on the held-out photos after "
            f"{bank.seconds:.0f} s (words alone {100 * words:.1f}, fine-tuned {100 * tuned:.1f}{took}); deop learn "
            "makes such a bank"
        )
    console.print(f"{100 * report.unchanged:.1f} % of pixels keep their name, among names it was not fine-tuned on")

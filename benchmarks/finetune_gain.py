"""Fine-tunes a model on 5, 20 and 80 photos, and measures what it gains and what it forgets: a table and a plot.

    python benchmarks/finetune_gain.py ../shared/data/camvid-mini --others ../shared/data/coco-mini --plot finetune.png

For each number of photos and each seed, photos are drawn from the training split and ``deop train finetune`` runs with
its defaults. Scores before and after are measured on the validation splits of both data sets, which no run uses. Runs
and scores that already exist are used again.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from deop import load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.errors import DeopError, SettingError
from deop.evaluation.evaluate import evaluate
from deop.evaluation.protocol import Protocol
from deop.files import parse_json, replacing
from deop.training.recipe import differences, plain, read_recipe
from deop.training.stages.finetune import FinetuneRecipe, read_report, train


def score(name: str | Path, tuned: LabelledData, others: LabelledData | None, limit: int | None) -> dict[str, Any]:
    """mIoU of a model on the data set that it is tuned on and on the other one."""
    model, protocol = load(name, engine="torch"), Protocol(limit=limit)
    sets = {"own": tuned, "others": others}
    return {key: evaluate(model, data, protocol)["miou"] for key, data in sets.items() if data is not None}


def one_run(
    recipe: FinetuneRecipe, folder: Path, measured_on: dict[str, Any], measure: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Train and score one model. A finished run in the folder is used again, and so are its scores.

    Args:
        recipe: the recipe of the run.
        folder: folder of the run.
        measured_on: what ``measure`` depends on, as JSON values. Scores that were measured on something else are
            measured again.
        measure: returns the scores of a model folder.

    Raises:
        SettingError: the folder contains a run with another recipe.
    """
    cached = folder / "scores.json"
    request = {"recipe": plain(recipe), "measured_on": measured_on}
    try:
        earlier = parse_json(cached)
        if earlier["request"] == request:
            return dict(earlier["scores"])
    except (OSError, ValueError, TypeError, KeyError):  # no scores yet, or damaged ones: measure again
        pass
    if (folder / "report.json").exists():
        check_same_recipe(recipe, folder)
    else:
        train(recipe, folder, resume=True)
    report = read_report(folder)
    scores = {"photos": recipe.photos, "seed": recipe.loop.seed, "unchanged": report.unchanged}
    scores |= {"overfits": report.overfits, **measure(folder / "model")}
    with replacing(cached) as file:
        file.write((json.dumps({"request": request, "scores": scores}, indent=2) + "\n").encode())
    return scores


def check_same_recipe(recipe: FinetuneRecipe, folder: Path) -> None:
    """Check that a finished run has the given recipe.

    Raises:
        SettingError: the recipes differ.
    """
    earlier = read_recipe(FinetuneRecipe, folder / "recipe.yaml")
    if changes := differences(plain(earlier), plain(recipe)):
        raise SettingError(
            f"{folder} contains a run with another recipe: {'; '.join(changes)}. Choose another folder with --out"
        )


def table_of(before: dict[str, Any], runs: list[dict[str, Any]]) -> Table:
    """Mean and standard deviation over the seeds, in per cent."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for label in ("photos", "own names, mIoU", "other names, mIoU", "names kept", "over-fitted"):
        table.add_column(label, justify="left" if label == "photos" else "right", no_wrap=True)

    def shown(values: list[float]) -> str:
        spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        return f"{100 * np.mean(values):.1f}{spread}"

    table.add_row("none", *(f"{100 * before[key]:.1f}" if key in before else "" for key in ("own", "others")))
    for photos in sorted({run["photos"] for run in runs}):
        group = [run for run in runs if run["photos"] == photos]
        cells = [shown([run[key] for run in group]) if key in before else "" for key in ("own", "others")]
        kept = shown([run["unchanged"] for run in group])
        table.add_row(str(photos), *cells, kept, f"{sum(run['overfits'] for run in group)} of {len(group)}")
    return table


def draw(before: dict[str, Any], runs: list[dict[str, Any]], path: Path) -> None:
    """Plot the scores by number of photos, one point per seed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SystemExit("error: the plot needs matplotlib: pip install matplotlib, or omit --plot") from error
    figure, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for key, label, colour in (("own", "names tuned on", "#1f6f8b"), ("others", "other names", "#b3541e")):
        if key not in before:
            continue
        counts = sorted({run["photos"] for run in runs})
        means = [100 * np.mean([run[key] for run in runs if run["photos"] == count]) for count in counts]
        axes.plot(range(1, len(counts) + 1), means, color=colour, label=label)
        for place, count in enumerate(counts, 1):
            values = [100 * run[key] for run in runs if run["photos"] == count]
            axes.plot([place] * len(values), values, "o", color=colour, alpha=0.5)
        axes.axhline(100 * before[key], color=colour, linestyle=":", label=f"{label}, before")
    axes.set_xticks(range(1, len(counts) + 1), [str(count) for count in counts])
    axes.set_xlabel("photos")
    axes.set_ylabel("mIoU on validation photos, per cent")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def numbers_in(text: str) -> list[int]:
    """The numbers of photos in a comma-separated list.

    Raises:
        SettingError: the list contains something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(f"--photos is {text!r}: expected whole numbers separated by commas, such as 5,20") from None


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder with the splits train and val.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the fine-tuning recipe.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model to tune.")] = "nano",
    others: Annotated[
        Path | None, typer.Option(help="A labelled folder with other names, to measure forgetting.")
    ] = None,
    photos: Annotated[str, typer.Option(help="Numbers of photos, separated by commas.")] = "5,20,80",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N validation photos.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/finetune-gain"),
    plot: Annotated[Path | None, typer.Option(help="Image file for a plot.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for all numbers.")] = None,
) -> None:
    """Fine-tune on different numbers of photos, and compare the scores before and after."""
    counts = numbers_in(photos)
    tuned_data, other_data = open_folder(dataset, "val"), None if others is None else open_folder(others, "val")
    other_root = None if other_data is None else str(other_data.root)
    measured_on = {"own": str(tuned_data.root), "others": other_root, "limit": limit}
    before = score(model, tuned_data, other_data, limit)
    measure = partial(score, tuned=tuned_data, others=other_data, limit=limit)
    runs = []
    for count in counts:
        for seed in range(seeds):
            base = {"data": {"folder": str(dataset)}, "model": model, "photos": count, "loop": {"seed": seed}}
            recipe = read_recipe(FinetuneRecipe, None, settings or (), base)
            runs.append(one_run(recipe, out / f"{count}-photos-seed-{seed}", measured_on, measure))
    Console().print(table_of(before, runs))
    if plot:
        draw(before, runs, plot)
    if json_file:
        with replacing(json_file) as file:
            file.write((json.dumps({"before": before, "runs": runs}, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error

"""What fine-tuning on 5, 20 and 80 photos gives, and what it makes a model forget: a table and a plot.

    python benchmarks/finetune_gain.py ../shared/data/camvid-mini --others ../shared/data/coco-mini --plot finetune.png

For each number of photos and each seed: photos are drawn from the training split, ``deop train finetune`` runs with its
defaults, and the validation photos of both sets, which no run has seen, are named before and after. A run that is there
is not repeated.
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
from deop.data.folder import LabelledFolder, open_folder
from deop.errors import DeopError
from deop.evaluation.evaluate import evaluate
from deop.evaluation.protocol import Protocol
from deop.files import replacing
from deop.training.recipe import plain, read_recipe
from deop.training.stages.finetune import FinetuneRecipe, read_report, train


def score(name: str | Path, own: LabelledFolder, others: LabelledFolder | None, limit: int | None) -> dict[str, Any]:
    """mIoU of a model on the set that was tuned on and on the other."""
    model, protocol = load(name), Protocol(limit=limit)
    sets = {"own": own, "others": others}
    return {key: evaluate(model, data, protocol)["miou"] for key, data in sets.items() if data is not None}


def one_run(recipe: FinetuneRecipe, folder: Path, scored: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Train, unless that is done, and score, unless that is; what was found is kept beside the run."""
    kept = folder / "found.json"
    asked = {"recipe": plain(recipe)}
    if kept.exists() and (before := json.loads(kept.read_text()))["asked"] == asked:
        return before["found"]
    if not (folder / "report.json").exists():
        train(recipe, folder, resume=True)
    report = read_report(folder)
    found = {"photos": recipe.photos, "seed": recipe.loop.seed, "unchanged": report.unchanged}
    found |= {"overfits": report.overfits, **scored(folder / "model")}
    with replacing(kept) as file:
        file.write((json.dumps({"asked": asked, "found": found}, indent=2) + "\n").encode())
    return found


def table_of(before: dict[str, Any], runs: list[dict[str, Any]]) -> Table:
    """Mean and deviation over the seeds, in per cent."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for label in ("photos", "own names, mIoU", "other names, mIoU", "names kept", "over-fitted"):
        table.add_column(label, justify="left" if label == "photos" else "right", no_wrap=True)

    def shown(values: list[float]) -> str:
        spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        return f"{100 * np.mean(values):.1f}{spread}"

    table.add_row("none", *(f"{100 * before[key]:.1f}" if key in before else "" for key in ("own", "others")))
    for photos in sorted({run["photos"] for run in runs}):
        some = [run for run in runs if run["photos"] == photos]
        cells = [shown([run[key] for run in some]) if key in before else "" for key in ("own", "others")]
        kept = shown([run["unchanged"] for run in some])
        table.add_row(str(photos), *cells, kept, f"{sum(run['overfits'] for run in some)} of {len(some)}")
    return table


def draw(before: dict[str, Any], runs: list[dict[str, Any]], path: Path) -> None:
    """Score by photos, one point a seed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SystemExit("error: the plot needs matplotlib: pip install matplotlib, or leave --plot out") from error
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


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder with the splits train and val.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of fine-tuning.")] = None,
    model: Annotated[str, typer.Option(help="What is tuned.")] = "nano",
    others: Annotated[Path | None, typer.Option(help="A folder with other names: what is forgotten.")] = None,
    photos: Annotated[str, typer.Option(help="How many, with commas.")] = "5,20,80",
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Only the first validation photos.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/finetune-gain"),
    plot: Annotated[Path | None, typer.Option(help="A picture to write.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here.")] = None,
) -> None:
    """Fine-tune with several numbers of photos and seeds, compare with before."""
    own, other = open_folder(dataset, "val"), None if others is None else open_folder(others, "val")
    before = score(model, own, other, limit)
    runs = []
    for count in map(int, photos.split(",")):
        for seed in range(seeds):
            base = {"data": {"folder": str(dataset)}, "model": model, "photos": count, "loop": {"seed": seed}}
            recipe = read_recipe(FinetuneRecipe, None, settings or (), base)
            runs.append(
                one_run(recipe, out / f"{count}-photos-seed-{seed}", partial(score, own=own, others=other, limit=limit))
            )
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

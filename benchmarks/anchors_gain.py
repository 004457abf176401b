"""Measures what learned anchors gain over training-free pooling: one recipe of stage 3, several seeds, one data set.

    python -m benchmarks.anchors_gain ../shared/data/coco-mini

The recipe runs once per seed. The trained models and the model that they started from, which pools, are evaluated on
the same validation photos. Intervals of the gains are from a paired bootstrap over the photos
(``deop.evaluation.bootstrap``): they describe other photos, while the different seeds describe other runs. Finished
runs are used again.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.ablation import Row, Setting, measure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deop import load
from deop.data.folder import open_folder
from deop.errors import DeopError
from deop.evaluation.bootstrap import Bootstrap
from deop.files import replacing
from deop.training.recipe import read_recipe
from deop.training.stages.deop import DeOPRecipe, train

RECIPE = Path(__file__).parents[1] / "recipes" / "coco-mini" / "deop.yaml"
SCORES = {"miou": "mIoU", "pixel_accuracy": "pixels"}


def measured(rows: list[Row], bootstrap: Bootstrap) -> dict[str, Any]:
    """The scores of the first row, and the gains of the others."""
    gains = [row.minus(rows[0], bootstrap) for row in rows[1:]]
    summary: dict[str, Any] = {"pooling": {key: rows[0].scores[key] for key in SCORES}, "seeds": []}
    for row, gain in zip(rows[1:], gains, strict=True):
        summary["seeds"].append({key: {"score": row.scores[key], **gain[key]} for key in SCORES})
    for key in SCORES:
        values = np.array([gain[key]["gain"] for gain in gains])
        summary[key] = {
            "mean_gain": float(values.mean()),
            "deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
            "better": int((values > 0).sum()),
        }
    return summary


def print_table(summary: dict[str, Any], seeds: list[int]) -> None:
    """Print all rows in per cent, and the mean gains."""
    first = [cell for key in SCORES for cell in (f"{100 * summary['pooling'][key]:.1f}", "")]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Anchors", no_wrap=True)
    for label in SCORES.values():
        table.add_column(label, justify="right", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
    table.add_row("pooling, not trained", *first)
    for seed, row in zip(seeds, summary["seeds"], strict=True):
        cells = []
        for key in SCORES:
            low, high = row[key]["interval"]
            cells.append(f"{100 * row[key]['score']:.1f}")
            cells.append(f"{100 * row[key]['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
        table.add_row(f"learned, seed {seed}", *cells)
    console = Console()
    console.print(table)
    for key, label in SCORES.items():
        gain = summary[key]
        spread = "" if gain["deviation"] is None else f" (standard deviation {100 * gain['deviation']:.1f})"
        console.print(
            f"{label}: {100 * gain['mean_gain']:+.1f} on average{spread}; "
            f"better than pooling in {gain['better']} of {len(seeds)} seeds",
            highlight=False,
        )


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder with the splits train and val.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the recipe.")
    ] = None,
    recipe: Annotated[Path, typer.Option(help="A recipe of stage 3.")] = RECIPE,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/anchors-gain"),
    split: Annotated[str, typer.Option(help="Split to evaluate on; not the one that was trained on.")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N photos.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for all numbers.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu trains on the CPU. Default: a GPU if there is one.")] = None,
) -> None:
    """Train with several seeds, and compare the models with pooling."""
    data, bootstrap = open_folder(dataset, split), Bootstrap()
    options = {"limit": limit}
    models = []
    for seed in range(seeds):
        base = {"data": {"folder": str(dataset)}, "loop": {"seed": seed}}
        training = read_recipe(DeOPRecipe, recipe, settings or (), base)
        models.append(train(training, out / f"seed-{seed}", resume=True, device=device).model)
    rows = []
    for name, anchors in ((training.model, "pool"), *((model, "decoder") for model in models)):
        model = load(name, engine="torch", device=device)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{Path(name).parent.name or name}: photos")

            def progress(done: int, total: int, bar: Progress = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            rows.append(measure(model, data, Setting(None, "one-pass", anchors), options, bootstrap, progress))
    summary = measured(rows, bootstrap)
    print_table(summary, list(range(seeds)))
    if json_file:
        with replacing(json_file) as file:
            file.write((json.dumps(summary, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error

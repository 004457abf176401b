"""What learned anchors gain over training-free pooling: one recipe of stage 3, several seeds, one data set.

    python benchmarks/anchors_gain.py ../shared/data/coco-mini

The recipe is run once a seed; then the model that it started from, which pools, and each trained one answer the same
validation photos. Intervals of the gains are of a paired bootstrap over the photos (``deop.evaluation.bootstrap``), so
they speak of other photos; the seeds beside each other speak of other runs. A run that is there is not repeated.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ablation import Row, Setting, compare, measure
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
    """Scores of the first row, gains of the others, and whether each of them gained."""
    gains = [compare(row, rows[0], bootstrap) for row in rows[1:]]
    summary: dict[str, Any] = {"pooling": {key: rows[0].found[key] for key in SCORES}, "seeds": []}
    for row, gain in zip(rows[1:], gains, strict=True):
        summary["seeds"].append({key: {"score": row.found[key], **gain[key]} for key in SCORES})
    for key in SCORES:
        found = np.array([gain[key]["gain"] for gain in gains])
        summary[key] = {
            "mean_gain": float(found.mean()),
            "deviation": float(found.std(ddof=1)) if len(found) > 1 else None,
            "better": int((found > 0).sum()),
        }
    return summary


def print_table(summary: dict[str, Any], seeds: list[int]) -> None:
    """All rows in per cent, and what they say."""
    first = [cell for key in SCORES for cell in (f"{100 * summary['pooling'][key]:.1f}", "")]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Anchors", no_wrap=True)
    for label in SCORES.values():
        table.add_column(label, justify="right", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
    table.add_row("pooling, nothing learned", *first)
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
        found = summary[key]
        spread = "" if found["deviation"] is None else f" (deviation of the seeds {100 * found['deviation']:.1f})"
        console.print(
            f"{label}: {100 * found['mean_gain']:+.1f} on average{spread}; "
            f"better than pooling in {found['better']} of {len(seeds)} seeds",
            highlight=False,
        )


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder with the splits train and val.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Over the recipe.")] = None,
    recipe: Annotated[Path, typer.Option(help="Of stage 3.")] = RECIPE,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/anchors-gain"),
    split: Annotated[str, typer.Option(help="What is measured on; never what was trained on.")] = "val",
    limit: Annotated[int | None, typer.Option(help="Only the first photos.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu keeps off a GPU.")] = None,
) -> None:
    """Train with some seeds, compare with pooling."""
    data, bootstrap = open_folder(dataset, split), Bootstrap()
    asked = {"limit": limit}
    models = []
    for seed in range(seeds):
        base = {"data": {"folder": str(dataset)}, "loop": {"seed": seed}}
        described = read_recipe(DeOPRecipe, recipe, settings or (), base)
        models.append(train(described, out / f"seed-{seed}", resume=True, device=device).model)
    rows = []
    for name, anchors in ((described.model, "pool"), *((model, "decoder") for model in models)):
        model = load(name, device=device)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{Path(name).parent.name or name}: photos")

            def progress(done: int, total: int, bar: Progress = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            rows.append(measure(model, data, Setting(None, "one-pass", anchors), asked, bootstrap, progress))
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

"""Compares severances, classifiers and anchors: one model on one data set, all combinations.

    python benchmarks/ablation.py DATASET --model nano --limit 10

Each row is a full evaluation with the same masks. Intervals are from a bootstrap over the photos. Differences are
paired: every row is scored on the same resamples, so that photos that are hard for all rows do not hide a gain. A
difference has a star if its interval does not contain 0.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deop import DeOP, load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.errors import DeopError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.comparison import Scored, evaluate_with_draws
from deop.evaluation.protocol import Protocol
from deop.files import read_names, replacing
from deop.severance import KINDS, Severance
from deop.zoo import GIVEN


@dataclass(frozen=True)
class Setting:
    """The options of one row. The two-stream classifier has neither severance nor anchors."""

    severance: str | None
    classifier: str
    anchors: str | None


@dataclass(frozen=True)
class Row(Scored):
    """The options and the scores of one row."""

    setting: Setting


def anchors_of(model: DeOP, proposals: str) -> tuple[list[str], str]:
    """The kinds of anchors that can be compared, and a note if there is only one."""
    if model.anchors is None:
        return ["pool"], "This model pools features under each mask, so it has no learned anchors to compare."
    if proposals == "oracle" and model.anchors.config.query == "slot":
        return ["pool"], "This model's anchors are tied to its own masks, so it pools features under the true masks."
    return ["pool", "decoder"], ""


def settings_of(kinds: list[str], anchors: list[str]) -> list[Setting]:
    """All combinations, in the given order of severances and anchors; two-stream is last."""
    rows = [Setting(kind, "one-pass", anchor) for anchor in anchors for kind in kinds]
    return [*rows, Setting(None, "two-stream", None)]


def measure(
    model: DeOP,
    data: LabelledData,
    setting: Setting,
    options: dict[str, Any],
    bootstrap: Bootstrap,
    progress: Callable[[int, int], None],
) -> Row:
    """Evaluate one row, and score it on the resamples that all rows share.

    Args:
        model: the model.
        data: the data set.
        setting: the options of the row.
        options: further options of ``Protocol``, the same for all rows.
        bootstrap: settings of the intervals.
        progress: called with the number of finished photos and of all photos.
    """
    protocol = Protocol(severance=setting.severance, classifier=setting.classifier, anchors=setting.anchors, **options)
    scored = evaluate_with_draws(model, data, protocol, progress, bootstrap=bootstrap)
    return Row(scored.scores, scored.draws, setting)


def table_of(rows: list[Row], bootstrap: Bootstrap) -> Table:
    """All rows as a table, in per cent."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    keys = list(rows[0].draws)
    for name in ("Severance", "Classifier", "Anchors"):
        table.add_column(name, no_wrap=True)
    labels = {"miou": "mIoU", "seen_miou": "Seen", "unseen_miou": "Unseen", "hiou": "hIoU", "pixel_accuracy": "Pixels"}
    for key in keys:
        table.add_column(labels[key], justify="right", no_wrap=True)
        if key in ("miou", "hiou"):
            table.add_column("interval", style="dim", no_wrap=True)
            table.add_column("difference to the first", justify="right", no_wrap=True)
    if rows[0].scores["region_accuracy"] is not None:
        table.add_column("Regions", justify="right", no_wrap=True)
    table.add_column("s per photo", justify="right", no_wrap=True)
    for row in rows:
        setting, gains = row.setting, row.minus(rows[0], bootstrap)
        cells = [setting.severance or "-", setting.classifier, setting.anchors or "-"]
        for key in keys:
            cells.append(f"{100 * row.scores[key]:.1f}")
            if key in ("miou", "hiou"):
                bounds = row.scores["intervals"].get(key)  # None for a single photo
                cells.append(f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" if bounds else "")
                cells.append(_gain(gains[key]) if bounds and row is not rows[0] else "")
        if row.scores["region_accuracy"] is not None:
            cells.append(f"{100 * row.scores['region_accuracy']:.1f}")
        table.add_row(*cells, f"{row.scores['seconds_per_image']:.2f}")
    return table


def write_json(path: str, rows: list[Row], bootstrap: Bootstrap) -> None:
    """Write the settings and scores of the rows, and their differences to the first."""
    values = [
        {**vars(row.setting), "found": row.scores, "against_first": row.minus(rows[0], bootstrap)} for row in rows
    ]
    with replacing(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def _gain(gain: dict[str, Any]) -> str:
    low, high = gain["interval"]
    star = " *" if low > 0 or high < 0 else "  "
    return f"{100 * gain['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}){star}"


def main(
    dataset: Annotated[Path, typer.Argument(help="A folder with images/, masks/ and classes.json.")],
    model: Annotated[str, typer.Option(help="A model of the zoo, a folder, or a hub repo.")] = "nano",
    split: Annotated[str | None, typer.Option(help="The split, such as val or train.")] = None,
    proposals: Annotated[str, typer.Option(help="model: the model's masks; oracle: the true masks.")] = "model",
    names: Annotated[str, typer.Option(help="all names, or present: only those in the photo's truth.")] = "all",
    unseen: Annotated[Path | None, typer.Option(help="File with the names that training did not see.")] = None,
    severance: Annotated[
        str,
        typer.Option(help="Severances as --severance of deop takes them, separated by commas; compared to the first."),
    ] = ",".join(KINDS),
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N photos.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Number of bootstrap resamples.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the resamples.")] = 0,
    json_file: Annotated[str | None, typer.Option("--json", help="JSON file for all scores.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps. Default: a GPU if there is one.")] = None,
) -> None:
    """Evaluate every combination of severance, classifier and anchors, with intervals and paired differences."""
    kinds = [kind.strip() for kind in severance.split(",")]
    for kind in kinds:
        Severance.parse(kind)  # raises an error before the model is loaded
    unseen_names = tuple(read_names(unseen)) if unseen else ()
    options = {"proposals": proposals, "names": names, "unseen": unseen_names, "limit": limit}
    Protocol(**options)  # raises an error before the model is loaded
    data, bootstrap = open_folder(dataset, split), Bootstrap(resamples, seed=seed)
    network = load(model, engine="torch", proposer=GIVEN if proposals == "oracle" else None, device=device)
    console = Console(highlight=False, width=200)  # so that rows are not wrapped
    anchors, note = anchors_of(network, proposals)
    settings = settings_of(kinds, anchors)
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        rows_task = bar.add_task("rows", total=len(settings))
        photos_task = bar.add_task("photos")

        def show(done: int, total: int) -> None:
            bar.update(photos_task, completed=done, total=total)

        for setting in settings:
            rows.append(measure(network, data, setting, options, bootstrap, show))
            bar.advance(rows_task)
            if json_file:  # after each row, so that an interrupted run keeps what it has
                write_json(json_file, rows, bootstrap)
    first = rows[0].scores
    console.print(f"{first['model']} on {first['data']}: {first['images']} photos, {proposals} masks, per cent\n")
    console.print(table_of(rows, bootstrap))
    if note:
        console.print(f"\n{note}")
    console.print(
        f"\n{100 * bootstrap.confidence:g} % intervals over photos, {resamples:,} resamples, seed {seed}. Differences "
        "are paired; a star marks those whose interval does not contain 0.",
        style="dim",
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from None

"""What severance, the classifier and the anchors are worth: one model on one data set, every combination.

    python benchmarks/ablation.py DATASET --model nano --limit 10

Each row is a whole evaluation; the masks are the same in all. Intervals are of a bootstrap over the photos, and those
of the differences are paired: every row is scored on the same draws, so that what makes a photo hard for all of them
does not hide what one of them gains. A difference whose interval does not hold 0 is marked with a star.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deop import DeOP, load
from deop.data.folder import LabelledFolder, open_folder
from deop.encoders.severance import KINDS
from deop.errors import DeopError, SettingError
from deop.evaluation.bootstrap import Bootstrap, PhotoSums
from deop.evaluation.evaluate import Answer, evaluate
from deop.evaluation.metrics import semantic_scores
from deop.evaluation.protocol import Protocol
from deop.files import replacing
from deop.zoo import GIVEN

SCORES = ("miou", "seen_miou", "unseen_miou", "hiou", "pixel_accuracy")


@dataclass(frozen=True)
class Setting:
    """One row: two streams know neither severance nor anchors."""

    severance: str | None
    classifier: str
    anchors: str | None


@dataclass(frozen=True)
class Row:
    """One row's scores."""

    setting: Setting
    found: dict[str, Any]
    draws: dict[str, np.ndarray]  # score of each resample


def anchors_of(model: DeOP, proposals: str) -> tuple[list[str], str]:
    """The anchors that can be compared, and why they are no more."""
    if model.anchors is None:
        return ["pool"], "This model pools features under each mask: it has no learned anchors to compare."
    if proposals == "oracle" and model.anchors.config.query == "slot":
        return ["pool"], "This model's anchors are tied to its own masks: under true masks it pools."
    return ["pool", "decoder"], ""


def settings_of(kinds: list[str], anchors: list[str]) -> list[Setting]:
    """All combinations, the first kind of severance and of anchors first."""
    rows = [Setting(kind, "one-pass", anchor) for anchor in anchors for kind in kinds]
    return [*rows, Setting(None, "two-stream", None)]


def measure(
    model: DeOP,
    data: LabelledFolder,
    setting: Setting,
    asked: dict[str, Any],
    bootstrap: Bootstrap,
    progress: Callable[[int, int], None],
) -> Row:
    """One evaluation, and its scores on the draws that all rows share."""
    protocol = Protocol(severance=setting.severance, classifier=setting.classifier, anchors=setting.anchors, **asked)
    sums: list[PhotoSums] = []

    def count(answer: Answer) -> None:
        counts = answer.confusion.counts
        if not sums:
            sums.append(PhotoSums(counts.shape))
        sums[0].add(counts)

    found = evaluate(model, data, protocol, progress, bootstrap=bootstrap, watch=count)
    unseen = np.isin(list(found["per_class"]), found["unseen"]) if found["unseen"] else None
    keys = [key for key in SCORES if found[key] is not None]
    draws = bootstrap.draw(sums[0], lambda part: np.stack([semantic_scores(part, unseen)[key] for key in keys], -1))
    return Row(setting, found, dict(zip(keys, draws.T, strict=True)))


def compare(row: Row, first: Row, bootstrap: Bootstrap) -> dict[str, Any]:
    """What a row has over the first: of each score the difference and its interval, in [-1, 1]."""
    gains = {}
    for key, draws in row.draws.items():
        low, high = bootstrap.interval(draws - first.draws[key])
        gains[key] = {"gain": row.found[key] - first.found[key], "interval": [float(low), float(high)]}
    return gains


def table_of(rows: list[Row], bootstrap: Bootstrap) -> Table:
    """All rows, in per cent."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    keys = list(rows[0].draws)
    for name in ("Severance", "Classifier", "Anchors"):
        table.add_column(name, no_wrap=True)
    labels = {"miou": "mIoU", "seen_miou": "Seen", "unseen_miou": "Unseen", "hiou": "hIoU", "pixel_accuracy": "Pixels"}
    for key in keys:
        table.add_column(labels[key], justify="right", no_wrap=True)
        if key in ("miou", "hiou"):
            table.add_column("interval", style="dim", no_wrap=True)
            table.add_column("against the first", justify="right", no_wrap=True)
    if rows[0].found["region_accuracy"] is not None:
        table.add_column("Regions", justify="right", no_wrap=True)
    table.add_column("s a photo", justify="right", no_wrap=True)
    for row in rows:
        setting, gains = row.setting, compare(row, rows[0], bootstrap)
        cells = [setting.severance or "-", setting.classifier, setting.anchors or "-"]
        for key in keys:
            cells.append(f"{100 * row.found[key]:.1f}")
            if key in ("miou", "hiou"):
                bounds = row.found["intervals"].get(key)  # one photo has none
                cells.append(f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" if bounds else "")
                cells.append(_gain(gains[key]) if bounds and row is not rows[0] else "")
        if row.found["region_accuracy"] is not None:
            cells.append(f"{100 * row.found['region_accuracy']:.1f}")
        table.add_row(*cells, f"{row.found['seconds_per_image']:.2f}")
    return table


def _gain(gain: dict[str, Any]) -> str:
    low, high = gain["interval"]
    star = " *" if low > 0 or high < 0 else "  "
    return f"{100 * gain['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}){star}"


def main(
    dataset: Annotated[Path, typer.Argument(help="A folder with images/, masks/ and classes.json.")],
    model: Annotated[str, typer.Option(help="A name of the zoo, a folder, or a hub repo.")] = "nano",
    split: Annotated[str | None, typer.Option(help="val, train...")] = None,
    proposals: Annotated[str, typer.Option(help="model: its own masks; oracle: the true ones.")] = "model",
    names: Annotated[str, typer.Option(help="all, or present: only those in each photo's truth.")] = "all",
    unseen: Annotated[Path | None, typer.Option(help="Names that training did not see, one a line.")] = None,
    severance: Annotated[str, typer.Option(help="Which to compare; the first is what the others are held against.")] = (
        ",".join(KINDS)
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first photos.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of photos.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of these draws.")] = 0,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all scores as JSON.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default a GPU if any.")] = None,
) -> None:
    """Print severance x classifier x anchors on a data set, with intervals and paired differences."""
    kinds = [kind.strip() for kind in severance.split(",")]
    if strange := sorted(set(kinds) - set(KINDS)):
        raise SettingError(f"unknown severance {', '.join(strange)}: choose of {', '.join(KINDS)}")
    held_out = tuple(filter(None, map(str.strip, unseen.read_text().splitlines()))) if unseen else ()
    asked = {"proposals": proposals, "names": names, "unseen": held_out, "limit": limit}
    Protocol(**asked)  # refused before the model is loaded
    data, bootstrap = open_folder(dataset, split), Bootstrap(resamples, seed=seed)
    network = load(model, proposer=GIVEN if proposals == "oracle" else None, device=device)
    console = Console(highlight=False, width=200)  # a row is a line, also in a file
    anchors, why = anchors_of(network, proposals)
    settings = settings_of(kinds, anchors)
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        whole = bar.add_task("settings", total=len(settings))
        part = bar.add_task("photos")

        def show(done: int, total: int) -> None:
            bar.update(part, completed=done, total=total)

        for setting in settings:
            rows.append(measure(network, data, setting, asked, bootstrap, show))
            bar.advance(whole)
    first = rows[0].found
    console.print(f"{first['model']} on {first['data']}: {first['images']} photos, {proposals} masks, per cent\n")
    console.print(table_of(rows, bootstrap))
    if why:
        console.print(f"\n{why}")
    console.print(
        f"\n{100 * bootstrap.confidence:g} % intervals over photos, {resamples:,} resamples, seed {seed}; differences "
        "are paired, with a star where 0 is outside.",
        style="dim",
    )
    if json_file:
        text = [
            {**vars(row.setting), "found": row.found, "against_first": compare(row, rows[0], bootstrap)} for row in rows
        ]
        with replacing(json_file) as file:
            file.write((json.dumps(text, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from None

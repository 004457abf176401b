"""How to use a model without training: severances, residual and MLP, sizes and masks, measured on your own data.

    python benchmarks/zoo.py DATA --models clip-b16 clip-l14
    python benchmarks/zoo.py DATA --models clip-b16 --sizes 448 --masks true --output table.md --json rows.json

For each model, size and source of masks, six severances are evaluated: a patch keeps its own value (``self``), or
receives the values of patches of the same masks with uniform weights or weighted by keys (``region``), each with a
residual weight of 0.2 and the MLP (as in the demo of DeOP's authors) or with neither. All other values are the model's
own. The masks are those of the model (``own``) or the true ones (``true``), which measure the naming alone.

Every row is a complete evaluation (``deop evaluate``), and all rows are scored on the same resamples of the photos.
Differences are paired: "to the first" is relative to the first severance of the same model, size and masks. The lines
below the table name the best row of each model and source of masks, and the rows that cannot be distinguished from it:
those whose difference to it has an interval that contains 0. Since the best row was selected on the same photos, its
score is optimistic: choose on one part of the data, and report the score on another.

The table is Markdown. After each row, ``--json`` is written anew, so that an interrupted run keeps what it has. A model
that cannot be loaded or evaluated is reported at the end, and the others are evaluated.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from deop import DeOP, __version__, load
from deop.data.labelled import LabelledData
from deop.data.source import open_data
from deop.errors import DeopError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.comparison import Scored, evaluate_with_draws
from deop.evaluation.protocol import Protocol
from deop.files import replacing
from deop.severance import Severance
from deop.zoo import GIVEN

KINDS = {"self": ("self", ""), "region, uniform": ("region", ""), "region, k": ("region", "k")}
"""Name of a row -> kind and similarity."""
BRANCHES = {"0.2": (0.2, True), "0": (0.0, False)}
"""Residual weight -> its value, and whether the MLP is kept."""
MASKS = {"own": "model", "true": "oracle"}
"""Source of masks -> ``Protocol.proposals``."""


@dataclass(frozen=True)
class Row(Scored):
    """A row of the table: its settings, and the scores."""

    model: str
    size: int
    masks: str
    kind: str
    residual: str

    @property
    def label(self) -> str:
        """Size and severance in a few words."""
        return f"{self.size} pixels, {self.kind}, {self.branches}"

    @property
    def branches(self) -> str:
        """What is kept of the block besides attention."""
        return f"residual {self.residual} and MLP" if BRANCHES[self.residual][1] else "no residual, no MLP"


def severances(default: Severance) -> Iterator[tuple[str, str, Severance]]:
    """The kind, the residual weight and the severance of each row; further values are those of ``default``."""
    for residual, (weight, mlp) in BRANCHES.items():
        for name, (kind, similarity) in KINDS.items():
            plain = replace(default, kind=kind, similarity=similarity, neighbours=0.0, shift=0.0, merge=0.0)
            yield name, residual, replace(plain, residual=weight, mlp=mlp)


def measure(
    model: DeOP, name: str, data: LabelledData, masks: str, size: int, options: dict[str, Any], bootstrap: Bootstrap,
    progress: Progress,
) -> Iterator[Row]:  # fmt: skip
    """Evaluate the six severances of one model at one size.

    Args:
        model: the model; photos are resized to ``size`` from now on.
        name: what the table calls it.
        data: the data set.
        masks: a key of ``MASKS``.
        size: length in pixels of the shorter side of photos.
        options: further options of ``Protocol``.
        bootstrap: settings of the intervals.
        progress: shows the photos of each row.
    """
    model.settings = replace(model.settings, resize=replace(model.settings.resize, short_side=size))
    for kind, residual, severance in severances(model.settings.severance):
        task = progress.add_task(f"{name}, {masks} masks, {size} pixels, {kind}, {residual}")
        protocol = Protocol(proposals=MASKS[masks], severance=severance, **options)

        def show(done: int, photos: int, task: TaskID = task) -> None:
            progress.update(task, completed=done, total=photos)

        scored = evaluate_with_draws(model, data, protocol, show, bootstrap=bootstrap)
        progress.remove_task(task)
        yield Row(scored.scores, scored.draws, name, size, masks, kind, residual)


def table_of(rows: list[Row], bootstrap: Bootstrap) -> list[str]:
    """The lines of a Markdown table, in per cent."""
    titles = ["model", "masks", "shorter side", "severance", "residual", "MLP", "mIoU", "interval", "to the first"]
    titles += ["pixels", "regions", "s per photo"]
    lines = [_cells(titles), _cells(["---"] * 3 + ["---"] * 3 + ["---:"] * 6)]
    for row in rows:
        first = next(other for other in rows if _group(other, size=True) == _group(row, size=True))
        bounds = row.scores["intervals"].get("miou")
        region = row.scores["region_accuracy"]
        cells = [f"`{row.model}`", row.masks, str(row.size), row.kind, row.residual]
        cells += ["yes" if BRANCHES[row.residual][1] else "no", _percent(row.scores["miou"])]
        cells += [f"{_percent(bounds[0])} to {_percent(bounds[1])}" if bounds else ""]
        cells += ["" if row is first else _difference(row.minus(first, bootstrap)["miou"])]
        cells += [_percent(row.scores["pixel_accuracy"]), "" if region is None else _percent(region)]
        lines.append(_cells([*cells, f"{row.scores['seconds_per_image']:.2f}"]))
    return lines


def best_of(rows: list[Row], bootstrap: Bootstrap) -> list[str]:
    """For each model and source of masks a line with the row of the highest mIoU, and those that may equal it."""
    lines = []
    for group in dict.fromkeys(_group(row) for row in rows):
        members = [row for row in rows if _group(row) == group]
        best = max(members, key=lambda row: row.scores["miou"])
        equals = []
        for row in members:
            interval = row.minus(best, bootstrap)["miou"]["interval"]
            if row is not best and (interval is None or interval[0] <= 0 <= interval[1]):
                equals.append(row.label)
        text = f"- `{best.model}`, {best.masks} masks: {_percent(best.scores['miou'])} with {best.label}."
        lines.append(f"{text} Not distinguishable from it: {'; '.join(equals) or 'none'}.")
    return lines


def report(rows: list[Row], bootstrap: Bootstrap, failures: list[str], command: str) -> str:
    """Everything as Markdown."""
    lines = []
    if rows:
        first = rows[0].scores
        title = (
            f"{first['images']} photos of `{first['data']}`, names: {first['names']}, deop {__version__}, in per cent."
        )
        notes = (
            f"Intervals of {100 * bootstrap.confidence:g} % over photos, {bootstrap.resamples:,} resamples, seed "
            f"{bootstrap.seed}. Differences are paired; a star marks those whose interval does not contain 0. "
            "*Regions* is the share of true masks that get the correct name."
        )
        lines += [title, "", *table_of(rows, bootstrap), "", notes, "", *best_of(rows, bootstrap), ""]
    return "\n".join([*lines, *(f"- failed: {failure}" for failure in failures), f"Command: `{command}`", ""])


def _group(row: Row, size: bool = False) -> tuple[Any, ...]:
    return (row.model, row.masks, row.size) if size else (row.model, row.masks)


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _difference(difference: dict[str, Any]) -> str:
    gain, interval = f"{100 * difference['gain']:+.1f}", difference["interval"]
    if interval is None:
        return gain
    low, high = interval
    return f"{gain} ({100 * low:+.1f} to {100 * high:+.1f}){' *' if low > 0 or high < 0 else ''}"


def _values(row: Row, rows: list[Row], bootstrap: Bootstrap) -> dict[str, Any]:
    """A row as JSON values."""
    first = next(other for other in rows if _group(other, size=True) == _group(row, size=True))
    settings = {"model": row.model, "size": row.size, "masks": row.masks, "kind": row.kind, "residual": row.residual}
    return {**settings, "found": row.scores, "to_the_first": row.minus(first, bootstrap)}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line; ``main`` explains them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set as `deop evaluate` takes it")
    parser.add_argument(
        "--models", nargs="+", default=["clip-b16"], metavar="MODEL", help="names, folders or hub repos"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[336, 448, 512], metavar="N", help="shorter side, pixels"
    )
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=list(MASKS), help="own, true or both (default)")
    parser.add_argument("--proposer", help="source of the own masks; default: that of each model")
    parser.add_argument("--split", help="default: val, if the data set has splits")
    parser.add_argument("--names", choices=("all", "present"), default="all", help="names asked for each photo")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda or mps; default: a GPU if there is one")
    parser.add_argument("--dtype", help="float32 (default), bfloat16 or float16")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--output", type=Path, help="Markdown file; default: standard output")
    parser.add_argument("--json", type=Path, help="JSON file with all scores")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; the exit status is 1 if a model failed."""
    options = parse(arguments)
    protocol = {"names": options.names, "limit": options.limit}
    bootstrap = Bootstrap(options.resamples, seed=options.seed)
    data = open_data(options.data, options.split)
    rows: list[Row] = []
    failures: list[str] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in options.models:
            try:
                own = "own" in options.masks
                model = load(
                    name, engine="torch", proposer=options.proposer if own else GIVEN, device=options.device,
                    dtype=options.dtype, threads=options.threads,
                )  # fmt: skip
                for masks in options.masks:
                    for size in options.sizes:
                        for row in measure(model, name, data, masks, size, protocol, bootstrap, progress):
                            rows.append(row)
                            if options.json:
                                values = [_values(row, rows, bootstrap) for row in rows]
                                with replacing(options.json) as file:
                                    file.write((json.dumps(values, indent=2) + "\n").encode())
            except DeopError as error:
                failures.append(f"`{name}`: {error}")
    words = sys.argv[1:] if arguments is None else arguments
    text = report(rows, bootstrap, failures, " ".join(["python", "benchmarks/zoo.py", *map(str, words)]))
    if options.output:
        with replacing(options.output) as file:
            file.write(text.encode())
    else:
        print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DeopError as error:
        raise SystemExit(f"error: {error}") from None

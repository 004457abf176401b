"""``deop evaluate``: how good a model is on a labelled folder."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from deop.cli.console import Debug, say
from deop.errors import SettingError


def evaluate(
    dataset: Annotated[
        Path, typer.Argument(help="A folder with images/, masks/ and classes.json.", show_default=False)
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A name of the zoo, a folder, or a hub repo.")] = "nano",
    split: Annotated[
        str | None, typer.Option(help="val, train...; by default val where there are splits.", show_default=False)
    ] = None,
    proposals: Annotated[
        Literal["model", "oracle"], typer.Option(help="The model's own masks, or the true ones.")
    ] = "model",
    severance: Annotated[
        str | None, typer.Option(help="none, self, gate, affinity...; by default the model's own.", show_default=False)
    ] = None,
    anchors: Annotated[
        str | None, typer.Option(help="decoder or pool; by default the model's own.", show_default=False)
    ] = None,
    classifier: Annotated[Literal["one-pass", "two-stream"], typer.Option(help="How masks are named.")] = "one-pass",
    names: Annotated[
        Literal["all", "present"], typer.Option(help="Ask for all names, or only for those in each photo's truth.")
    ] = "all",
    unseen: Annotated[
        Path | None, typer.Option(help="Names that training did not see, one a line.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first photos.", show_default=False)] = None,
    proposer: Annotated[
        str | None, typer.Option(help="Where masks come from, as for segment.", show_default=False)
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write the results as JSON; '-' prints them.", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; by default a GPU if any.", show_default=False)
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)] = None,
    debug: Debug = False,
) -> None:
    """Name every photo of a data set and compare with its truth.

    IoU is accumulated over the whole set; classes that it does not have are not averaged.
    """
    unseen_names = _read_unseen(unseen)
    from deop.data.folder import open_folder

    data = open_folder(dataset, split)  # before anything slow
    from deop.evaluation.evaluate import Protocol
    from deop.evaluation.evaluate import evaluate as run
    from deop.zoo import GIVEN, load

    protocol = Protocol(proposals, names, severance, classifier, anchors, unseen_names, limit)
    network = load(model, proposer=proposer or (GIVEN if proposals == "oracle" else None), device=device, dtype=dtype)
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("photos")
        found = run(network, data, protocol, lambda done, total: bar.update(task, completed=done, total=total))
    if json_file == "-":
        typer.echo(json.dumps(found))
        return
    if json_file:
        from deop.files import replacing

        with replacing(json_file) as file:
            file.write((json.dumps(found, indent=2) + "\n").encode())
        say(f"wrote {json_file}")
    _print(found)


def _read_unseen(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"cannot read names from {file}: {error}. It must be a text file, one name a line."
        ) from error


def _print(found: dict[str, Any]) -> None:
    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = {
        "mIoU": "miou", "pixel accuracy": "pixel_accuracy", "mean accuracy": "mean_accuracy",
        "region accuracy": "region_accuracy", "seen mIoU": "seen_miou", "unseen mIoU": "unseen_miou", "hIoU": "hiou",
    }  # fmt: skip
    for label, key in rows.items():
        if found[key] is not None:
            table.add_row(label, f"{100 * found[key]:.1f} %")
    table.add_row("photos", f"{found['images']}, {found['seconds_per_image']:.2f} s each")
    console.print(table)
    known = sorted(((value, name) for name, value in found["per_class"].items() if value is not None), reverse=True)
    if len(known) > 1:
        some = min(5, len(known) // 2)
        for label, part in (("best", known[:some]), ("worst", known[: -some - 1 : -1])):
            console.print(
                f"{label}: " + ", ".join(f"{name} {100 * value:.0f}" for value, name in part), highlight=False
            )

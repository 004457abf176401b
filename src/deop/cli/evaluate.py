"""``deop evaluate``: how good a model is on a labelled folder."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from deop.cli.console import Debug, say
from deop.errors import SettingError

if TYPE_CHECKING:
    from deop.data.folder import LabelledFolder
    from deop.evaluation.evaluate import Answer

ASKED, METHOD, RESULTS, MACHINE = "What is asked", "Method", "Results", "Machine"


def _option(*flags: str, help: str, panel: str, default: bool = False, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=panel, show_default=default, **more)


def evaluate(
    context: typer.Context,
    dataset: Annotated[
        Path, typer.Argument(help="A folder with images/, masks/ and classes.json.", show_default=False)
    ],
    model: Annotated[
        str,
        _option("--model", "-m", panel=METHOD, default=True, help="A name of the zoo, a folder, or a hub repo."),
    ] = "nano",
    split: Annotated[
        str | None, _option("--split", panel=ASKED, help="val, train...; by default val where there are splits.")
    ] = None,
    protocol: Annotated[
        Literal["plain", "generalized", "cross-dataset", "with-background"] | None,
        _option(
            "--protocol",
            panel=ASKED,
            help="plain; generalized: seen and unseen names apart; cross-dataset: names that the model "
            "was trained with and new ones apart; with-background: what no name is for is a class more. By default "
            "generalized with --unseen, else plain.",
        ),
    ] = None,
    names: Annotated[
        Literal["all", "present"],
        _option("--names", panel=ASKED, default=True, help="Ask for all names, or only for those in a photo's truth."),
    ] = "all",
    unseen: Annotated[
        Path | None,
        _option(
            "--unseen",
            panel=ASKED,
            help="Names that training did not see, one a line; by default as the data set says.",
        ),
    ] = None,
    background: Annotated[
        str, _option("--background", panel=ASKED, help='Names of what else there is: "road, sky"; they take no pixel.')
    ] = "",
    threshold: Annotated[
        float | None,
        _option(
            "--threshold",
            panel=ASKED,
            min=0,
            max=1,
            help="Pixels that score less get no name; by default 0, and with background the model's own.",
        ),
    ] = None,
    limit: Annotated[int | None, _option("--limit", panel=ASKED, min=1, help="Only the first photos.")] = None,
    skip_broken: Annotated[
        bool,
        _option(
            "--skip-broken", panel=ASKED, help="Leave out what cannot be read or has no mask, instead of refusing."
        ),
    ] = False,
    proposals: Annotated[
        Literal["model", "oracle"],
        _option("--proposals", panel=METHOD, default=True, help="The model's own masks, or the true ones."),
    ] = "model",
    severance: Annotated[
        str | None,
        _option("--severance", panel=METHOD, help="none, self, gate...; by default the model's own."),
    ] = None,
    anchors: Annotated[
        str | None, _option("--anchors", panel=METHOD, help="decoder or pool; by default the model's own.")
    ] = None,
    classifier: Annotated[
        Literal["one-pass", "two-stream"],
        _option("--classifier", panel=METHOD, default=True, help="How masks get names."),
    ] = "one-pass",
    proposer: Annotated[
        str | None, _option("--proposer", panel=METHOD, help="Where masks come from, as for segment.")
    ] = None,
    json_file: Annotated[
        str | None, _option("--json", panel=RESULTS, help="Write the results as JSON; '-' prints them.")
    ] = None,
    report: Annotated[
        Path | None,
        _option("--report", panel=RESULTS, help="Folder to write a page on the results into: index.html."),
    ] = None,
    save_maps: Annotated[
        Path | None,
        _option("--save-maps", panel=RESULTS, help="Folder to write the answers into: PNGs of the data set's ids."),
    ] = None,
    resamples: Annotated[
        int, _option("--resamples", panel=RESULTS, default=True, min=1, help="Draws of photos for the intervals.")
    ] = 1000,
    seed: Annotated[int, _option("--seed", panel=RESULTS, default=True, min=0, help="Of these draws.")] = 0,
    device: Annotated[
        str | None, _option("--device", panel=MACHINE, help="cpu, cuda, mps; by default a GPU if any.")
    ] = None,
    dtype: Annotated[
        str | None, _option("--dtype", panel=MACHINE, help="float32, bfloat16, float16; int8 (CPU).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Name every photo of a data set and compare with its truth.

    IoU is accumulated over the whole set; classes that it does not have are not averaged. Intervals are of a bootstrap
    over the photos.
    """
    held_out = _read_unseen(unseen)
    from deop.data.folder import open_folder

    data = open_folder(dataset, split, skip_unpaired=skip_broken)  # before anything slow
    from deop.evaluation.bootstrap import Bootstrap
    from deop.evaluation.evaluate import evaluate as run
    from deop.evaluation.protocol import Protocol, unseen_names
    from deop.text.vocabulary import Vocabulary
    from deop.zoo import GIVEN, load

    others = Vocabulary.parse(background).texts if background.strip() else ()
    asked = Protocol(
        proposals, names, severance, classifier, anchors, held_out, limit, protocol, threshold, tuple(others)
    )
    unseen_names(data, asked)  # before anything is loaded
    data, left_out = _only_sound(data, limit, skip_broken)
    bootstrap = Bootstrap(resamples, seed=seed)
    network = load(model, proposer=proposer or (GIVEN if proposals == "oracle" else None), device=device, dtype=dtype)
    watchers: list[Callable[[Answer], None]] = []
    gallery = None
    if save_maps:
        watchers.append(lambda answer: answer.space.save(answer.label_map, save_maps / f"{answer.pair.photo.stem}.png"))
    if report:
        from deop.evaluation.gallery import Gallery

        gallery = Gallery()
        watchers.append(gallery.add)

    def watch(answer: "Answer") -> None:
        for watcher in watchers:
            watcher(answer)

    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("photos")
        found = run(
            network,
            data,
            asked,
            lambda done, total: bar.update(task, completed=done, total=total),
            bootstrap=bootstrap,
            watch=watch,
        )
    found["left_out"] = left_out
    if save_maps:
        say(f"wrote {found['images']} label maps to {save_maps}")
    if report and gallery:
        from deop.evaluation.report import write_report

        say(f"wrote {write_report(report, found, gallery, _command(context), device=str(network.device))}")
    if json_file == "-":
        typer.echo(json.dumps(found))
        return
    if json_file:
        from deop.files import replacing

        with replacing(json_file) as file:
            file.write((json.dumps(found, indent=2) + "\n").encode())
        say(f"wrote {json_file}")
    _print(found)


def _only_sound(data: "LabelledFolder", limit: int | None, skip_broken: bool) -> tuple["LabelledFolder", list[str]]:
    """The photos that are asked for, once all of them have been read, and the names of those that cannot be used."""
    from deop.data.check import sound

    some = replace(data, pairs=data.pairs[:limit])
    kept = sound(some, skip_broken)
    left = [*data.unpaired, *(pair.photo for pair in some.pairs if pair not in set(kept.pairs))]
    if left:
        names = ", ".join(path.name for path in left[:3]) + (", ..." if len(left) > 3 else "")
        say(f"left out {len(left)} that cannot be used: {names}; `deop prepare check {data.root}` says why")
    return kept, [path.relative_to(data.root).as_posix() for path in left]


def _read_unseen(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"cannot read names from {file}: {error}. It must be a text file, one name a line."
        ) from error


def _command(context: typer.Context) -> str:
    """The command line that says what was asked for, and nothing that is so by default."""
    words = ["deop", "evaluate"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value is None or value == parameter.default or value is False:
            continue
        words += [str(value)] if parameter.param_type_name == "argument" else [parameter.opts[0], str(value)]
    return shlex.join(words)


_ROWS = {
    "mIoU": "miou", "pixel accuracy": "pixel_accuracy", "mean accuracy": "mean_accuracy",
    "region accuracy": "region_accuracy", "seen mIoU": "seen_miou", "unseen mIoU": "unseen_miou", "hIoU": "hiou",
    "mIoU of names trained with": "trained_names_miou", "mIoU of new names": "new_names_miou",
    "mIoU, absent classes as 0": "miou_absent_as_zero",
    "panoptic quality": "panoptic_quality.pq",
    "masks: average recall at 100": "proposal_quality.average_recall_100",
    "masks: mean best IoU": "proposal_quality.mean_best_iou",
}  # fmt: skip


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for label, key in _ROWS.items():
        part, _, inner = key.rpartition(".")
        value = ((found[part] or {}) if part else found).get(inner)
        if value is not None:
            low, high = found["intervals"].get(key, (None, None))
            between = "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
            table.add_row(label, f"{100 * value:.1f} %", between)
    console.print(table)
    console.print(
        f"{found['images']} photos, {found['seconds_per_image']:.2f} s each; {100 * found['confidence']:g} % intervals "
        f"over photos, {found['resamples']:,} resamples",
        style="dim",
    )
    scores = sorted(((value, name) for name, value in found["per_class"].items() if value is not None), reverse=True)
    if len(scores) > 1:
        some = min(5, len(scores) // 2)
        for label, extreme in (("best", scores[:some]), ("worst", scores[: -some - 1 : -1])):
            console.print(f"{label}: " + ", ".join(f"{name} {100 * value:.0f}" for value, name in extreme))

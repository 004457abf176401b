"""``deop evaluate``: the accuracy of a model on a labelled data set."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from deop.cli import completion
from deop.cli.console import PlainConsole, progress_bar, say
from deop.cli.dataset import PROTOCOL, ClassesJson, Dataset, ImageColumn, MaskColumn
from deop.cli.examples import BankFile, BankWeight, check_examples
from deop.cli.options import (
    METHOD,
    OUTPUT,
    Anchors,
    DataType,
    Debug,
    Device,
    Engine,
    Model,
    Partition,
    Prior,
    Proxy,
    Scores,
    Threads,
    Windows,
    change_settings,
    command_line,
    option,
    parse_windows,
)
from deop.cli.output import write_text
from deop.errors import SettingError
from deop.files import check_writable

if TYPE_CHECKING:
    from deop.data.labelled import LabelledData
    from deop.evaluation.evaluate import EvaluatedPhoto


def evaluate(
    context: typer.Context,
    dataset: Dataset,
    split: Annotated[
        str | None,
        option(
            "--split", metavar="NAME", panel=PROTOCOL,
            help="The split to evaluate, such as train or val. Default: val, if the data set has splits.",
        ),
    ] = None,
    protocol: Annotated[
        Literal["plain", "generalized", "cross-dataset", "with-background"] | None,
        option(
            "--protocol", metavar="PROTOCOL", panel=PROTOCOL,
            help="plain: mIoU of all classes. generalized: seen and unseen classes also separately, and their hIoU. "
            "cross-dataset: classes that the model was trained with and new ones also separately. with-background: "
            "pixels of no class form one more class. Default: generalized with --unseen, else plain.",
        ),
    ] = None,
    names: Annotated[
        Literal["all", "present"],
        option(
            "--names", metavar="WHICH", panel=PROTOCOL, show_default=True,
            help="The names given to the model for each photo: all, or only those present in its ground truth.",
        ),
    ] = "all",
    unseen: Annotated[
        Path | None,
        option(
            "--unseen", metavar="FILE", panel=PROTOCOL,
            help="Text file with the classes not seen in training, one name per line. Default: those marked in "
            "classes.json.",
        ),
    ] = None,
    background: Annotated[
        str,
        option(
            "--background", metavar="NAMES", panel=PROTOCOL,
            help='Additional names, such as "road, sky". Their pixels are left without a name.',
        ),
    ] = "",
    bank: BankFile = None,
    bank_weight: BankWeight = None,
    image_column: ImageColumn = None,
    mask_column: MaskColumn = None,
    classes_json: ClassesJson = None,
    threshold: Annotated[
        float | None,
        option(
            "--threshold", metavar="SCORE", panel=PROTOCOL, min=0, max=1,
            help="Minimum score: pixels below it get no name. Default: 0; with-background: the model's setting.",
        ),
    ] = None,
    limit: Annotated[
        int | None, option("--limit", metavar="N", panel=PROTOCOL, min=1, help="Evaluate only the first N photos.")
    ] = None,
    skip_broken: Annotated[
        bool,
        option(
            "--skip-broken", panel=PROTOCOL,
            help="Skip photos that cannot be read or have no mask. Default: stop before the first photo.",
        ),
    ] = False,
    model: Model = "nano",
    proposals: Annotated[
        Literal["model", "oracle"],
        option(
            "--proposals", metavar="KIND", panel=METHOD, show_default=True,
            help="model: proposed masks. oracle: the ground-truth masks, which measures the naming alone.",
        ),
    ] = "model",
    proposer: Annotated[
        str | None,
        option(
            "--proposer", metavar="MODEL", panel=METHOD,
            help="The network that proposes masks, as in `deop segment`. Default: the model's own.",
        ),
    ] = None,
    severance: Annotated[
        str | None,
        option(
            "--severance", metavar="NAME[,NAME...]", panel=METHOD, autocompletion=completion.severances,
            help="How attention is severed, as in `deop segment`. Several, separated by commas, are compared with the "
            "first. Default: the model's setting.",
        ),
    ] = None,
    proxy: Proxy = None,
    windows: Windows = None,
    partition: Partition = None,
    prior: Prior = None,
    scores: Scores = None,
    anchors: Anchors = None,
    classifier: Annotated[
        Literal["one-pass", "two-stream"],
        option(
            "--classifier", metavar="KIND", panel=METHOD, show_default=True,
            help="one-pass, or two-stream: the baseline, which crops and encodes every mask separately.",
        ),
    ] = "one-pass",
    json_file: Annotated[
        str | None,
        option(
            "--json", metavar="FILE", panel=OUTPUT,
            help="Write the results as JSON; '-' writes to standard output, instead of the table.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        option("--report", metavar="DIR", panel=OUTPUT, help="Write a web page with the results: DIR/index.html."),
    ] = None,
    save_maps: Annotated[
        Path | None,
        option(
            "--save-maps", metavar="DIR", panel=OUTPUT,
            help="Write the predicted label map of each photo as a PNG with the ids of classes.json.",
        ),
    ] = None,
    resamples: Annotated[
        int,
        option(
            "--resamples", metavar="N", panel=OUTPUT, show_default=True, min=1,
            help="Number of bootstrap resamples for the confidence intervals.",
        ),
    ] = 1000,
    seed: Annotated[
        int,
        option("--seed", metavar="N", panel=OUTPUT, show_default=True, min=0, help="Random seed of the resamples."),
    ] = 0,
    engine: Engine = None,
    device: Device = None,
    dtype: DataType = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Evaluate a model on a labelled data set.

    IoU is accumulated over the whole data set; classes that are absent from it do not count in the means. Confidence
    intervals are computed by a bootstrap over the photos.
    """
    unseen_classes = _read_unseen(unseen)
    settings: dict[str, Any] = {"windows": parse_windows(windows), "partition": partition, "prior": prior}
    compared = [name.strip() for name in severance.split(",")] if severance and "," in severance else []
    if compared and (report or save_maps):
        raise SettingError(f"--{'report' if report else 'save-maps'} needs a single severance: give one, or omit it")
    check_examples(bank, bank_weight, None)
    from deop.data.source import open_data

    data = open_data(  # checked before anything slow
        dataset, split, skip_unpaired=skip_broken, classes=classes_json, image_column=image_column,
        mask_column=mask_column,
    )  # fmt: skip
    from deop.evaluation.bootstrap import Bootstrap
    from deop.evaluation.evaluate import evaluate as run
    from deop.evaluation.protocol import Protocol, unseen_names
    from deop.evaluation.uncounted import describe_uncounted
    from deop.runtime.engine import GIVEN, engine_for
    from deop.text.vocabulary import Vocabulary
    from deop.zoo import load

    examples = None
    if bank is not None:
        from deop.bank import load_bank

        examples = load_bank(bank)
    requested = Protocol(
        proposals=proposals,
        names=names,
        severance=None if compared else severance,
        classifier=classifier,
        anchors=anchors,
        unseen=unseen_classes,
        limit=limit,
        kind=protocol,
        threshold=threshold,
        background=tuple(Vocabulary.parse(background).texts) if background.strip() else (),
        bank=examples,
        bank_weight=bank_weight,
    )
    unseen_names(data, requested)  # checked before the model is loaded
    data, skipped = _readable(data, limit, skip_broken, counted=(0,) if requested.kind == "with-background" else ())
    bootstrap = Bootstrap(resamples, seed=seed)
    folders = [folder / "0.png" for folder in (report, save_maps) if folder]
    check_writable([*folders, *([json_file] if json_file and json_file != "-" else [])])
    if report:
        from deop.evaluation.gallery import Gallery
        from deop.evaluation.report import load_template, write_report

        load_template()  # a library that is missing is named before the model is loaded
    network = load(
        model,
        engine=engine or engine_for(model, severance, anchors, classifier, proxy=proxy, **settings),
        proposer=proposer or (GIVEN if proposals == "oracle" else None),
        proxy=proxy,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    change_settings(network, scores=scores, **settings)
    if compared:
        from deop.evaluation.comparison import compare_severances

        with progress_bar() as advance:
            rows = compare_severances(network, data, requested, compared, advance, bootstrap=bootstrap)
        if json_file and json_file != "-":
            write_text(json_file, json.dumps(rows, indent=2))
        _print_comparison(rows) if json_file != "-" else typer.echo(json.dumps(rows))
        return
    watchers: list[Callable[[EvaluatedPhoto], None]] = []
    gallery = None
    if save_maps:
        watchers.append(lambda photo: photo.space.save(photo.label_map, save_maps / f"{photo.pair.key}.png"))
    if report:
        gallery = Gallery()
        watchers.append(gallery.add)

    def watch(photo: "EvaluatedPhoto") -> None:
        for watcher in watchers:
            watcher(photo)

    with progress_bar() as advance:
        result = run(network, data, requested, advance, bootstrap=bootstrap, watch=watch)
    result["left_out"] = skipped
    for line in describe_uncounted(result):
        say(line, style="yellow")
    if data.left_out:
        from deop.images.collection import describe_left_out

        say(describe_left_out(data.left_out), style="dim")
    if save_maps:
        say(f"wrote {result['images']} label maps to {save_maps}")
    if report and gallery:
        page = write_report(report, result, gallery, command_line(context), device=str(network.device))
        say(f"wrote {page}")
    if json_file == "-":
        typer.echo(json.dumps(result))
        return
    if json_file:
        write_text(json_file, json.dumps(result, indent=2))
    _print(result)


def _readable(
    data: "LabelledData", limit: int | None, skip_broken: bool, counted: tuple[int, ...]
) -> tuple["LabelledData", list[str]]:
    """The first ``limit`` photos that can be read, and the relative paths of the files that are skipped."""
    from deop.data.check import checked_folder

    requested = replace(data, pairs=data.pairs[:limit])
    readable = checked_folder(requested, skip_broken, counted=counted)
    kept = set(readable.pairs)
    skipped = [
        *(data.display(entry.path) for entry in data.unpaired),
        *(data.display(pair.photo) for pair in requested.pairs if pair not in kept),
    ]
    if skipped:
        names = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        check = shlex.join(["deop", "prepare", "check", str(data.root)])
        say(f"skipped {len(skipped)} files that cannot be used: {names}. For the reasons, run:\n  {check}")
    return readable, skipped


def _read_unseen(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    from deop.files import read_names

    return tuple(read_names(file))


_ROWS = {
    "mIoU": "miou", "pixel accuracy": "pixel_accuracy", "mean accuracy": "mean_accuracy",
    "region accuracy": "region_accuracy", "seen mIoU": "seen_miou", "unseen mIoU": "unseen_miou", "hIoU": "hiou",
    "mIoU of trained names": "trained_names_miou", "mIoU of new names": "new_names_miou",
    "mIoU, absent classes count 0": "miou_absent_as_zero",
    "panoptic quality": "panoptic_quality.pq",
    "panoptic quality of things": "panoptic_quality.pq_things",
    "average precision of things": "instance_quality.ap",
    "masks: average recall at 100": "proposal_quality.average_recall_100",
    "masks: mean best IoU": "proposal_quality.mean_best_iou",
}  # fmt: skip


def _print(scores: dict[str, Any]) -> None:
    console = PlainConsole()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for label, key in _ROWS.items():
        group, _, name = key.rpartition(".")
        value = ((scores[group] or {}) if group else scores).get(name)
        if value is not None:
            low, high = scores["intervals"].get(key, (None, None))
            interval = "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
            table.add_row(label, f"{100 * value:.1f} %", interval)
    console.print(table)
    console.print(
        f"{scores['images']} photo{'s' * (scores['images'] != 1)}, {scores['seconds_per_image']:.2f} s per photo; "
        f"{100 * scores['confidence']:g} % confidence intervals from {scores['resamples']:,} resamples of the photos",
        style="dim",
    )
    classes = sorted(((iou, name) for name, iou in scores["per_class"].items() if iou is not None), reverse=True)
    if len(classes) > 1:
        count = min(5, len(classes) // 2)
        for label, extreme in (("best IoU", classes[:count]), ("worst IoU", classes[: -count - 1 : -1])):
            console.print(f"{label}: " + ", ".join(f"{name} {100 * iou:.0f}" for iou, name in extreme))


def _print_comparison(rows: list[dict[str, Any]]) -> None:
    """Each severance's scores, and the difference of its mIoU to the first's."""
    console = PlainConsole()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Severance", no_wrap=True)
    for name in ("mIoU", "difference", "interval", "pixels", "s per photo"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        gain, interval = row["difference"]["miou"]["gain"], row["difference"]["miou"]["interval"]
        cells = [row["severance"], f"{100 * row['miou']:.1f}", "", ""]
        if row is not rows[0]:
            cells[2] = f"{100 * gain:+.1f}"
            if interval:
                cells[3] = f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
                cells[3] += " *" if interval[0] > 0 or interval[1] < 0 else "  "
        table.add_row(*cells, f"{100 * row['pixel_accuracy']:.1f}", f"{row['seconds_per_image']:.2f}")
    console.print(table)
    console.print(
        f"{rows[0]['images']} photos; differences to the first row, with {100 * rows[0]['confidence']:g} % intervals "
        "from the same resamples of the photos for all rows; * the interval excludes 0",
        style="dim",
    )

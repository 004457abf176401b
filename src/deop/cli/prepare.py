"""``deop prepare``: turn public data sets into labelled data sets; check and pack labelled data sets."""

import json
import os
import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from deop.cli.console import PlainConsole, progress_bar, say
from deop.cli.dataset import ClassesJson, Dataset, ImageColumn, MaskColumn
from deop.cli.options import Debug, option
from deop.data.official import PUBLIC_SETS, PublicSet
from deop.errors import SettingError

_SHOWN = 8  # findings of one kind in the table
_HELP = "Convert public data sets to deop's format, or check or pack a labelled data set."

prepare = typer.Typer(
    help=_HELP,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@prepare.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the public data sets and their numbers of photos.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print one JSON object per data set.")] = False,
) -> None:
    """Convert public data sets to deop's format, or check or pack a labelled data set."""
    if context.invoked_subcommand:
        return
    if not list_all:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    if as_json:
        for entry in PUBLIC_SETS.values():
            typer.echo(
                json.dumps(
                    {"name": entry.name, "title": entry.title, "photos": dict(entry.photos), "files": _files(entry)}
                )
            )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", no_wrap=True, style="cyan")
    table.add_column("Data set")
    table.add_column("Train", justify="right", no_wrap=True)
    table.add_column("Val", justify="right", no_wrap=True)
    for entry in PUBLIC_SETS.values():
        table.add_row(
            entry.name, entry.title, *(f"{entry.photos[split]:,}" if entry.photos else "" for split in ("train", "val"))
        )
    console = PlainConsole()
    console.print(table)
    console.print("\nTo list the official files that are missing in DIR, with their addresses, run:")
    console.print("  deop prepare NAME DIR", soft_wrap=True)


def _files(public: PublicSet) -> dict[str, str]:
    """Names of the official files and the addresses they are published at."""
    parts = [part for split in public.splits for part in public.required(split).values()]
    return {part.source.name: part.source.url for part in parts}


@prepare.command(no_args_is_help=True)
def check(
    dataset: Dataset,
    split: Annotated[str | None, option("--split", metavar="NAME", help="The split to check. Default: all.")] = None,
    image_column: ImageColumn = None,
    mask_column: MaskColumn = None,
    classes_json: ClassesJson = None,
    void: Annotated[
        str,
        option("--void", metavar="IDS", help="Mask ids to ignore in addition to 0 and 255, such as '11' or '11,12'."),
    ] = "",
    workers: Annotated[
        int | None, option("--workers", metavar="N", min=1, help="Number of threads. Default: one per core.")
    ] = None,
    as_json: Annotated[bool, option("--json", help="Print one JSON object with all findings.")] = False,
    debug: Debug = False,
) -> None:
    """Check a labelled data set: read all photos and masks and list the faulty files.

    The exit code is 0 if there are no findings, else 1.
    """
    from deop.data.check import survey
    from deop.data.source import open_data, splits_of
    from deop.images.collection import describe_left_out

    try:
        ignored = [int(part) for part in void.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{void!r}: give whole numbers separated by commas", param_hint="--void") from None
    reports: dict[str, dict[str, Any]] = {}
    summaries: dict[str, str] = {}
    with progress_bar() as progress:
        for name in (split,) if split else splits_of(dataset):
            folder = open_data(
                dataset, name, skip_unpaired=True, classes=classes_json, image_column=image_column,
                mask_column=mask_column,
            )  # fmt: skip
            survey_result = survey(folder, void=ignored, workers=workers, progress=progress)
            reports[name or "all"] = {
                "photos": survey_result.photos,
                "classes": len(folder.classes),
                "findings": [asdict(finding) for finding in survey_result.findings],
                "never_present": _absent_classes(folder.classes, survey_result.present),
                "without_classes": survey_result.without_classes(folder),
                "left_out": [{"file": str(entry.path), "reason": entry.reason} for entry in folder.left_out],
            }
            summaries[name or "all"] = describe_left_out(folder.left_out)
    count = sum(len(report["findings"]) for report in reports.values())
    if as_json:
        typer.echo(json.dumps({"folder": str(dataset), "ok": not count, "splits": reports}))
    else:
        _show(reports, summaries)
    if count:
        raise typer.Exit(1)


@prepare.command(no_args_is_help=True)
def pack(
    dataset: Dataset,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The file to write, .parquet or .tar; with {} for a number, several files: 'packed/train-{}.tar'.",
            show_default=False,
        ),
    ],
    split: Annotated[
        str | None,
        option("--split", metavar="NAME", help="The split to pack. Required if the data set has splits."),
    ] = None,
    shard_mb: Annotated[
        float,
        option("--shard-mb", metavar="MB", show_default=True, help="The size of a file, if there are several."),
    ] = 256,
    skip_broken: Annotated[
        bool, option("--skip-broken", help="Leave out photos that cannot be read or have no mask.")
    ] = False,
    image_column: ImageColumn = None,
    mask_column: MaskColumn = None,
    classes_json: ClassesJson = None,
    debug: Debug = False,
) -> None:
    """Pack a labelled data set into Parquet files or WebDataset's tar files.

    Photos and masks are copied byte for byte, and classes.json is written beside the files.
    """
    from deop.data.check import checked_folder
    from deop.data.pack import pack as write
    from deop.data.source import open_data, splits_of

    if split is None and (splits := [name for name in splits_of(dataset) if name]):
        raise SettingError(f"{dataset} has the splits {', '.join(splits)}: give --split")
    data = open_data(
        dataset, split, skip_unpaired=skip_broken, classes=classes_json, image_column=image_column,
        mask_column=mask_column,
    )  # fmt: skip
    data = checked_folder(data, skip_broken, warn=True)
    with progress_bar() as progress:
        packed = write(data, out, shard_mb=shard_mb, progress=progress)
    if isinstance(data.root, Path) and (data.root / "panoptic.json").is_file():
        say("the panoptic ground truth is not packed: panoptic quality needs the folder", style="yellow")
    more = f" and {len(packed.files) - 1:,} more files" if len(packed.files) > 1 else ""
    say(f"packed {packed.photos:,} photos into {packed.files[0]}{more}, with {packed.classes}")


def _absent_classes(classes: Any, present: dict[str, tuple[int, ...]]) -> list[str]:
    """Names of the classes that no mask contains."""
    present_ids = {class_id for ids in present.values() for class_id in ids}
    return [entry.name for entry in classes if entry.id not in present_ids]


def _show(reports: dict[str, dict[str, Any]], left_out: dict[str, str]) -> None:
    console = PlainConsole()
    for name, report in reports.items():
        findings = report["findings"]
        console.print(
            f"{name}: {report['photos']:,} photo{'s' * (report['photos'] != 1)}, {report['classes']} classes, "
            + (f"{len(findings):,} finding{'s' * (len(findings) > 1)}" if findings else "no findings")
        )
        if findings:
            table = Table(box=None, pad_edge=False, header_style="bold")
            table.add_column("Finding", no_wrap=True, style="red")
            table.add_column("File", overflow="fold")
            table.add_column("Details")
            counts: Counter[str] = Counter()
            for finding in findings:
                counts[finding["kind"]] += 1
                if counts[finding["kind"]] <= _SHOWN:
                    table.add_row(finding["kind"], finding["file"], finding["detail"])
            console.print(table)
            for kind, count in counts.items():
                if count > _SHOWN:
                    console.print(f"{kind}: {count - _SHOWN:,} more; --json lists all")
        if any(finding["kind"] == "unlisted id" for finding in findings):
            console.print("If ids are unlisted on purpose, name them with --void.")
        if empty := report["without_classes"]:
            shown = ", ".join(empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
            console.print(f"photos without a pixel of any class: {len(empty):,} ({shown})")
        if left_out[name]:
            console.print(left_out[name], style="dim")


def _add(public: PublicSet) -> None:
    """Add the command of a public data set."""
    splits = " or ".join(public.splits)
    published = "\n\n".join(f"{name}: {url}" for name, url in _files(public).items())

    @prepare.command(public.name, help=f"{public.title}.\n\n{published}", short_help=public.title, no_args_is_help=True)
    def command(
        source: Annotated[
            Path,
            typer.Argument(
                metavar="DIR", help="The directory with the unpacked official files; only read.", show_default=False
            ),
        ],
        out: Annotated[
            Path | None, option("--out", metavar="DIR", help=f"The directory to write. Default: {public.name}/.")
        ] = None,
        split: Annotated[
            str | None,
            option("--split", metavar="NAME", help=f"The split to convert: {splits}. Default: all."),
        ] = None,
        names: Annotated[
            Literal["authors", "plain"],
            option(
                "--names", metavar="SPELLING", show_default=True,
                help="authors: class names as the authors spell them. plain: as ordinary words, with synonyms.",
            ),
        ] = "authors",
        partial: Annotated[
            bool, option("--partial", help="Accept fewer photos than the official data set has.")
        ] = False,
        skip_broken: Annotated[bool, option("--skip-broken", help="Skip official files that cannot be read.")] = False,
        copy: Annotated[bool, option("--copy", help="Copy the photos instead of linking to them.")] = False,
        workers: Annotated[
            int | None, option("--workers", metavar="N", min=1, help="Number of processes. Default: one per core.")
        ] = None,
        as_json: Annotated[bool, option("--json", help="Print one JSON object.")] = False,
        debug: Debug = False,
    ) -> None:  # fmt: skip
        from deop.data.prepare import missing, prepare

        target = out or Path(public.name)
        known_splits = (split,) if split in public.splits else None
        if source.is_dir() and (missing_files := missing(public.name, source, known_splits)):
            if as_json:
                rows = [
                    {"path": part.paths[0], "file": part.source.name, "url": part.source.url} for part in missing_files
                ]
                typer.echo(json.dumps({"data_set": public.name, "ok": False, "missing": rows}))
            else:
                _show_missing(public, source, missing_files)
            raise typer.Exit(1)
        with progress_bar(public.name) as progress:
            prepared = prepare(
                public.name, source, target, splits=(split,) if split else None, names=names, partial=partial,
                skip_broken=skip_broken, copy=copy, workers=workers or os.cpu_count() or 1, progress=progress,
            )  # fmt: skip
        if as_json:
            typer.echo(
                json.dumps(
                    {
                        "data_set": public.name,
                        "ok": True,
                        "folder": str(prepared.folder),
                        "photos": prepared.photos,
                        "made": prepared.written,
                        "left_out": prepared.left_out,
                    }
                )
            )
            return
        for problem in prepared.left_out:
            say(f"skipped: {problem}", style="yellow")
        counts = ", ".join(f"{count:,} {name}" for name, count in prepared.photos.items())
        check_command = shlex.join(["deop", "prepare", "check", str(target)])
        say(f"{target}: {counts}; {prepared.written:,} new masks. To check the data set, run:\n  {check_command}")


def _show_missing(public: PublicSet, source: Path, missing_files: Any) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"Missing in {source}", overflow="fold")
    table.add_column("Part of", overflow="fold")
    for part in missing_files:
        table.add_row(part.paths[0], part.source.name)
    console = PlainConsole(stderr=True)
    console.print(table)
    for name, url in {part.source.name: part.source.url for part in missing_files}.items():
        say(f"  {name}: {url}")
    say(f"error: {public.name} is incomplete in {source}: download these files and unpack them there", style="red")


for _entry in PUBLIC_SETS.values():
    _add(_entry)

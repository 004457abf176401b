"""``deop prepare``: public data sets into labelled folders, and labelled folders checked."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deop.cli.console import Debug, say
from deop.data.official import PUBLIC_SETS, PublicSet

_SHOWN = 8  # files of one kind in the table

prepare = typer.Typer(
    help="Make labelled folders of public data sets, or check one.",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@prepare.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    list_all: Annotated[bool, typer.Option("--list", help="List the data sets and how many photos they have.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: one JSON object for each data set.")] = False,
) -> None:
    """Make labelled folders of public data sets, or check one."""
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
    table.add_column("What it is")
    table.add_column("Train", justify="right", no_wrap=True)
    table.add_column("Val", justify="right", no_wrap=True)
    for entry in PUBLIC_SETS.values():
        table.add_row(
            entry.name, entry.title, *(f"{entry.photos[split]:,}" if entry.photos else "" for split in ("train", "val"))
        )
    console = Console()
    console.print(table)
    console.print(
        "\ndeop prepare NAME DIR says which official files are missing in DIR, and where they are published.",
        soft_wrap=True,
    )


def _files(public: PublicSet) -> dict[str, str]:
    """Names of the published files, and where they are."""
    parts = [part for split in public.splits for part in public.needed(split).values()]
    return {part.source.name: part.source.url for part in parts}


@prepare.command(no_args_is_help=True)
def check(
    dataset: Annotated[
        Path, typer.Argument(help="A folder with images/, masks/ and classes.json.", show_default=False)
    ],
    split: Annotated[str | None, typer.Option(help="Only this one.", show_default=False)] = None,
    void: Annotated[
        str, typer.Option(help="Ids that are meant to be ignored, beside 0 and 255: '11' or '11,12'.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; by default all processors.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every file.")] = False,
    debug: Debug = False,
) -> None:
    """Read every photo and every mask of a folder and say what is wrong, with file names.

    Ends with 0 where all is well, else with 1.
    """
    from deop.data.check import survey
    from deop.data.folder import open_folder, splits_of

    try:
        ignored = [int(part) for part in void.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{void!r}: give whole numbers divided by commas", param_hint="--void") from None
    answers: dict[str, dict[str, Any]] = {}
    with _bar("photos") as progress:
        for name in (split,) if split else splits_of(dataset):
            folder = open_folder(dataset, name, skip_unpaired=True)
            found = survey(folder, void=ignored, workers=workers, progress=progress)
            answers[name or "all"] = {
                "photos": found.photos,
                "classes": len(folder.classes),
                "findings": [asdict(finding) for finding in found.findings],
                "never_present": _never_present(folder.classes, found.present),
            }
    wrong = sum(len(answer["findings"]) for answer in answers.values())
    if as_json:
        typer.echo(json.dumps({"folder": str(dataset), "ok": not wrong, "splits": answers}))
    else:
        _show(answers)
    if wrong:
        raise typer.Exit(1)


def _never_present(classes: Any, present: dict[str, tuple[int, ...]]) -> list[str]:
    met = {label for ids in present.values() for label in ids}
    return [entry.name for entry in classes if entry.id not in met]


def _show(answers: dict[str, dict[str, Any]]) -> None:
    console = Console()
    for name, answer in answers.items():
        findings = answer["findings"]
        console.print(
            f"{name}: {answer['photos']:,} photos, {answer['classes']} classes, "
            + (f"{len(findings):,} finding{'s' * (len(findings) > 1)}" if findings else "nothing wrong"),
            highlight=False,
        )
        if findings:
            table = Table(box=None, pad_edge=False, header_style="bold")
            table.add_column("Finding", no_wrap=True, style="red")
            table.add_column("File", overflow="fold")
            table.add_column("What")
            shown: Counter[str] = Counter()
            for finding in findings:
                shown[finding["kind"]] += 1
                if shown[finding["kind"]] <= _SHOWN:
                    table.add_row(finding["kind"], escape(finding["file"]), escape(finding["detail"]))
            console.print(table)
            for kind, count in shown.items():
                if count > _SHOWN:
                    console.print(f"{kind}: {count - _SHOWN:,} more; --json lists all", highlight=False)
        if any(finding["kind"] == "unlisted id" for finding in findings):
            console.print("Ids that are meant to be ignored are named with --void.", highlight=False)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _add(public: PublicSet) -> None:
    """The command of one data set."""
    published = "\n\n".join(f"{name}: {url}" for name, url in _files(public).items())

    @prepare.command(public.name, help=f"{public.title}.\n\n{published}", short_help=public.title, no_args_is_help=True)
    def command(
        source: Annotated[
            Path,
            typer.Argument(
                metavar="DIR", help="Where the official files are unpacked; never written to.", show_default=False
            ),
        ],
        out: Annotated[
            Path | None,
            typer.Option(help="The folder to make; by default one of the data set's name here.", show_default=False),
        ] = None,
        split: Annotated[
            str | None, typer.Option(help=f"Only one of {', '.join(public.splits)}.", show_default=False)
        ] = None,
        names: Annotated[
            Literal["authors", "plain"], typer.Option(help="Spellings: the authors', or words with synonyms.")
        ] = "authors",
        partial: Annotated[bool, typer.Option("--partial", help="Go on with fewer photos than are published.")] = False,
        skip_broken: Annotated[
            bool, typer.Option("--skip-broken", help="Leave out official files that cannot be read.")
        ] = False,
        copy: Annotated[bool, typer.Option("--copy", help="Copy photos instead of linking them.")] = False,
        workers: Annotated[
            int | None, typer.Option(min=1, help="Processes; by default all processors.", show_default=False)
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
        debug: Debug = False,
    ) -> None:
        from deop.data.prepare import missing, prepare

        target = out or Path(public.name)
        splits = (split,) if split in public.splits else None
        if source.is_dir() and (lacking := missing(public.name, source, splits)):
            if as_json:
                rows = [{"path": part.paths[0], "file": part.source.name, "url": part.source.url} for part in lacking]
                typer.echo(json.dumps({"data_set": public.name, "ok": False, "missing": rows}))
            else:
                _show_missing(public, source, lacking)
            raise typer.Exit(1)
        with _bar(public.name) as progress:
            made = prepare(
                public.name, source, target, splits=(split,) if split else None, names=names, partial=partial,
                skip_broken=skip_broken, copy=copy, workers=workers or os.cpu_count() or 1, progress=progress,
            )  # fmt: skip
        if as_json:
            typer.echo(
                json.dumps(
                    {
                        "data_set": public.name,
                        "ok": True,
                        "folder": str(made.folder),
                        "photos": made.photos,
                        "made": made.made,
                        "left_out": made.left_out,
                    }
                )
            )
            return
        for problem in made.left_out:
            say(f"left out: {problem}", style="yellow")
        counts = ", ".join(f"{count:,} {name}" for name, count in made.photos.items())
        say(f"{target}: {counts}; {made.made:,} masks written now. deop prepare check {target} reads them all.")


def _show_missing(public: PublicSet, source: Path, lacking: Any) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"Missing in {escape(str(source))}", overflow="fold")
    table.add_column("Comes from", overflow="fold")
    for part in lacking:
        table.add_row(escape(part.paths[0]), escape(part.source.name))
    console = Console(stderr=True)
    console.print(table)
    for name, url in {part.source.name: part.source.url for part in lacking}.items():
        say(f"  {name}: {url}")
    say(f"error: {public.name} is not complete in {source}: fetch and unpack these there", style="red")


for _entry in PUBLIC_SETS.values():
    _add(_entry)

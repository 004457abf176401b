"""``deop batch``: any number of photos, on disk or in object stores, into Parquet files; a killed batch resumes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deop.cli.console import progress_bar, say
from deop.cli.examples import bank_options, check_examples
from deop.cli.options import (
    Anchors,
    Debug,
    EngineDataType,
    EngineDevice,
    Model,
    Partition,
    Prior,
    Proposer,
    Proxy,
    Severance,
    SmallestRegion,
    Threads,
    Windows,
    batch_option,
    option,
    parse_windows,
    quiet_option,
)
from deop.cli.output_options import PictureOptions
from deop.cli.segment_options import NameOptions
from deop.cli.streams import STREAM
from deop.errors import SettingError

if TYPE_CHECKING:
    from deop.batch.job import BatchOptions, BatchResult, Progress

SHARDS, WORKERS = "Shards", "Workers"
"""Titles of panels."""

_LINE_SECONDS = 60.0
"""Seconds between lines about the progress where there is no terminal."""


@dataclass(frozen=True)
class ShardOptions:
    """Which photos are read, and what is stored of each."""

    column: Annotated[
        str | None,
        option(
            "--column", metavar="NAME", panel=SHARDS,
            help="Of Parquet files: the column with the paths, or the bytes, of images. Default: image, path, url or "
            "file, if there is one.",
        ),
    ] = None  # fmt: skip
    masks: Annotated[
        Literal["rle", "png", "both"],
        option(
            "--masks", metavar="FORM", panel=SHARDS,
            help="How masks are stored: rle (COCO's RLE of each segment), png (a label map with a palette) or both. "
            "Default: rle.",
        ),
    ] = "rle"  # fmt: skip
    shards: Annotated[
        int | None,
        option("--shards", metavar="N", panel=SHARDS, min=1,
               help="Number of files to write. Default: files of up to 1,000 photos; of tar files, one for each."),
    ] = None  # fmt: skip
    limit: Annotated[
        int | None, option("--limit", metavar="N", panel=SHARDS, min=1, help="Segment the first N photos only.")
    ] = None
    dry_run: Annotated[
        bool, option("--dry-run", panel=SHARDS, help="List and divide the input, and write nothing.")
    ] = False
    overwrite: Annotated[
        bool,
        option("--overwrite", panel=SHARDS, help="Delete the results of a batch with other settings in OUTPUT."),
    ] = False
    retry_failed: Annotated[
        bool,
        option("--retry-failed", panel=SHARDS, help="Try photos again that have an error from an earlier run."),
    ] = False


@dataclass(frozen=True)
class WorkerSettings:
    """What computes."""

    workers: Annotated[
        int | None,
        option("--workers", metavar="N", panel=WORKERS, min=1,
               help="Number of worker processes. Default: one per core of the CPU; with --device cuda, one per GPU."),
    ] = None  # fmt: skip
    engine: Annotated[
        Literal["local", "ray"],
        option("--engine", metavar="ENGINE", panel=WORKERS,
               help="local: worker processes of this machine. ray: those of a Ray cluster. Default: local."),
    ] = "local"  # fmt: skip
    runtime: Annotated[
        Literal["onnx", "torch"] | None,
        option("--runtime", metavar="RUNTIME", panel=WORKERS,
               help="onnx (ONNX Runtime) or torch. Default: onnx if the model has ONNX graphs, as nano does."),
    ] = None  # fmt: skip
    batch: Annotated[int | None, batch_option(WORKERS)] = None
    timeout: Annotated[
        float,
        option("--timeout", metavar="SECONDS", panel=WORKERS, min=1,
               help="A worker that does not answer for so long is replaced. Default: 300."),
    ] = 300.0  # fmt: skip
    quiet: Annotated[bool, quiet_option(WORKERS)] = False


@dataclass(frozen=True)
class BatchMethod:
    """The model and its method."""

    model: Model = "nano"
    proposer: Proposer = None
    severance: Severance = None
    proxy: Proxy = None
    windows: Windows = None
    partition: Partition = None
    prior: Prior = None
    anchors: Anchors = None
    smallest_region: SmallestRegion = None


def batch(
    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A directory, a pattern such as 'photos/*.jpg', a list (.txt, one path per line), Parquet files, or "
            "WebDataset's tar files ('shards/{0000..0099}.tar'); on disk or at an address such as s3://bucket/photos.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="The directory of the results, on disk or at an address.",
                       show_default=False),
    ],
    names: NameOptions,
    shards: ShardOptions,
    workers: WorkerSettings,
    method: BatchMethod,
    device: EngineDevice = None,
    dtype: EngineDataType = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Segment any number of photos into Parquet files with one row per photo.

    A batch that was interrupted or killed resumes when its command is repeated: each photo is in the results once. A
    photo that cannot be read has a row with an error; the exit code is then 1.
    """
    if names.classes_file == STREAM:
        raise SettingError("--classes-file - does not apply to batches, which must be repeatable: give a file")
    from deop.batch.run import run_batch

    options = _options(input, output, names, shards, workers, method, device, dtype, threads)
    if shards.dry_run:
        _describe(options)
        return
    with _progress(visible=not workers.quiet) as report:
        result = run_batch(options, report)
    if not workers.quiet:
        _report(result)
    if result.statistics.failed:
        raise typer.Exit(1)


def _options(
    input: str,
    output: str,
    names: NameOptions,
    shards: ShardOptions,
    workers: WorkerSettings,
    method: BatchMethod,
    device: str | None,
    dtype: str | None,
    threads: int | None,
) -> "BatchOptions":
    """The batch that a command line describes; its names and settings are checked before a worker is started."""
    from deop.batch.job import BatchOptions
    from deop.batch.worker import WorkerOptions
    from deop.cli.segment import requested_names
    from deop.runtime.engine import engine_for
    from deop.text.thresholds import Thresholds
    from deop.text.vocabulary import Vocabulary

    requested = requested_names(names, PictureOptions())
    vocabulary = Vocabulary.parse(requested, background=names.background, things=names.things)
    vocabulary.check_mode(names.mode, warn=False)
    Thresholds.parse(names.threshold).values(vocabulary, 0)
    check_examples(names.bank, names.bank_weight, names.example)
    encoding: dict[str, Any] = {"severance": method.severance, "anchors": method.anchors}
    settings: dict[str, Any] = {
        "windows": parse_windows(method.windows), "partition": method.partition, "prior": method.prior,
    }  # fmt: skip
    engine = engine_for(method.model, **encoding, classifier="one-pass", proxy=method.proxy, **settings)
    load = {
        "engine": workers.runtime or engine,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        **({} if method.proposer is None else {"proposer": method.proposer}),
        **({} if method.proxy is None else {"proxy": method.proxy}),
    }
    settings["smallest_region"] = method.smallest_region
    return BatchOptions(
        input,
        output,
        WorkerOptions(
            method.model,
            load,
            requested,
            {"background": names.background, "things": names.things, **_bank_options(method.model, load, names)},
            encoding,
            names.mode,
            names.threshold,
            shards.masks,
            workers.batch,
            settings={name: value for name, value in settings.items() if value is not None},
        ),
        column=shards.column,
        limit=shards.limit,
        shards=shards.shards,
        workers=workers.workers,
        engine=workers.engine,
        overwrite=shards.overwrite,
        retry_failed=shards.retry_failed,
        timeout=workers.timeout,
    )


def _bank_options(model: str, load: dict[str, Any], names: NameOptions) -> dict[str, Any]:
    """The examples for the workers; those of photos are learned here, once."""
    if not names.example:
        from deop.bank import load_bank

        bank = None if names.bank is None else load_bank(names.bank)
        return {} if bank is None else {"bank": bank, "bank_weight": names.bank_weight}
    from deop.zoo import load as load_model

    return bank_options(load_model(model, **load), names.bank, names.bank_weight, names.example)


def _describe(options: "BatchOptions") -> None:
    """Print what a batch would do."""
    from deop.batch.items import items_of
    from deop.batch.job import worker_count

    total, count, known, first = 0, 0, True, None
    for unit in options.units():
        first = unit if first is None else first
        count += 1
        total += unit["count"] or 0
        known &= unit["count"] is not None
    if first is not None:
        for item in islice(items_of(first), 3):
            typer.echo(item.path)
    photos = _count(total, "photo") if known else "photos"
    typer.echo(f"{photos} in {_count(count, 'shard')}, {_count(worker_count(options), 'worker')}")
    typer.echo(f"nothing is written to {options.output}")


@contextmanager
def _progress(*, visible: bool) -> Iterator[Callable[["Progress"], None]]:
    """Show the progress as a bar, or in a line per minute where there is no terminal."""
    started = last = time.monotonic()
    first: int | None = None
    with progress_bar("photos", visible=visible) as advance:

        def report(progress: "Progress") -> None:
            nonlocal last, first
            first = progress.inputs if first is None else first
            advance(progress.inputs, progress.total)  # type: ignore[arg-type]  # rich shows no end for None
            now = time.monotonic()
            if visible and now - last >= _LINE_SECONDS and not _is_terminal():
                last = now
                say(_line(progress, (progress.inputs - first) / (now - started)))

        yield report


def _is_terminal() -> bool:
    from deop.cli.console import PlainConsole

    return PlainConsole(stderr=True).is_terminal


def _line(progress: "Progress", rate: float) -> str:
    photos, shards = _count(progress.inputs, "photo"), _count(progress.total_shards, "shard")
    text = f"{photos}, {progress.shards:,} of {shards}, {rate:.1f} per s"
    if progress.total is not None and rate > 0:
        text += f", {(progress.total - progress.inputs) / rate / 3600:.1f} h left"
    return text


def _report(result: "BatchResult") -> None:
    """Say what was done and what failed, by kind."""
    statistics = result.statistics
    text = f"{_count(statistics.rows, 'photo')} in {_count(result.shards, 'file')}: {result.output}"
    if result.photos and result.seconds > 0:
        text += f"; {result.photos:,} now, {result.photos / result.seconds:.1f} per s"
    if result.finished_before:
        text += f"; {_count(result.finished_before, 'file')} finished before"
    say(text)
    if result.restarts:
        say(f"{_count(result.restarts, 'worker')} replaced after a crash or without an answer", style="yellow")
    if not statistics.failed:
        return
    for kind, count in statistics.failures.most_common():
        say(f"failed: {count:,} with {kind}", style="red")
        if kind in statistics.examples:
            say(f"  {'for example ' if count > 1 else ''}{statistics.examples[kind]}")
    say("Their rows have the reason in the column error. --retry-failed tries them again")


def _count(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> _count(1, "photo"), _count(2000, "photo")
    ('1 photo', '2,000 photos')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

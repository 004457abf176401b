"""``deop segment``: photos and names in; pictures, label maps and JSON out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deop.cli.console import Debug, say
from deop.cli.photos import PICTURE, RESULTS, Photo, find_masks, find_photos, place_results
from deop.cli.report import print_table, write_lines
from deop.errors import DeopError, OutputError, SettingError

NAMES, MASKS, RESULTS_PANEL, METHOD, MACHINE = "Names", "Masks", "Results", "Method", "Machine"


def _option(*flags: str, help: str, panel: str, metavar: str | None = None, default: bool = False, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=panel, metavar=metavar, show_default=default, **more)


def segment(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO", help="Photos: files, folders or patterns.", show_default=False),
    ],
    classes: Annotated[
        str,
        _option(
            "--classes", "-c", metavar="NAMES", panel=NAMES,
            help="What to look for: \"cat, sofa|couch, wall\"; '|' joins synonyms.",
        ),
    ] = "",
    classes_file: Annotated[
        Path | None,
        _option("--classes-file", metavar="FILE", panel=NAMES, help="The same from a file, one name a line."),
    ] = None,
    background: Annotated[
        str,
        _option(
            "--background", metavar="NAMES", panel=NAMES,
            help='What else there may be: "road, sky"; pixels that it wins get no name.',
        ),
    ] = "",
    things: Annotated[
        str | None,
        _option(
            "--things", metavar="NAMES", panel=NAMES,
            help="Which names are countable things, for panoptic and instance mode.",
        ),
    ] = None,
    templates: Annotated[
        str | None,
        _option(
            "--templates", metavar="SET", panel=NAMES,
            help="Sentences that names are put into: single, photo, vild, imagenet, none, or your own with {}.",
        ),
    ] = None,
    proposer: Annotated[
        str | None,
        _option(
            "--proposer", metavar="MODEL", panel=MASKS,
            help="Where masks come from: a folder or hub repo with a MaskFormer, Mask2Former or SAM.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        _option(
            "--masks", metavar="PATH", panel=MASKS,
            help="Your own masks: a PNG of ids, .npy, .npz, or a folder of PNGs; for several photos a folder that "
            "holds one of these for each, under the photo's name.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        _option(
            "--output", "-o", metavar="OUT", panel=RESULTS_PANEL,
            help="Picture to write, or a folder where there are several photos. By default PHOTO.deop.png, or "
            f"{RESULTS}/ for several, unless --labels or --json asks for something else.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        _option(
            "--labels", metavar="OUT", panel=RESULTS_PANEL,
            help="Label map to write, a grey PNG: 1 for the first name and so on, 0 for none; or a folder.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        _option(
            "--json", metavar="FILE", panel=RESULTS_PANEL,
            help="What was found as JSON: one line, one object, a photo. '-' is standard output.",
        ),
    ] = None,
    mode: Annotated[
        Literal["semantic", "panoptic", "instance"],
        _option(
            "--mode", metavar="MODE", panel=RESULTS_PANEL, default=True,
            help="semantic: one name a pixel; panoptic: things told apart; instance: things only, each by itself.",
        ),
    ] = "semantic",
    threshold: Annotated[
        float | None,
        _option(
            "--threshold", metavar="SCORE", panel=RESULTS_PANEL, min=0, max=1,
            help="What scores less gets no name, 0 to 1; by default the model's own.",
        ),
    ] = None,
    model: Annotated[
        str,
        _option(
            "--model", "-m", metavar="MODEL", panel=METHOD, default=True,
            help="A name of the zoo (see `deop models`), a folder, or a hub repo.",
        ),
    ] = "nano",
    severance: Annotated[
        str | None,
        _option(
            "--severance", metavar="KIND", panel=METHOD,
            help="none, self, gate, gate-normalized, affinity or affinity-normalized; by default the model's own.",
        ),
    ] = None,
    anchors: Annotated[
        str | None,
        _option("--anchors", metavar="KIND", panel=METHOD, help="decoder or pool; by default the model's own."),
    ] = None,
    classifier: Annotated[
        Literal["one-pass", "two-stream"],
        _option(
            "--classifier", metavar="KIND", panel=METHOD, default=True,
            help="one-pass, or two-stream: the baseline that cuts out and encodes every mask.",
        ),
    ] = "one-pass",
    device: Annotated[
        str | None,
        _option("--device", metavar="DEVICE", panel=MACHINE, help="cpu, cuda, cuda:1, mps; by default a GPU if any."),
    ] = None,
    dtype: Annotated[
        str | None,
        _option("--dtype", metavar="TYPE", panel=MACHINE, help="float32 (default), bfloat16, float16, or int8 (CPU)."),
    ] = None,
    batch: Annotated[
        int | None,
        _option(
            "--batch", metavar="N", panel=MACHINE, min=1,
            help="Photos that go through the networks together; by default 8 on a GPU, else 1.",
        ),
    ] = None,
    cache: Annotated[
        bool,
        _option("--cache/--no-cache", panel=MACHINE, help="Keep the embeddings of names on disk (default)."),
    ] = True,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Name every pixel of photos with words of your own.

    One photo that cannot be read does not stop the others: it is told of at the end, and the exit code is 1.
    """
    if masks and proposer:
        raise SettingError("masks come from --masks or from --proposer: give one of them")
    names = _read_names(classes, classes_file)
    if output is None and labels is None and json_file is None:
        output = RESULTS
    jobs, output = _plan(photos, output, labels, masks)

    from deop.zoo import GIVEN, load

    network = load(model, proposer=GIVEN if masks else proposer, device=device, dtype=dtype)
    if not cache:
        network.cache = None
    vocabulary = network.vocabulary(names, background=background, templates=templates, things=things)
    network.embed(vocabulary, progress=True)

    from deop.batch.streaming import segment_stream
    from deop.proposals.given import read_masks

    results = segment_stream(
        network,
        [job.photo.path for job in jobs],
        vocabulary,
        masks=[None if job.masks is None else partial(read_masks, job.masks) for job in jobs],
        mode=mode,
        threshold=threshold,
        batch=batch,
        severance=severance,
        anchors=anchors,
        classifier=classifier,
    )
    failed, undone, stopped = _work_off(jobs, results, json_file)
    for path, reason in failed:
        say(f"failed: {reason}" if str(path) in reason else f"failed: {path}: {reason}", style="red")
    if len(jobs) > 1:
        done = len(jobs) - len(failed) - undone
        places = [str(place) for place in (output, labels, json_file) if place not in (None, "-")]
        say(f"{done} of {len(jobs)} photos done" + (f": {', '.join(places)}" if places else ""))
    if stopped:
        raise stopped
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Job:
    """One photo, its masks and where its results go."""

    photo: Photo
    masks: Path | None
    picture: Path | None
    labels: Path | None

    @property
    def results(self) -> dict[str, str]:
        """What is written, by kind."""
        places = {"picture": self.picture, "labels": self.labels}
        return {kind: str(place) for kind, place in places.items() if place}

    def save(self, result: Any) -> None:
        """Write what was found, unless that is an error.

        Raises:
            OutputError: a place that cannot be written.
        """
        if isinstance(result, DeopError):
            return
        if self.picture:
            result.save(self.picture)
        if self.labels:
            result.save_labels(self.labels)


def _read_names(classes: str, file: Path | None) -> str | list[str]:
    """The names of the command line: as typed, or the lines of a file that are not blank."""
    if file is None:
        if not classes.strip():
            raise SettingError('say what to look for: --classes "cat, sofa, wall", or --classes-file FILE')
        return classes
    if classes:
        raise SettingError("names come from --classes or from --classes-file: give one of them")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"cannot read names from {file}: {error}. It must be a text file, one name a line."
        ) from error
    return [line for line in lines if line.strip()]


def _plan(
    arguments: list[str], output: Path | None, labels: Path | None, masks: Path | None
) -> tuple[list[Job], Path | None]:
    """The work to do, checked before anything slow begins; and the place of the pictures."""
    photos = find_photos(arguments, [place for place in (output, labels) if place])
    if output == RESULTS and len(photos) == 1 and not output.is_dir():
        output = Path(f"{photos[0].inside.name}{PICTURE}")
    pictures = place_results(photos, output) if output else [None] * len(photos)
    maps = place_results(photos, labels) if labels else [None] * len(photos)
    if labels and maps[0] and maps[0].suffix.lower() != ".png":
        raise OutputError(f"cannot write {labels}: label maps are PNG files; end the name in .png, or give a folder")
    given = find_masks(photos, masks) if masks else [None] * len(photos)
    return [Job(*parts) for parts in zip(photos, given, pictures, maps, strict=True)], output


def _work_off(
    jobs: list[Job], results: Iterator[Any], json_file: str | None
) -> tuple[list[tuple[Path, str]], int, BaseException | None]:
    """Write the results as they come, and what is to be said of them.

    Args:
        jobs: what is to be done.
        results: of each, or the error that it came to.
        json_file: as ``write_lines`` takes it.

    Returns:
        The photos that failed, with the reason; how many were left undone; and what stopped the work before its end:
        the user, a full disk, a fault.
    """
    from deop.batch.streaming import write_behind

    failed: list[tuple[Path, str]] = []
    stopped: BaseException | None = None
    done = 0
    with write_lines(json_file) as write, _progress(len(jobs)) as advance:
        try:
            started = time.perf_counter()
            written = write_behind(results, lambda number, result: jobs[number].save(result))
            for job, result in zip(jobs, written, strict=True):
                now = time.perf_counter()
                seconds, started = now - started, now
                if isinstance(result, DeopError):
                    failed.append((job.photo.path, str(result)))
                    write({"photo": str(job.photo.path), "error": str(result)})
                else:
                    found = {**result.summary(), "photo": str(job.photo.path)}
                    write({**found, "results": job.results, "seconds": round(seconds, 3)})
                    if len(jobs) == 1 and json_file != "-":
                        print_table(result, job.results, seconds)
                done += 1
                advance()
        except (KeyboardInterrupt, Exception) as error:  # what is done stays done, and is told of
            if len(jobs) == 1:
                raise
            stopped = error
    return failed, len(jobs) - done, stopped


@contextmanager
def _progress(count: int) -> Iterator[Callable[[], Any]]:
    """A progress bar on stderr for several photos; gives the function that moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("photos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=count <= 1 or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("photos", total=count)
        yield lambda: bar.advance(task)

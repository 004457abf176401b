"""``deop segment``: photos and class names in; images, label maps and JSON out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deop.cli.console import progress_bar, say
from deop.cli.interrupts import raised_in_imports
from deop.cli.options import METHOD, OUTPUT, RUNTIME, Anchors, DataType, Debug, Device, Model, Severance, option
from deop.cli.output import print_table, write_json_lines
from deop.cli.photos import IMAGE_SUFFIX, RESULTS_FOLDER, PhotoFile, find_masks, find_photos, place_results
from deop.errors import DeopError, OutputError, SettingError

NAMES, MASKS = "Names", "Masks"


def segment(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO",
            help="Files, directories (searched recursively) or patterns such as 'photos/*.jpg'.",
            show_default=False,
        ),
    ],
    classes: Annotated[
        str,
        option(
            "--classes", "-c", metavar="NAMES", panel=NAMES,
            help='Class names, separated by commas; synonyms are joined by a bar: "cat, sofa|couch, wall".',
        ),
    ] = "",
    classes_file: Annotated[
        Path | None,
        option(
            "--classes-file", metavar="FILE", panel=NAMES,
            help="Read the class names from a text file, one name per line.",
        ),
    ] = None,
    background: Annotated[
        str,
        option(
            "--background", metavar="NAMES", panel=NAMES,
            help='Names of what you are not looking for, such as "road, sky". Their pixels are left without a name.',
        ),
    ] = "",
    things: Annotated[
        str | None,
        option(
            "--things", metavar="NAMES", panel=NAMES,
            help="Which of the names are countable things, for panoptic and instance mode. Default: all but common "
            "words for stuff, such as sky, wall or grass.",
        ),
    ] = None,
    templates: Annotated[
        str | None,
        option(
            "--templates", metavar="SET", panel=NAMES,
            help="Prompt templates for the names: single, photo, vild, imagenet, none, or a sentence with {}. "
            "Default: the model's setting.",
        ),
    ] = None,
    proposer: Annotated[
        str | None,
        option(
            "--proposer", metavar="MODEL", panel=MASKS,
            help="The network that proposes masks: a directory or hub repo with a MaskFormer, Mask2Former or SAM. "
            "Default: the model's own.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        option(
            "--masks", metavar="PATH", panel=MASKS,
            help="Use these masks: a PNG of ids, an .npy or .npz file, or a directory of PNGs. For several photos: a "
            "directory with one of these per photo, named like the photo.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            "--output", "-o", metavar="OUT", panel=OUTPUT,
            help="The image to write; for several photos, a directory. Default: PHOTO.deop.png, or "
            f"{RESULTS_FOLDER}/ for several photos; no image if only --labels or --json is given.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        option(
            "--labels", metavar="OUT", panel=OUTPUT,
            help="The label map to write, a grayscale PNG: 1 is the first name, 2 the second and so on, 0 no name. For "
            "several photos, a directory.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        option(
            "--json", metavar="FILE", panel=OUTPUT,
            help="Write the results as JSON Lines, one object per photo; '-' writes to standard output.",
        ),
    ] = None,
    mode: Annotated[
        Literal["semantic", "panoptic", "instance"],
        option(
            "--mode", metavar="MODE", panel=OUTPUT, show_default=True,
            help="semantic: one name per pixel. panoptic: also separates things of the same name. instance: things "
            "only, each with its own mask; masks may overlap.",
        ),
    ] = "semantic",
    threshold: Annotated[
        float | None,
        option(
            "--threshold", metavar="SCORE", panel=OUTPUT, min=0, max=1,
            help="Minimum score: pixels (semantic) or segments below it get no name. Default: the model's setting.",
        ),
    ] = None,
    model: Model = "nano",
    severance: Severance = None,
    anchors: Anchors = None,
    classifier: Annotated[
        Literal["one-pass", "two-stream"],
        option(
            "--classifier", metavar="KIND", panel=METHOD, show_default=True,
            help="one-pass, or two-stream: the baseline, which crops and encodes every mask separately.",
        ),
    ] = "one-pass",
    device: Device = None,
    dtype: DataType = None,
    batch: Annotated[
        int | None,
        option(
            "--batch", metavar="N", panel=RUNTIME, min=1,
            help="Number of photos that are processed together. Default: 8 on a GPU, 1 on a CPU.",
        ),
    ] = None,
    cache: Annotated[
        bool,
        option("--cache/--no-cache", panel=RUNTIME, help="Keep the embeddings of names on disk. Default: --cache."),
    ] = True,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Segment photos with class names of your choice.

    If a photo cannot be read, the others are still processed: failures are listed at the end, and the exit code is 1.
    """
    if masks and proposer:
        raise SettingError("masks come either from --masks or from --proposer: omit one of them")
    names = _read_names(classes, classes_file)
    if output is None and labels is None and json_file is None:
        output = RESULTS_FOLDER
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
    failures, unfinished, error = _write_results(jobs, results, json_file)
    for path, reason in failures:
        say(f"failed: {reason}" if str(path) in reason else f"failed: {path}: {reason}", style="red")
    if len(jobs) > 1:
        done = len(jobs) - len(failures) - unfinished
        places = [str(place) for place in (output, labels, json_file) if place not in (None, "-")]
        say(f"{done} of {len(jobs)} photos done" + (f": {', '.join(places)}" if places else ""))
    if error:
        raise error
    if failures:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Job:
    """One photo, its masks, and the files to write.

    Attributes:
        photo: the photo.
        masks: file or directory with its masks; None for the proposer's.
        image: where the drawn result goes; None: nowhere.
        labels: where the label map goes; None: nowhere.
    """

    photo: PhotoFile
    masks: Path | None
    image: Path | None
    labels: Path | None

    @property
    def files(self) -> dict[str, str]:
        """Paths of the files to write, by the kinds that ``--json`` reports."""
        places = {"picture": self.image, "labels": self.labels}
        return {kind: str(place) for kind, place in places.items() if place}

    def save(self, result: Any) -> None:
        """Write the files of a result; nothing if the photo failed.

        Raises:
            OutputError: a file cannot be written.
        """
        if isinstance(result, DeopError):
            return
        if self.image:
            result.save(self.image)
        if self.labels:
            result.save_labels(self.labels)


def _read_names(classes: str, file: Path | None) -> str | list[str]:
    """The class names of the command line: as typed, or the lines of a file."""
    if file is None:
        if not classes.strip():
            raise SettingError('no class names: give --classes "cat, sofa, wall" or --classes-file FILE')
        return classes
    if classes:
        raise SettingError("class names come either from --classes or from --classes-file: omit one of them")
    from deop.files import read_names

    return read_names(file)


def _plan(
    arguments: list[str], output: Path | None, labels: Path | None, masks: Path | None
) -> tuple[list[Job], Path | None]:
    """One job per photo, checked before anything slow starts; and where the images go."""
    photos = find_photos(arguments, [place for place in (output, labels) if place]).photos
    if output == RESULTS_FOLDER and len(photos) == 1 and not output.is_dir():
        output = Path(f"{photos[0].result.name}{IMAGE_SUFFIX}")
    images = place_results(photos, output) if output else [None] * len(photos)
    maps = place_results(photos, labels) if labels else [None] * len(photos)
    if labels and maps[0] and maps[0].suffix.lower() != ".png":
        raise OutputError(f"cannot write {labels}: label maps are PNG files. Use the suffix .png, or give a directory")
    mask_files = find_masks(photos, masks) if masks else [None] * len(photos)
    return [Job(*parts) for parts in zip(photos, mask_files, images, maps, strict=True)], output


def _write_results(
    jobs: list[Job], results: Iterator[Any], json_file: str | None
) -> tuple[list[tuple[Path, str]], int, BaseException | None]:
    """Write each result as soon as it is there.

    Args:
        jobs: what to write for each photo.
        results: for each job its result, or the error if it failed.
        json_file: as in ``write_json_lines``.

    Returns:
        The photos that failed, with the reason; the number of photos that were not processed; and the exception that
        stopped the batch, such as an interrupt or a full disk, or None. With a single photo it is raised instead.
    """
    from deop.batch.streaming import write_behind

    failures: list[tuple[Path, str]] = []
    error: BaseException | None = None
    done = 0
    several = len(jobs) > 1
    with raised_in_imports(), write_json_lines(json_file) as write, progress_bar(visible=several) as advance:
        try:
            started = time.perf_counter()
            saved = write_behind(results, lambda number, result: jobs[number].save(result))
            for job, result in zip(jobs, saved, strict=True):
                now = time.perf_counter()
                seconds, started = now - started, now
                if isinstance(result, DeopError):
                    failures.append((job.photo.path, str(result)))
                    write({"photo": str(job.photo.path), "error": str(result)})
                else:
                    summary = {**result.summary(), "photo": str(job.photo.path)}
                    write({**summary, "results": job.files, "seconds": round(seconds, 3)})
                    if not several and json_file != "-":
                        print_table(result, job.files, seconds)
                done += 1
                advance(done, len(jobs))
        except (KeyboardInterrupt, Exception) as exception:  # finished results are kept and reported
            if not several:
                raise
            error = exception
    return failures, len(jobs) - done, error

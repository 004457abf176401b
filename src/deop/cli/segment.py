"""``deop segment``: photos and class names in; pictures, label maps and files for other programs out."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from deop.cli.config_file import typed
from deop.cli.console import say
from deop.cli.options import DataType, Debug, Device, Threads
from deop.cli.segment_options import BatchOptions, Cache, FileOptions, MethodOptions, NameOptions, PictureOptions
from deop.cli.streams import STREAM, check_outputs, read_text_from_stdin
from deop.errors import ImageError, SettingError

if TYPE_CHECKING:
    from deop.cli.jobs import Plan
    from deop.cli.writing import Outcome
    from deop.text.vocabulary import Vocabulary

G = TypeVar("G")

EVERYTHING_ELSE = "everything else"
"""The name that competes with those of ``--cutout`` and ``--heatmap`` if no class names are given."""


def segment(
    context: typer.Context,
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO",
            help="Files, directories (searched recursively), patterns such as 'photos/*.jpg', https addresses, or '-' "
            "for standard input.",
            show_default=False,
        ),
    ],
    names: NameOptions,
    picture: PictureOptions,
    files: FileOptions,
    many: BatchOptions,
    method: MethodOptions,
    device: Device = None,
    dtype: DataType = None,
    threads: Threads = None,
    cache: Cache = True,
    debug: Debug = False,
) -> None:
    """Segment photos with class names of your choice.

    If a photo cannot be read, the others are still processed: failures are listed at the end, and the exit code is 1.
    """
    names = _prefer_typed(context, names, ("classes", "classes_file", "vocabulary"))
    picture = _prefer_typed(context, picture, ("style", "cutout", "heatmap"))
    method = _prefer_typed(context, method, ("masks", "proposer"))
    _check_options(context, names, picture, files, many)
    if names.classes_file == STREAM and "-" in photos:
        raise SettingError("photo and names cannot both come from standard input: give one of them as a file")
    from deop.cli.jobs import plan_jobs, unfinished
    from deop.cli.writing import listed_photos, write_results
    from deop.text.thresholds import Thresholds
    from deop.text.vocabulary import Vocabulary

    _refuse_videos(photos)
    requested = _requested_names(names, picture)
    vocabulary = Vocabulary.parse(requested, background=names.background, things=names.things)
    vocabulary.check_mode(names.mode, warn=False)  # mistakes are reported before the model is loaded
    Thresholds.parse(names.threshold).values(vocabulary, 0)
    shown_names = _names_of_picture(picture, vocabulary)
    inputs = [path for path in (names.classes_file,) if path and path != STREAM]
    draw = picture.output is not None or _asks_for_picture(context) or not any(files.places.values())
    plan = plan_jobs(photos, picture, files, draw=draw, masks=method.masks, inputs=inputs)
    jobs = plan.jobs
    lines: dict[str, bytes] = {}
    if many.skip_existing:
        lines = listed_photos(files.json)
        jobs = unfinished(jobs, lines if files.json else None)
        for job in jobs:
            lines.pop(job.photo.name, None)
        if not jobs:
            _report(plan, jobs, None, quiet=many.quiet)
            return

    from deop.networks.threads import set_threads

    set_threads(threads)
    from deop.zoo import GIVEN, load

    network = load(method.model, proposer=GIVEN if method.masks else method.proposer, device=device, dtype=dtype)
    if not cache:
        network.cache = None
    if method.templates and typed(context, "templates") and not network.text.uses_templates:
        say(f"warning: --templates has no effect, because {method.model} does not use templates", style="yellow")
    vocabulary = network.vocabulary(
        requested, background=names.background, templates=method.templates, things=names.things
    )
    network.embed(vocabulary, progress=not many.quiet)

    from deop.batch.streaming import segment_stream
    from deop.proposals.given import read_masks

    results = segment_stream(
        network,
        [job.photo.source for job in jobs],
        vocabulary,
        masks=[None if job.masks is None else partial(read_masks, job.masks) for job in jobs],
        mode=names.mode,
        threshold=names.threshold,
        batch=many.batch,
        severance=method.severance,
        anchors=method.anchors,
        classifier=method.classifier,
        **({"heatmaps": shown_names} if picture.shown_style == "heatmap" else {}),
    )
    overlay = picture.overlay_options | ({"names": shown_names} if shown_names else {})
    outcome = write_results(
        jobs,
        results,
        files,
        overlay=overlay,
        polygon_format=plan.polygon_format,
        coco=_coco_writer(files, vocabulary, names.mode),
        quiet=many.quiet,
        kept=list(lines.values()),
    )
    _report(plan, jobs, outcome, quiet=many.quiet)
    if outcome.error:
        raise outcome.error
    if outcome.failures:
        raise typer.Exit(1)


def _prefer_typed(context: typer.Context, group: G, exclusive: Sequence[str]) -> G:
    """Options that exclude each other: one that is typed replaces those that a configuration file sets.

    Raises:
        SettingError: several of them are set in the same place.
    """
    defaults = {field.name: field.default for field in fields(group)}  # type: ignore[arg-type]
    chosen = [name for name in exclusive if getattr(group, name) != defaults[name]]
    if from_command_line := [name for name in chosen if typed(context, name)]:
        group = replace(group, **{name: defaults[name] for name in chosen if name not in from_command_line})  # type: ignore[type-var]
        chosen = from_command_line
    if len(chosen) > 1:
        flags = [f"--{name.replace('_', '-')}" for name in chosen]
        raise SettingError(f"{' and '.join(flags)} exclude each other: omit one of them")
    return group


def _asks_for_picture(context: typer.Context) -> bool:
    return any(typed(context, name) for name in ("style", "cutout", "heatmap", "alpha", "no_legend"))


def _check_options(
    context: typer.Context, names: NameOptions, picture: PictureOptions, files: FileOptions, many: BatchOptions
) -> None:
    """Refuse combinations that cannot work, and options that would have no effect, if they were typed.

    Raises:
        SettingError: naming the options and the remedy.
    """

    def refuse(name: str, condition: bool, reason: str) -> None:
        if condition and typed(context, name):
            raise SettingError(f"--{name.replace('_', '-')} has no effect: {reason}")

    style = picture.shown_style
    blended = style in ("overlay", "side-by-side", "heatmap")
    refuse("alpha", not blended, f"a picture of the style {style} is not blended with the photo")
    refuse("no_legend", style == "cutout", "a cut-out has no legend")
    refuse("things", names.mode == "semantic", "semantic mode separates no things; add --mode panoptic or instance")
    refuse("rle", files.json is None, "add --json FILE")
    refuse("coco_polygons", files.coco is None, "add --coco FILE")
    refuse("polygon_format", files.polygons is None, "add --polygons OUT")
    refuse("tolerance", files.polygons is None and not files.coco_polygons, "add --polygons OUT or --coco-polygons")
    if picture.alpha is not None and not 0 <= picture.alpha <= 1:
        raise SettingError(f"--alpha {picture.alpha} is not in [0, 1]")
    if files.tolerance < 0:
        raise SettingError(f"--tolerance {files.tolerance} is negative: give 0 or a number of pixels")
    if files.instances and names.mode == "semantic":
        raise SettingError("--instances needs segments of single things: add --mode panoptic or instance")
    places = {"--output": picture.output, **files.places}
    if files.coco == STREAM:
        raise SettingError("--coco - is not supported: give the name of a file")
    check_outputs(places, frozenset(("--output", "--labels", "--instances")))
    if many.skip_existing:
        if files.coco:
            raise SettingError(
                "--coco writes one file about all photos, so --skip-existing would lose those that it skips: omit one"
            )
        if STREAM in places.values():
            raise SettingError("--skip-existing looks for files, and standard output is none: omit one of them")


def _refuse_videos(photos: Sequence[str]) -> None:
    from deop.video.reading import is_video

    for argument in photos:
        if is_video(argument) and Path(argument).is_file():
            raise ImageError(f"{argument} is a video, which deop does not segment yet: extract frames as images")


def _requested_names(names: NameOptions, picture: PictureOptions) -> "str | list[str] | Vocabulary":
    """The class names of the command line: as typed, the lines of a file, or a built-in list."""
    from deop.text.vocabulary import Vocabulary

    if names.vocabulary:
        from deop.text.builtin import builtin_vocabulary

        return builtin_vocabulary(names.vocabulary)
    if names.classes_file == STREAM:
        from deop.text.names_file import parse_class_names

        return parse_class_names(read_text_from_stdin("class names, one per line"), "standard input")
    if names.classes_file:
        from deop.text.names_file import read_class_names

        return read_class_names(names.classes_file)
    if names.classes.strip():
        return names.classes
    if wanted := picture.cutout or picture.heatmap:
        entries = ["|".join(texts) for texts in Vocabulary.parse(wanted).synonyms]
        return [*entries, EVERYTHING_ELSE]
    raise SettingError(
        'no class names: give --classes "cat, sofa, wall", --classes-file FILE, or --vocabulary everyday'
    )


def _names_of_picture(picture: PictureOptions, vocabulary: "Vocabulary") -> list[str]:
    """The names that a cut-out or a heat map shows; empty for other pictures.

    Raises:
        SettingError: a name that the vocabulary does not have, or several names for a heat map.
    """
    from deop.results.name_lookup import find_names
    from deop.text.vocabulary import Vocabulary

    wanted = picture.cutout or picture.heatmap
    if not wanted:
        return []
    texts = [name for synonyms in Vocabulary.parse(wanted).synonyms for name in synonyms]
    chosen = find_names(texts, vocabulary.names, vocabulary.synonyms)
    if picture.heatmap and len(chosen) > 1:
        raise SettingError(f"--heatmap shows one name, not {len(chosen)}: give one of them")
    return [vocabulary.names[index] for index in chosen]


def _coco_writer(files: FileOptions, vocabulary: "Vocabulary", mode: str) -> Any:
    if files.coco is None:
        return None
    from deop.results.coco import CocoWriter

    return CocoWriter(
        files.coco,
        vocabulary.names,
        rle=False if files.coco_polygons else "compressed",
        tolerance=files.tolerance if files.coco_polygons else 0.0,
        panoptic=mode == "panoptic",
        isthing=vocabulary.things,
    )


def _report(plan: "Plan", jobs: Sequence[Any], outcome: "Outcome | None", *, quiet: bool) -> None:
    """Say at the end which photos failed, what was left out, and how many are done."""
    for name, reason in outcome.failures if outcome else ():
        say(f"failed: {reason}" if name in reason else f"failed: {name}: {reason}", style="red")
    if quiet:
        return
    if plan.found.summary:
        say(plan.found.summary)
    if outcome and outcome.empty:
        say(f"no picture of {len(outcome.empty)} photos, which do not show the name")
    total, skipped = len(plan.jobs), len(plan.jobs) - len(jobs)
    if total > 1 or skipped:
        done = outcome.done if outcome else 0
        places = ", ".join(map(str, plan.places))
        counts = f"{done} of {total} photos done" + (
            f", {skipped} skipped because their results exist" if skipped else ""
        )
        say(counts + (f": {places}" if places else ""))

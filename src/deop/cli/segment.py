"""``deop segment``: photos and class names in; pictures, label maps and files for other programs out."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deop.cli.config_file import typed
from deop.cli.console import say
from deop.cli.examples import bank_options, check_examples, learned_names
from deop.cli.interrupts import raised_in_imports
from deop.cli.options import Debug, Engine, EngineDataType, EngineDevice, Threads, change_settings, parse_windows
from deop.cli.output_options import FileOptions, PictureOptions
from deop.cli.segment_checks import asks_for_picture, check_options, check_tiling, prefer_typed, streams_tiles
from deop.cli.segment_options import (
    BatchOptions,
    Cache,
    MethodOptions,
    NameOptions,
    TileOptions,
    VideoOptions,
)
from deop.cli.streams import STREAM, read_text_from_stdin
from deop.errors import SettingError
from deop.files import check_writable

if TYPE_CHECKING:
    from deop.cli.jobs import Job, Plan
    from deop.cli.writing import Outcome
    from deop.surface import ModelSurface
    from deop.text.vocabulary import Vocabulary

EVERYTHING_ELSE = "everything else"
"""The name that competes with those of ``--cutout`` and ``--heatmap`` if no class names are given."""


def segment(
    context: typer.Context,
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO",
            help="Photos: files, directories (searched recursively), patterns such as 'photos/*.jpg', https addresses, "
            "or '-' for standard input. Videos: files.",
            show_default=False,
        ),
    ],
    names: NameOptions,
    picture: PictureOptions,
    files: FileOptions,
    many: BatchOptions,
    tiling: TileOptions,
    video: VideoOptions,
    method: MethodOptions,
    engine: Engine = None,
    device: EngineDevice = None,
    dtype: EngineDataType = None,
    threads: Threads = None,
    cache: Cache = True,
    debug: Debug = False,
) -> None:
    """Segment photos and videos with class names of your choice.

    If a photo cannot be read, the others are still processed: failures are listed at the end, and the exit code is 1.
    """
    names = prefer_typed(context, names, ("classes", "classes_file", "vocabulary"))
    picture = prefer_typed(context, picture, ("style", "cutout", "heatmap"))
    method = prefer_typed(context, method, ("masks", "proposer"))
    check_options(context, names, picture, files, many)
    check_tiling(context, names, picture, files, many, tiling, method)
    if names.classes_file == STREAM and "-" in photos:
        raise SettingError("photo and names cannot both come from standard input: give one of them as a file")
    from deop.cli.jobs import plan_jobs, skip_finished
    from deop.cli.output import write_json_lines
    from deop.cli.tiles import segment_huge, suggest_tiles, tiled_results
    from deop.cli.video import plan_videos, segment_videos, split_videos
    from deop.cli.writing import Outcome, listed_photos, write_results
    from deop.text.thresholds import Thresholds
    from deop.text.vocabulary import Vocabulary

    requested = requested_names(names, picture)
    vocabulary = Vocabulary.parse(requested, background=names.background, things=names.things)
    vocabulary.check_mode(names.mode, warn=False)  # mistakes are reported before the model is loaded
    Thresholds.parse(names.threshold).values(vocabulary, 0)
    check_examples(names.bank, names.bank_weight, names.example)
    shown_names = _names_of_picture(picture, vocabulary)
    inputs = [path for path in (names.classes_file,) if path and path != STREAM]
    if streams_tiles(context, picture, files, tiling):
        segment_huge(
            photos, requested, names, files, many, tiling, method,
            load=lambda: _load(context, method, cache, engine=engine, device=device, dtype=dtype, threads=threads),
            inputs=inputs,
        )  # fmt: skip
        return
    draw = picture.output is not None or asks_for_picture(context) or not any(files.places.values())
    photos, video_files = split_videos(photos)
    for option in ("smoothing", "every"):
        if not video_files and typed(context, option):
            raise SettingError(f"--{option} has no effect: no video is given")
    if video_files and tiling.tiles is not None:
        raise SettingError("--tiles does not apply to videos: omit it, or give photos only")
    if video_files and (method.masks or many.skip_existing):
        flag = "--masks" if method.masks else "--skip-existing"
        raise SettingError(f"{flag} does not apply to videos: omit it, or give photos only")
    videos = plan_videos(video_files, picture, files, draw=draw, with_photos=bool(photos)) if video_files else []
    plan = plan_jobs(photos, picture, files, draw=draw, masks=method.masks, inputs=[*inputs, *video_files])
    jobs, lines = plan.jobs, list[bytes]()
    if many.skip_existing:
        jobs, lines = skip_finished(plan.jobs, listed_photos(files.json), has_lines=files.json is not None)
        if not jobs:
            _report(plan, jobs, Outcome(), quiet=many.quiet, only=False)
            return
    outputs = [place for job in jobs for place in job.outputs.values()]
    outputs += [place for video in videos for place in (video.output, video.labels) if place]
    check_writable(place for place in (*outputs, files.json, files.coco) if place and place != STREAM)
    network = _load(context, method, cache, engine=engine, device=device, dtype=dtype, threads=threads)
    vocabulary = network.vocabulary(
        requested, background=names.background, templates=method.templates, things=names.things,
        **bank_options(network, names.bank, names.bank_weight, names.example),
    )  # fmt: skip
    network.embed(vocabulary, progress=not many.quiet)
    options: dict[str, Any] = {"mode": names.mode, "threshold": names.threshold}
    options |= {"severance": method.severance, "anchors": method.anchors, "classifier": method.classifier}
    options |= {"heatmaps": shown_names} if picture.shown_style == "heatmap" else {}
    overlay = picture.overlay_options | ({"names": shown_names} if shown_names else {})
    outcome, only = Outcome(), len(plan.jobs) == 1 and not videos
    if tiling.tiles is None:
        if not many.quiet:
            suggest_tiles([job.photo for job in jobs])
        results = partial(_results, network, jobs, vocabulary, batch=many.batch, **options)
    else:
        results = partial(tiled_results, network, jobs, vocabulary, names, many, tiling, method)
    with raised_in_imports(), write_json_lines(files.json, lines) as write_line:
        if jobs:
            outcome = write_results(
                jobs,
                results(),
                files,
                write_line,
                overlay=overlay,
                polygon_format=plan.polygon_format,
                coco=_coco_writer(files, vocabulary, names.mode),
                quiet=many.quiet,
                only=only,
            )
        if videos and not outcome.error:
            try:
                outcome.failures += segment_videos(
                    network, vocabulary, videos, write_line,
                    video=video, overlay=overlay, rle=files.rle, quiet=many.quiet, **options,
                )  # fmt: skip
            except (KeyboardInterrupt, Exception) as error:  # the lines of finished frames are kept
                outcome.error = error
    _report(plan, jobs, outcome, quiet=many.quiet, only=only)
    if outcome.error:
        raise outcome.error
    if outcome.failures:
        raise typer.Exit(1)
    if outcome.empty and only:
        raise outcome.empty[0][1]


def _load(context: typer.Context, method: MethodOptions, cache: bool, **options: Any) -> "ModelSurface":
    """The model that the options name; ``options`` are those of ``deop.load``."""
    from deop.runtime.engine import GIVEN, engine_for
    from deop.zoo import load

    settings: dict[str, Any] = {
        "windows": parse_windows(method.windows), "partition": method.partition, "prior": method.prior,
    }  # fmt: skip
    encoding: dict[str, Any] = {
        "severance": method.severance,
        "anchors": method.anchors,
        "classifier": method.classifier,
    }
    options["engine"] = options["engine"] or engine_for(method.model, **encoding, proxy=method.proxy, **settings)
    proposer = GIVEN if method.masks else method.proposer
    network = load(method.model, proposer=proposer, proxy=method.proxy, **options)
    change_settings(network, scores=method.scores, **settings, smallest_region=method.smallest_region)
    network.check_encoding(**encoding)
    if not cache:
        network.cache = None
    if method.templates and typed(context, "templates") and not network.text.uses_templates:
        say(f"warning: --templates has no effect, because {method.model} does not use templates", style="yellow")
    return network


def _results(network: "ModelSurface", jobs: Sequence["Job"], vocabulary: "Vocabulary", **options: Any) -> Iterator[Any]:
    """The result of each photo, or its error; see ``segment_stream``."""
    from deop.batch.streaming import segment_stream
    from deop.images.masks import read_masks

    masks = [None if job.masks is None else partial(read_masks, job.masks) for job in jobs]
    return segment_stream(network, [job.photo.source for job in jobs], vocabulary, masks=masks, **options)


def requested_names(names: NameOptions, picture: PictureOptions) -> "str | list[str] | Vocabulary":
    """The class names of the command line: as typed, the lines of a file, a built-in list, or those of examples."""
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
    wanted = picture.cutout or picture.heatmap
    shown = Vocabulary.parse(wanted).synonyms if wanted else ()
    if learned := learned_names(names.bank, names.example, names.background):
        known = {text.casefold() for name in learned for text in name.split("|")}
        if known.issuperset(text.casefold() for texts in shown for text in texts):
            return learned
    if shown:
        return [*("|".join(texts) for texts in shown), EVERYTHING_ELSE]
    raise SettingError(
        'no class names: give --classes "cat, sofa, wall", --classes-file FILE, --vocabulary everyday, or --bank BANK'
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


def _report(plan: "Plan", jobs: Sequence[Any], outcome: "Outcome", *, quiet: bool, only: bool) -> None:
    """Say at the end which photos failed, what was left out, and how many are done."""
    for name, reason in outcome.failures:
        say(f"failed: {reason}" if name in reason else f"failed: {name}: {reason}", style="red")
    if quiet:
        return
    if plan.found.summary:
        say(plan.found.summary)
    if outcome.empty and not only:
        say(f"no picture of {len(outcome.empty)} photos, which do not show the name")
    total, skipped = len(plan.jobs), len(plan.jobs) - len(jobs)
    if total and not only:
        places = ", ".join(map(str, plan.places))
        counts = f"{outcome.done} of {total} photos done"
        counts += f", {skipped} skipped because their results exist" if skipped else ""
        say(counts + (f": {places}" if places else ""))

"""What ``deop segment`` does with each photo: its masks and the files to write, checked before anything slow starts."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deop.cli.output_options import FileOptions, PictureOptions
from deop.cli.photos import (
    IMAGE_SUFFIX,
    RESULTS_FOLDER,
    FoundPhotos,
    PhotoFile,
    find_masks,
    find_photos,
    is_done,
    place_results,
)
from deop.cli.streams import STREAM
from deop.errors import OutputError, SettingError

FLAGS = {"picture": "--output", "labels": "--labels", "instances": "--instances", "polygons": "--polygons"}
"""The option of each kind of file that there is one of per photo."""

POLYGON_SUFFIXES = {"geojson": ".geojson", "yolo": ".txt", "labelme": ".json"}


@dataclass(frozen=True)
class Job:
    """One photo, its masks, and the files to write.

    Attributes:
        photo: the photo.
        masks: file or directory with its masks; None for the proposer's.
        outputs: where its results go, by kind (a key of ``FLAGS``); ``STREAM`` is standard output.
    """

    photo: PhotoFile
    masks: Path | None = None
    outputs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        """The outputs that are files."""
        return {kind: place for kind, place in self.outputs.items() if place != STREAM}

    @property
    def relative_name(self) -> str:
        """The name of the photo in files about several photos: below the directory that was named, with its suffix."""
        return (self.photo.result.parent / self.photo.path.name).as_posix()


@dataclass(frozen=True)
class Plan:
    """Everything that a command line asks for.

    Attributes:
        jobs: one per photo.
        found: the photos, and what was left out.
        places: what the last message names: directories and files of results.
        polygon_format: format of the polygons, a key of ``POLYGON_SUFFIXES``.
    """

    jobs: tuple[Job, ...]
    found: FoundPhotos
    places: tuple[Path, ...]
    polygon_format: str


def plan_jobs(
    photos: Sequence[str],
    picture: PictureOptions,
    files: FileOptions,
    *,
    draw: bool = True,
    masks: Path | None = None,
    inputs: Iterable[Path] = (),
) -> Plan:
    """Find the photos and the places of their results.

    Args:
        photos: the arguments of the command.
        picture: the options of the picture.
        files: the options of the other files.
        draw: whether a picture is written; its default place is the current directory.
        masks: as in ``find_masks``.
        inputs: other files that the command reads and that no result may replace.

    Raises:
        ImageError, ProposalError: photos or masks are missing.
        SettingError: two results, or a result and an input, have the same path, or several photos one file.
        OutputError: the suffix of a file does not fit its content.
    """
    output = (picture.output or RESULTS_FOLDER) if draw else None
    asked = {"picture": output, "labels": files.labels, "instances": files.instances, "polygons": files.polygons}
    requested = {kind: place for kind, place in asked.items() if place is not None}
    found = find_photos(photos, [place for place in requested.values() if place != STREAM])
    if output and picture.output is None and len(found.photos) == 1 and not RESULTS_FOLDER.is_dir():
        requested["picture"] = Path(f"{found.photos[0].result.name}{IMAGE_SUFFIX}")
    polygon_format = files.polygon_format or _polygon_format(files.polygons)
    suffixes = {"polygons": POLYGON_SUFFIXES[polygon_format]}
    places = {
        kind: _places(found.photos, place, suffixes.get(kind, ".png"), FLAGS[kind]) for kind, place in requested.items()
    }
    mask_files = find_masks(found.photos, masks) if masks else [None] * len(found.photos)
    jobs = tuple(
        Job(photo, mask_file, {kind: places[kind][number] for kind in places})
        for number, (photo, mask_file) in enumerate(zip(found.photos, mask_files, strict=True))
    )
    whole = {"--json": files.json, "--coco": files.coco}
    single = {flag: place for flag, place in whole.items() if place not in (None, STREAM)}
    _check_suffixes(jobs, transparent=picture.shown_style == "cutout")
    _check_different(jobs, single, [*inputs, *(path for path in mask_files if path)])
    shown = [place for place in (*requested.values(), *single.values()) if place and place != STREAM]
    return Plan(jobs, found, tuple(shown), polygon_format)


def skip_finished(
    jobs: Sequence[Job], lines: Mapping[str, bytes], *, has_lines: bool
) -> tuple[tuple[Job, ...], list[bytes]]:
    """What ``--skip-existing`` leaves to do.

    Args:
        jobs: all jobs.
        lines: the lines of the existing file of ``--json``, by the name of the photo.
        has_lines: whether ``--json`` is requested.

    Returns:
        The jobs whose results are missing or older than the photo; and the lines that are kept.
    """

    def is_finished(job: Job) -> bool:
        listed = job.photo.name in lines if has_lines else bool(job.files)
        return listed and (not job.files or is_done(job.photo, job.files.values()))

    unfinished = tuple(job for job in jobs if not is_finished(job))
    redone = {job.photo.name for job in unfinished}
    return unfinished, [line for name, line in lines.items() if name not in redone]


def _polygon_format(place: Path | None) -> str:
    return "yolo" if place is not None and place.suffix.lower() == POLYGON_SUFFIXES["yolo"] else "geojson"


def _places(photos: Sequence[PhotoFile], place: Path, suffix: str, flag: str) -> list[Path]:
    if place != STREAM:
        return place_results(photos, place, suffix)
    if len(photos) > 1:
        raise SettingError(f"{flag} - writes one result, and there are {len(photos)} photos: give a directory")
    return [STREAM]


def _check_suffixes(jobs: Sequence[Job], *, transparent: bool) -> None:
    from deop.results.formats import check_picture_suffix

    for kind, place in jobs[0].files.items() if jobs else ():  # all jobs have the same suffixes
        if kind == "picture" and check_picture_suffix(place) == "JPEG" and transparent:
            raise OutputError(f"cannot write {place}: JPEG has no transparency; use .png or .webp for a cut-out")
        if kind in ("labels", "instances") and place.suffix.lower() != ".png":
            raise OutputError(f"cannot write {place}: {kind} are PNG files; use the suffix .png, or give a directory")


def _check_different(jobs: Sequence[Job], single: Mapping[str, Path | None], inputs: Iterable[Path]) -> None:
    """Refuse two results at one path, and a result that would replace an input."""
    taken: dict[str, str] = {}
    photos = {_key(job.photo.path): "is one of the photos" for job in jobs if job.photo.is_file}
    for path in inputs:
        photos.setdefault(_key(path), "is read by this command")
    results = [(FLAGS[kind], place) for job in jobs for kind, place in job.files.items()]
    for flag, place in [*results, *single.items()]:
        if place is None:
            continue
        key = _key(place)
        if key in photos:
            raise SettingError(f"{place} {photos[key]} and would be replaced by {flag}: choose another path")
        if key in taken:
            raise SettingError(f"{taken[key]} and {flag} would both write {place}: choose different paths")
        taken[key] = flag


def _key(path: Path) -> str:
    """The same text for all ways to write a path."""
    return os.path.normcase(os.path.realpath(path.expanduser()))

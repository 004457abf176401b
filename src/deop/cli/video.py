"""Videos of ``deop segment``: which files are written for each, and the work itself."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deop.cli.console import progress_bar, say
from deop.cli.output_options import FileOptions, PictureOptions
from deop.cli.photos import RESULTS_FOLDER
from deop.cli.segment_options import VideoOptions
from deop.cli.streams import STREAM
from deop.errors import DeopError, OutputError, SettingError
from deop.files import resolved
from deop.video.reading import is_video

if TYPE_CHECKING:
    from deop.surface import ModelSurface
    from deop.text.vocabulary import Vocabulary
    from deop.video.segmenting import SegmentedFrame


@dataclass(frozen=True)
class VideoJob:
    """One video and the files to write.

    Attributes:
        path: the video.
        output: the video with the drawn results; None: none.
        labels: directory of its label maps, one PNG per frame; None: none.
    """

    path: Path
    output: Path | None
    labels: Path | None


def split_videos(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Divide the arguments of a command into photos and videos, which are recognised by their suffix."""
    videos = [Path(argument).expanduser() for argument in arguments if is_video(argument) and "://" not in argument]
    return [argument for argument in arguments if not is_video(argument) or "://" in argument], videos


def plan_videos(
    videos: Sequence[Path], picture: PictureOptions, files: FileOptions, *, draw: bool, with_photos: bool
) -> list[VideoJob]:
    """Where the results of videos go.

    Args:
        videos: the videos.
        picture: the options of the picture.
        files: the options of the other files.
        draw: whether a video with the results is written.
        with_photos: whether the same command segments photos, too.

    Raises:
        SettingError: an option that does not apply to videos, one file for several results, or a result that would
            replace a video.
        OutputError: the suffix is not that of a video.
    """
    from deop.video.writing import check_video_suffix

    for flag, used in (
        ("--instances", files.instances), ("--coco", files.coco), ("--polygons", files.polygons),
        ("--cutout", picture.shown_style == "cutout"),
    ):  # fmt: skip
        if used:
            raise SettingError(f"{flag} does not apply to videos: use --json and --labels, or extract frames as images")
    if STREAM in (picture.output, files.labels):
        raise SettingError("the results of a video cannot go to standard output, except --json -: give a file")
    several = len(videos) > 1 or with_photos
    if files.labels is not None and files.labels.suffix and not files.labels.is_dir():
        raise SettingError(f"--labels of a video are one PNG per frame: give a directory, not {files.labels}")
    jobs = []
    taken: set[Path] = set()
    for video in videos:
        output = _output_of(video, picture.output, several=several) if draw else None
        if output is not None:
            check_video_suffix(output)
            output = _free(output, video.stem, output.suffix, taken)
            if resolved(output) in {resolved(path) for path in videos}:
                raise SettingError(f"{output} is one of the videos and would be replaced: choose another path")
        labels = files.labels
        if labels is not None and several:
            labels = _free(labels / video.stem, video.stem, "", taken)
        jobs.append(VideoJob(video, output, labels))
    return jobs


def _output_of(video: Path, output: Path | None, *, several: bool) -> Path:
    """Where the drawn video goes, as ``--output`` says."""
    name = f"{video.stem}{_written_suffix(video)}"
    if output is None:
        return RESULTS_FOLDER / name if several else Path(f"{video.stem}.deop{_written_suffix(video)}")
    if output.is_dir() or not output.suffix:
        return output / name
    if several:
        raise SettingError(f"{output} cannot hold the results of several inputs: give a directory")
    return output


def _free(path: Path, stem: str, suffix: str, taken: set[Path]) -> Path:
    """The path or, if another video has taken it, the first free one of STEM-2SUFFIX, STEM-3SUFFIX ...; then taken."""
    number = 2
    while path in taken:
        path, number = path.with_name(f"{stem}-{number}{suffix}"), number + 1
    taken.add(path)
    return path


def _written_suffix(video: Path) -> str:
    return video.suffix.lower() if _can_write(video) else ".mp4"


def _can_write(video: Path) -> bool:
    from deop.video.writing import check_video_suffix

    try:
        check_video_suffix(video)
    except OutputError:
        return False
    return True


def segment_videos(
    network: "ModelSurface",
    vocabulary: "Vocabulary",
    jobs: Sequence[VideoJob],
    write_line: Callable[[Mapping[str, Any]], None],
    *,
    video: VideoOptions,
    overlay: Mapping[str, Any],
    rle: bool = False,
    quiet: bool = False,
    **options: Any,
) -> list[tuple[str, str]]:
    """Segment videos one after the other and write their results.

    Args:
        network: the model.
        vocabulary: the class names.
        jobs: the videos.
        write_line: writes an object to the file of ``--json``, one for each frame.
        video: how frames are processed.
        overlay: the arguments of ``Segmentation.overlay``.
        rle: include masks in the lines.
        quiet: no progress and no summary.
        **options: the other options of ``DeOP.segment``.

    Returns:
        The videos that failed, with the reason.

    Raises:
        OutputError, SettingError: a result cannot be written, or an option is wrong.
    """
    failures = []
    for job in jobs:
        try:
            _segment_video(network, vocabulary, job, write_line, video, overlay, rle, quiet, options)
        except (OutputError, SettingError):
            raise
        except DeopError as error:
            failures.append((str(job.path), str(error)))
            write_line({"video": str(job.path), "error": str(error)})
    return failures


def _segment_video(
    network: "ModelSurface",
    vocabulary: "Vocabulary",
    job: VideoJob,
    write_line: Callable[[Mapping[str, Any]], None],
    video: VideoOptions,
    overlay: Mapping[str, Any],
    rle: bool,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    from deop.batch.streaming import write_behind
    from deop.results.segmentation import Segmentation
    from deop.video.drawing import FramePainter
    from deop.video.reading import open_video
    from deop.video.segmenting import segment_frames
    from deop.video.writing import VideoWriter

    started = time.perf_counter()
    total, damaged = 0, 0
    painter = FramePainter(vocabulary.names, overlay, list_names=vocabulary.source is None)
    with ExitStack() as stack:
        info, frames = stack.enter_context(open_video(job.path))
        results = segment_frames(network, frames, vocabulary, smoothing=video.smoothing, every=video.every, **options)
        writer = None if job.output is None else stack.enter_context(VideoWriter(job.output, info))
        advance = stack.enter_context(progress_bar(job.path.name, visible=not quiet))

        def save(number: int, item: "SegmentedFrame") -> None:
            frame, result = item.frame, item.result
            line: dict[str, Any] = {"video": str(job.path), "frame": frame.index, "time": round(frame.time, 4)}
            if not isinstance(result, Segmentation):
                write_line({**line, "error": str(result)})
                return
            if frame.error:
                line["warning"] = frame.error
            if job.labels is not None:
                result.save_labels(job.labels / f"{frame.index:06}.png")
            if writer is not None:
                writer.add(painter.draw(result), frame.stamp)
            summary = {key: value for key, value in result.summary(rle=rle).items() if key != "photo"}
            write_line({**line, **summary})

        for item in write_behind(results, save):
            total += 1
            damaged += isinstance(item.result, DeopError)
            advance(total, max(info.frames, total))
    if quiet:
        return
    seconds = time.perf_counter() - started
    places = ", ".join(str(place) for place in (job.output, job.labels) if place)
    note = f", {damaged} damaged frames left out" if damaged else ""
    say(f"{job.path}: {total} frames in {seconds:.1f} s{note}" + (f": {places}" if places else ""))

"""Writing the results of ``deop segment`` as they are computed: files, JSON Lines, COCO, and the table of one photo."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deop.cli.console import progress_bar
from deop.cli.jobs import POLYGON_SUFFIXES, Job
from deop.cli.output import print_table
from deop.cli.output_options import FileOptions
from deop.cli.streams import STREAM, write_to_stdout
from deop.errors import DeopError, NotFoundInPhotoError, OutputError
from deop.files import json_of, resolved

if TYPE_CHECKING:
    from deop.results.coco import CocoWriter
    from deop.results.segmentation import Segmentation


@dataclass
class Outcome:
    """What became of the photos of a command.

    Attributes:
        done: number of photos that were segmented.
        failures: the photos that failed, with the reason.
        empty: photos without a picture, because it would show a name that the photo does not have.
        error: what stopped the command, such as an interrupt or a full disk; None: nothing.
    """

    done: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    empty: list[tuple[str, NotFoundInPhotoError]] = field(default_factory=list)
    error: BaseException | None = None


@dataclass(frozen=True)
class ResultFiles:
    """Writes the files of one result after the other.

    Attributes:
        jobs: the photos, in the order of the results.
        overlay: the arguments of ``Segmentation.overlay``.
        files: the options of the other files.
        polygon_format: format of the polygons.
        write_line: writes an object to the file of ``--json``.
        coco: the COCO file, or None.
        seconds: how long each photo took; has an entry for each result that is saved.
        outcome: gets the photos without a picture.
        broken: the error after which nothing is written.
    """

    jobs: Sequence[Job]
    overlay: Mapping[str, Any]
    files: FileOptions
    polygon_format: str
    write_line: Callable[[Mapping[str, Any]], None]
    coco: "CocoWriter | None"
    seconds: Sequence[float]
    outcome: Outcome
    broken: list[BaseException] = field(default_factory=list)

    def save(self, number: int, result: "Segmentation | DeopError") -> None:
        """Write the files of a result and its line of JSON; after an error, nothing more is written.

        Raises:
            OutputError: a file cannot be written.
        """
        if self.broken:
            return
        try:
            self._save(number, result)
        except BaseException as error:
            self.broken.append(error)
            raise

    def _save(self, number: int, result: "Segmentation | DeopError") -> None:
        job = self.jobs[number]
        name = job.photo.name
        if isinstance(result, DeopError):
            self.write_line({"photo": name, "error": str(result)})
            return
        written: dict[str, str] = {}
        for kind, place in job.outputs.items():
            try:
                self._write(kind, place, job, result)
            except NotFoundInPhotoError as error:
                self.outcome.empty.append((name, error))
                continue
            written[kind] = str(place)
        if self.coco:
            self.coco.add(result, file_name=job.relative_name, image_id=number + 1)  # also if others fail
        summary = result.summary(rle=True) if self.files.rle else result.summary()
        self.write_line({**summary, "photo": name, "results": written, "seconds": round(self.seconds[number], 3)})

    def _write(self, kind: str, place: Path, job: Job, result: "Segmentation") -> None:
        def save(path: Path) -> None:
            if kind == "picture":
                result.save(path, **self.overlay)
            elif kind == "labels":
                result.save_labels(path)
            elif kind == "instances":
                from deop.results.label_maps import save_instance_map

                save_instance_map(result, path)
            else:
                options: dict[str, Any] = {"tolerance": self.files.tolerance}
                if self.polygon_format == "labelme":
                    options["image_path"] = _path_from(path, job)
                result.save(path, self.polygon_format, **options)

        if place == STREAM:
            write_to_stdout(save, POLYGON_SUFFIXES[self.polygon_format] if kind == "polygons" else ".png")
        else:
            save(place)


def _path_from(file: Path, job: Job) -> str:
    """The path of a photo relative to a file about it; on another drive of Windows, its absolute path."""
    if not job.photo.is_file:
        return job.photo.path.name
    try:
        return Path(os.path.relpath(job.photo.path, file.parent)).as_posix()
    except ValueError:
        return resolved(job.photo.path).as_posix()


def write_results(
    jobs: Sequence[Job],
    results: Iterator[Any],
    files: FileOptions,
    write_line: Callable[[Mapping[str, Any]], None],
    *,
    overlay: Mapping[str, Any],
    polygon_format: str,
    coco: "CocoWriter | None" = None,
    quiet: bool = False,
    only: bool = False,
) -> Outcome:
    """Write each result as soon as it is there.

    Args:
        jobs: what to write for each photo.
        results: for each job its result, or the error if it failed.
        files: the options of the other files.
        write_line: writes an object to the file of ``--json``.
        overlay: the arguments of ``Segmentation.overlay``.
        polygon_format: format of the polygons.
        coco: the COCO file, not yet entered; or None.
        quiet: no progress and no table.
        only: the command has no other input, so that the result of a single photo is printed as a table.

    Returns:
        What became of the photos.

    Raises:
        BaseException: what stopped the command, if there is nothing to keep because its only photo is not finished.
    """
    from deop.batch.streaming import write_behind

    outcome = Outcome()
    seconds: list[float] = []
    last: Segmentation | None = None
    single = only and len(jobs) == 1
    uses_stdout = files.json == STREAM or any(STREAM in job.outputs.values() for job in jobs)
    with coco or nullcontext(), progress_bar(visible=not (single or quiet)) as advance:
        advance(0, len(jobs))
        try:
            writer = ResultFiles(jobs, overlay, files, polygon_format, write_line, coco, seconds, outcome)
            with closing(write_behind(_timed(results, seconds), writer.save)) as saved:  # type: ignore[type-var]
                for number, (job, result) in enumerate(zip(jobs, saved, strict=True)):
                    if isinstance(result, DeopError):
                        outcome.failures.append((job.photo.name, str(result)))
                    else:
                        outcome.done += 1
                        last = result
                    advance(number + 1, len(jobs))
        except (KeyboardInterrupt, Exception) as error:  # finished results are kept and reported
            if single:
                raise
            outcome.error = error
    if last is not None and single and not (quiet or uses_stdout or outcome.empty):
        whole = [path for path in (files.json, *(coco.paths if coco else ())) if path]
        print_table(last, [str(place) for place in (*jobs[0].files.values(), *whole)], seconds[0])
    return outcome


def _timed(results: Iterator[Any], seconds: list[float]) -> Iterator[Any]:
    """The same results; the time that each took is appended to ``seconds`` before it is handed over."""
    while True:
        started = time.perf_counter()
        try:
            result = next(results)
        except StopIteration:
            return
        seconds.append(time.perf_counter() - started)
        yield result


def listed_photos(path: Path | None) -> dict[str, bytes]:
    """The lines of an existing file of ``--json``, by the photo that they are about; failed photos are left out.

    Raises:
        OutputError: the file exists and is not one that ``--json`` wrote.
    """
    lines: dict[str, bytes] = {}
    if path is None or path == STREAM or not path.exists():
        return lines
    try:
        for line in path.read_bytes().splitlines():
            content = json_of(line)
            if "error" not in content:
                lines[content["photo"]] = line
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"cannot add to {path}: it is not a file of results that --json wrote ({error}). Choose another path"
        ) from error
    return lines

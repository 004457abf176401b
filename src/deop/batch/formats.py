"""Results of a batch in the formats of annotation tools: COCO, Label Studio, labelme and YOLO.

The formats are those of ``deop.results``, which write one photo. Here they are written for any number of photos, with
memory that does not depend on their number.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from deop.batch.results import BatchResults, BatchRow
from deop.batch.stores import is_address
from deop.errors import OutputError, SettingError
from deop.files import folder_of_results
from deop.results.coco import CocoWriter
from deop.results.label_studio import labeling_config
from deop.results.yolo import data_yaml

FORMATS = ("coco", "coco-panoptic", "label-studio", "labelme", "yolo")
"""The formats. The first two are written as a file, the others as a directory."""

_LOCAL_FILES = "/data/local-files/?d="
"""What the addresses of files in Label Studio's local storage begin with."""


@dataclass(frozen=True)
class FormatOptions:
    """How results are written.

    Attributes:
        form: one of ``FORMATS``.
        polygons: COCO and Label Studio: polygons instead of masks. The other formats have no choice.
        tolerance: of polygons, in pixels, as in ``Segmentation.to_polygons``.
        image: Label Studio: the address under which it finds a photo, with ``{id}``, ``{path}`` or ``{name}``, the file
            name. None: files are in its local storage, and addresses such as ``s3://`` are used as they are.
        tasks: Label Studio: number of tasks in a file.
    """

    form: str
    polygons: bool = False
    tolerance: float = 1.0
    image: str | None = None
    tasks: int = 1000

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise SettingError(f"unknown format {self.form!r}: choose one of {', '.join(FORMATS)}")
        if self.polygons and self.form not in ("coco", "label-studio"):
            always = "has masks only" if self.form == "coco-panoptic" else "always has polygons"
            raise SettingError(f"{self.form} {always}: omit polygons")
        if self.tolerance < 0:
            raise SettingError(f"the tolerance of polygons must be at least 0, not {self.tolerance}")
        if self.tasks < 1:
            raise SettingError(f"a file must have at least 1 task, not {self.tasks}")
        if self.image is None:
            return
        if self.form != "label-studio":
            raise SettingError(f"the address of photos (image) is part of label-studio, not of {self.form}: omit it")
        try:
            address = self.image.format(id="a", path="b", name="c")
        except (KeyError, IndexError, ValueError, AttributeError):
            address = self.image
        if address == self.image:
            raise SettingError(
                f"the address of photos {self.image!r} must have one of {{id}}, {{path}} and {{name}}, such as "
                "https://example.org/photos/{id}"
            )


@dataclass
class Exported:
    """What was written.

    Attributes:
        photos: number of photos.
        segments: number of their segments.
        failed: number of rows with an error, which are left out.
    """

    photos: int = 0
    segments: int = 0
    failed: int = 0


def export_batch(
    results: BatchResults,
    output: str | os.PathLike[str],
    options: FormatOptions,
    report: Callable[[int], None] = lambda rows: None,
) -> Exported:
    """Write the results of a batch in another format. What is written appears when it is complete.

    Args:
        results: the batch.
        output: a JSON file for COCO; a new directory for the other formats.
        options: the format.
        report: called with the number of rows that have been read.

    Raises:
        OutputError: the output exists, or cannot be written.
        DataError: the files of the batch are damaged, or have no masks.
        SettingError: Label Studio has no way to find the photos.
    """
    if is_address(os.fspath(output)):
        raise OutputError(f"cannot write {output}: give a path on this machine, and copy the result from there")
    exported = Exported()
    with _writer(results, Path(output), options) as write:
        for count, row in enumerate(results, 1):
            if row.result is None:
                exported.failed += 1
            else:
                write(row)
                exported.photos += 1
                exported.segments += len(row.result.segments)
            report(count)
    return exported


Write = Callable[[BatchRow], Any]


def _writer(results: BatchResults, output: Path, options: FormatOptions) -> AbstractContextManager[Write]:
    if options.form.startswith("coco"):
        return _coco(results, output, options)
    if options.form == "label-studio":
        return _label_studio(results, output, options)
    return _files(results, output, options)


@contextmanager
def _coco(results: BatchResults, output: Path, options: FormatOptions) -> Iterator[Write]:
    if output.suffix.lower() != ".json":
        raise OutputError(f"cannot write {output}: COCO is a file with the suffix .json")
    masks: Any = False if options.polygons else "compressed"
    panoptic = options.form == "coco-panoptic"
    with CocoWriter(output, results.names, rle=masks, tolerance=options.tolerance, panoptic=panoptic) as writer:
        yield lambda row: writer.add(_result(row), file_name=row.id, image_id=row.number + 1)


@contextmanager
def _label_studio(results: BatchResults, output: Path, options: FormatOptions) -> Iterator[Write]:
    """Files of tasks, and the labeling configuration."""
    address = _photo_address(results, options)
    with folder_of_results(output, empty=True) as folder:
        (folder / "config.xml").write_text(labeling_config(results.names, options.polygons), encoding="utf-8")
        tasks = _TaskFiles(folder, options.tasks)

        def write(row: BatchRow) -> None:
            result = _result(row)
            tasks.add(result.to_labelstudio(address(row), polygons=options.polygons, tolerance=options.tolerance))

        try:
            yield write
        finally:
            tasks.close()


class _TaskFiles:
    """Lists of tasks in files of a bounded number; Label Studio refuses files that are too large."""

    def __init__(self, folder: Path, tasks: int) -> None:
        self._folder, self._largest = folder, tasks
        self._files = self._tasks = 0

    def add(self, task: dict[str, Any]) -> None:
        """Write a task."""
        if self._tasks == 0:
            self._file = (self._folder / f"tasks-{self._files:06d}.json").open("w", encoding="ascii")
        self._file.write(("[\n" if self._tasks == 0 else ",\n") + json.dumps(task))
        self._tasks += 1
        if self._tasks == self._largest:
            self.close()

    def close(self) -> None:
        """Complete the last file."""
        if self._tasks:
            self._file.write("\n]\n")
            self._file.close()
            self._files += 1
            self._tasks = 0


def _photo_address(results: BatchResults, options: FormatOptions) -> Callable[[BatchRow], str]:
    """Where Label Studio finds the photo of a row."""
    folder = Path(results.input)

    def given(row: BatchRow) -> str:
        parts = {"id": row.id, "path": row.path, "name": PurePosixPath(row.path).name}
        return str(options.image).format(**{key: quote(value) for key, value in parts.items()})

    def found(row: BatchRow) -> str:
        if is_address(row.path):
            return row.path
        path = Path(row.path)
        if not path.is_absolute() or not path.is_file():
            raise SettingError(
                f"{row.id}: there is no photo file at {row.path}. Say where Label Studio finds photos, such as "
                "--image 'https://example.org/photos/{id}'"
            )
        shown = path.relative_to(folder.parent) if path.is_relative_to(folder) else path.relative_to(path.anchor)
        return _LOCAL_FILES + quote(shown.as_posix())

    return given if options.image else found


@contextmanager
def _files(results: BatchResults, output: Path, options: FormatOptions) -> Iterator[Write]:
    """One file per photo, at the photo's place below the input."""
    with folder_of_results(output, empty=True) as folder:
        if options.form == "yolo":
            (folder / "data.yaml").write_text(data_yaml(results.names), encoding="utf-8")

        def write(row: BatchRow) -> None:
            result = _result(row)
            if options.form == "yolo":
                labels = folder / "labels"
                result.save(labels / _free_name(labels, row, ".txt"), "yolo", tolerance=options.tolerance)
            else:
                name = _free_name(folder, row, ".json")
                image = _path_from((output / name).absolute().parent, row.path)
                result.save(folder / name, "labelme", image_path=image, tolerance=options.tolerance)

        yield write


def _free_name(folder: Path, row: BatchRow, suffix: str) -> str:
    """A name in a directory from the id of a row; it has the number of the row if the id leads out or is taken."""
    path = PurePosixPath(row.id.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in row.id:
        path = PurePosixPath(path.name)
    path = path.with_suffix(suffix) if path.name.strip(".") else PurePosixPath(f"{row.number}{suffix}")
    if (folder / path).exists():
        path = path.with_name(f"{path.stem}_{row.number}{suffix}")
    return str(path)


def _path_from(folder: Path, photo: str) -> str:
    """The path of a photo relative to a directory; its file name if it is not a local file."""
    if is_address(photo) or not Path(photo).is_file():
        return PurePosixPath(photo).name
    try:
        return Path(os.path.relpath(photo, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return Path(photo).as_posix()


def _result(row: BatchRow) -> Any:
    return row.result

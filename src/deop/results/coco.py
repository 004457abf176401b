"""COCO's formats: instances and panoptic, of one photo or of many."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from PIL import Image

from deop._version import __version__
from deop.errors import OutputError, SettingError
from deop.files import folder_of_results, replacing
from deop.images.panoptic_ids import ids_to_colours
from deop.results.checks import as_names
from deop.results.polygons import check_tolerance, join_rings, segment_polygons
from deop.results.segments import Segment, encode_segment
from deop.text.things import is_thing

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

Masks = bool | Literal["compressed"]


def instances(
    result: "Segmentation", image_id: int, file_name: str, first_id: int, rle: Masks, tolerance: float
) -> dict[str, Any]:
    """COCO's instance format of one photo; ``Segmentation.to_coco`` describes it."""
    return {
        **_head(),
        "images": [_image(result, image_id, file_name)],
        "annotations": list(_annotations(result.segments, image_id, first_id, rle, tolerance)),
        "categories": categories(result.names, known_flags(result.segments)),
    }


def panoptic(result: "Segmentation", image_id: int, file_name: str) -> tuple[Image.Image, dict[str, Any]]:
    """COCO's panoptic format of one photo; ``Segmentation.to_panoptic`` describes it."""
    segment_map = result.segment_map
    image = Image.fromarray(ids_to_colours(segment_map + 1))
    rows = []
    for index, segment in enumerate(result.segments):
        x0, y0, x1, y1 = segment.box
        visible = segment_map[y0:y1, x0:x1] == index  # not covered by other segments
        if not visible.any():
            continue
        down, across = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        size = [int(across[-1] - across[0]) + 1, int(down[-1] - down[0]) + 1]
        rows.append(
            {
                "id": index + 1,
                "category_id": segment.class_id + 1,
                "bbox": [x0 + int(across[0]), y0 + int(down[0]), *size],
                "area": int(visible.sum()),
                "score": segment.score,
                "iscrowd": 0,
            }
        )
    annotation = {"image_id": image_id, "file_name": file_name, "segments_info": rows}
    return image, {"annotation": annotation, "categories": categories(result.names, known_flags(result.segments))}


def categories(names: Sequence[str], isthing: dict[int, bool]) -> list[dict[str, Any]]:
    """COCO's categories: id = index + 1. Whether a name that ``isthing`` lacks is a thing is guessed from the name."""
    flags = [isthing.get(index, is_thing(name)) for index, name in enumerate(names)]
    return [
        {
            "id": index + 1,
            "name": name,
            "supercategory": "thing" if flags[index] else "stuff",
            "isthing": int(flags[index]),
        }
        for index, name in enumerate(names)
    ]


def known_flags(segments: Sequence[Segment]) -> dict[int, bool]:
    """Whether the names of segments are things, by index of the name, where the segments say it."""
    return {segment.class_id: segment.isthing for segment in segments if segment.isthing is not None}


class CocoWriter:
    """Write the results of many photos in COCO's formats.

    Annotations are written to temporary files beside the target as they come, so that memory does not grow with the
    number of photos. The files appear when the ``with`` block ends; if it ends with an exception, none of them does.

    Args:
        path: the JSON file of instances, such as ``coco.json``.
        names: the class names, the same for all photos; category ids are index + 1.
        rle: form of the masks, as in ``Segmentation.to_coco``.
        tolerance: of polygons, in pixels, as in ``Segmentation.to_polygons``.
        panoptic: also write the panoptic format: ``coco_panoptic.json`` and the folder ``coco_panoptic`` of PNG files.
            Other files in an existing folder are kept.
        isthing: for each name True for a thing, False for stuff. None: as the segments say; for names without a
            segment it is guessed from the name.

    Raises:
        SettingError: an option has a value that is not allowed.
        OutputError: the files cannot be written.

    Example::

        with CocoWriter("coco.json", ["cat", "wall"], panoptic=True) as writer:
            for path in paths:
                writer.add(model.segment(path, ["cat", "wall"]), file_name=path.name)
    """

    def __init__(
        self,
        path: str | Path,
        names: Sequence[str],
        *,
        rle: Masks = "compressed",
        tolerance: float = 0.0,
        panoptic: bool = False,
        isthing: Sequence[bool] | None = None,
    ) -> None:
        check_masks(rle)
        check_tolerance(tolerance)
        self._path = Path(path)
        self._names = as_names(names)
        self._rle: Masks = rle
        self._tolerance = tolerance
        self._panoptic = panoptic
        self._isthing = dict(enumerate(isthing or ()))
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._image_ids: set[int] = set()
        self._last_id = 0
        self._error: OutputError | None = None
        self._picture_names: set[str] = set()
        self._annotations = 0

    @property
    def paths(self) -> list[Path]:
        """The files and the folder that are written."""
        if not self._panoptic:
            return [self._path]
        return [self._path, self._panoptic_path(".json"), self._panoptic_path("")]

    def _panoptic_path(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.stem}_panoptic{suffix}")

    def __enter__(self) -> "CocoWriter":
        with ExitStack() as stack:
            self._instances = stack.enter_context(_json_file(self._path))
            if self._panoptic:
                self._segments = stack.enter_context(_json_file(self._panoptic_path(".json")))
                self._folder = stack.enter_context(folder_of_results(self._panoptic_path("")))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None or self._error is not None:
            with suppress(_DiscardedError):
                self._stack.__exit__(_DiscardedError, _DiscardedError(), None)
            if kind is None and self._error is not None:
                raise self._error
            return
        flags = categories(self._names, self._isthing)
        with self._stack:
            self._instances.finish(flags)
            if self._panoptic:
                self._segments.finish(flags)

    def add(self, result: "Segmentation", file_name: str | None = None, image_id: int | None = None) -> int:
        """Add the result of a photo. Not for several threads at once.

        Args:
            result: the result; its names must be those of the writer.
            file_name: file name of the photo, usually relative to a folder of photos; None: that of its source.
            image_id: id of the photo. None: one more than the largest so far, beginning with 1. Pass the position in
                the list of photos to keep ids stable if some photos fail.

        Returns:
            The id of the photo.

        Raises:
            SettingError: the names differ from those of the writer, or the id has been used.
            OutputError: the disk is full, or the file cannot be written. In that case no file is written at the end.
        """
        if result.names != self._names:
            raise SettingError("all results in a COCO file must have the same names in the same order")
        image_id = image_id if image_id is not None else self._last_id + 1
        if image_id in self._image_ids:
            raise SettingError(f"image id {image_id} is used twice: each photo needs an id of its own")
        name = file_name or result.file_name
        image = _image(result, image_id, name)
        rows = list(_annotations(result.segments, image_id, self._annotations + 1, self._rle, self._tolerance))
        try:
            self._instances.add(image, rows)
            if self._folder is not None:
                picture_name = self._picture_name(name, image_id)
                picture, content = panoptic(result, image_id, picture_name)
                target = self._folder / picture_name
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target, "PNG")
                self._segments.add(image, [content["annotation"]])
        except OSError as error:
            self._error = OutputError(f"cannot write {self._path}: {error.strerror or error}")
            raise self._error from error
        self._image_ids.add(image_id)
        self._last_id = max(self._last_id, image_id)
        self._annotations += len(rows)
        for index, flag in known_flags(result.segments).items():
            self._isthing.setdefault(index, flag)
        return image_id

    def _picture_name(self, file_name: str, image_id: int) -> str:
        """Name of a PNG file in the folder; it contains the id if the name of the photo leads out or is taken."""
        path = PurePosixPath(file_name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in file_name:
            path = PurePosixPath(path.name)
        path = path.with_suffix(".png") if path.name.strip(".") else PurePosixPath(f"{image_id}.png")
        while str(path).casefold() in self._picture_names:
            path = path.with_name(f"{path.stem}_{image_id}.png")
        self._picture_names.add(str(path).casefold())
        return str(path)


class _DiscardedError(Exception):
    """Tells the temporary files that they are not needed."""


class _JsonFile:
    """A COCO file that is written annotation by annotation; the images wait in a second temporary file."""

    def __init__(self, file: BinaryIO, images: BinaryIO) -> None:
        self._file, self._images = file, images
        self._separators = [b"", b""]
        head = json.dumps(_head())[:-1]
        file.write(f'{head}, "annotations": ['.encode())

    def add(self, image: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> None:
        """Add a photo and its annotations."""
        self._write(self._images, 0, [image])
        self._write(self._file, 1, annotations)

    def _write(self, file: BinaryIO, number: int, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            file.write(self._separators[number] + b"\n" + json.dumps(row).encode())
            self._separators[number] = b","

    def finish(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write what follows the annotations: images and categories."""
        self._file.write(b'\n], "images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._file)
        self._file.write(b'\n], "categories": ' + json.dumps(rows).encode() + b"}\n")


@contextmanager
def _json_file(path: Path) -> Iterator[_JsonFile]:
    with replacing(path) as file, tempfile.TemporaryFile(dir=path.parent) as images:
        yield _JsonFile(file, images)


def check_masks(rle: Any) -> None:
    """Check the form of masks: True, False or "compressed".

    Raises:
        SettingError: it is none of these.
    """
    if not (isinstance(rle, bool) or rle == "compressed"):
        raise SettingError(f'rle must be True, "compressed" or False (polygons), not {rle!r}')


def _annotations(
    segments: Sequence[Segment], image_id: int, first_id: int, rle: Masks, tolerance: float
) -> Iterator[dict[str, Any]]:
    """One annotation per segment."""
    check_masks(rle)
    for number, segment in enumerate(segments, first_id):
        x0, y0, x1, y1 = segment.box
        mask: Any
        if rle:
            mask = encode_segment(segment, compressed=rle == "compressed")
        else:  # the ring of a piece with holes passes around them, since COCO's polygons have no holes
            mask = [join_rings([polygon]).ravel().tolist() for polygon in segment_polygons(segment, tolerance)]
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": segment.class_id + 1,
            "segmentation": mask,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": segment.area,
            "score": segment.score,
            "iscrowd": 0,
        }


def _image(result: "Segmentation", image_id: int, file_name: str) -> dict[str, Any]:
    height, width = result.shape
    return {"id": image_id, "file_name": file_name, "width": width, "height": height}


def _head() -> dict[str, Any]:
    """COCO's general fields; without a date, so that the same results give the same file."""
    return {"info": {"description": f"Segmentation by deop {__version__}"}, "licenses": []}

"""Labelled photos in Parquet files: a column with photos and a column with masks.

A cell has the bytes of an image file, its path (relative to the Parquet file, absolute, or an address), or the struct
``{bytes, path}`` of Hugging Face datasets. A file is read by row group; opening it reads its footer, and the columns
with keys and paths.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deop.batch.items import beside, content_of
from deop.batch.stores import is_address
from deop.batch.table import arrow
from deop.data.entries import Cell, Entry, StoredFile, parquet_metadata, read_columns
from deop.data.labelled import LabelClass, Pair, classes_of
from deop.data.tar import safe_key
from deop.errors import DataError
from deop.files import json_of
from deop.images.collection import LeftOut

IMAGE_COLUMNS = ("image", "photo", "img", "path", "file_name", "filename", "file", "url")
"""Usual names of the column with photos, in the order in which they are tried."""

MASK_COLUMNS = ("mask", "label", "annotation", "labels", "segmentation", "seg", "semantic_mask", "segmentation_mask")
"""Usual names of the column with masks."""

_KEY_COLUMNS = ("key", "__key__", "id", "image_id", "file_name", "filename")
_CLASS_COLUMNS = ("classes", "categories", "class_labels", "class_names", "labels")
_WIDE = 64 << 20
"""Bytes of a row group above which reading its rows in another order is slow."""


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        image: name of the column with photos; None: the first with a usual name.
        mask: name of the column with masks; None: the first with a usual name.
    """

    image: str | None = None
    mask: str | None = None


def read_parquets(files: Sequence[str], columns: Columns) -> tuple[list[Pair], list[LeftOut]]:
    """The photos and masks in Parquet files, in the order of their rows. No image is read.

    Args:
        files: paths or addresses.
        columns: which columns.

    Returns:
        The pairs; and the rows without photo or mask and the files that cannot be read, with the reasons.

    Raises:
        DataError: a file lacks a column, or has it with values that cannot be images.
    """
    found: list[tuple[str, Entry, Entry, str]] = []
    unpaired: list[LeftOut] = []
    for file in files:
        try:
            metadata = parquet_metadata(file)
        except DataError as error:
            unpaired.append(LeftOut(Path(file), str(error)))
            continue
        schema = metadata.schema.to_arrow_schema()
        image = _choose(file, schema, columns.image, IMAGE_COLUMNS, "image")
        mask = _choose(file, schema, columns.mask, MASK_COLUMNS, "mask", image)
        rows: Iterator[tuple[str | None, Entry | None, Entry | None]] = _rows(file, metadata, schema, image, mask)
        for number, (key, photo, truth) in enumerate(rows):
            if photo is not None and truth is not None:
                found.append((file, photo, truth, key or f"{PurePosixPath(file).stem}-{number:06}"))
                continue
            what, column = ("photo", image) if photo is None else ("mask", mask)
            place = f"{file}, row {number}"
            unpaired.append(LeftOut(Path(place), f"{place} has no {what} in the column {column!r}"))
    keys = [key for _, _, _, key in found]
    if len(set(keys)) < len(keys):  # then the names are not names of photos
        keys = [f"{number:06}" for number in range(len(found))]
    pairs = [
        Pair(photo, mask, safe_key(key, number))
        for number, (key, (_, photo, mask, _)) in enumerate(zip(keys, found, strict=True))
    ]
    return pairs, unpaired


def _choose(file: str, schema: Any, name: str | None, usual: Sequence[str], what: str, other: str | None = None) -> str:
    names = [column for column in schema.names if column != other]
    options = [column for column in names if _holds_images(schema.field(column).type)]
    advice = f"give --{what}-column (in a recipe: data.{what}_column) with one of {', '.join(options or names)}"
    if name is None:
        chosen = next((column for column in usual if column in options), None)
        if chosen is None:
            raise DataError(
                f"{file} has no column with a usual name for {what}s ({', '.join(usual[:3])}, ...): {advice}"
            )
        return chosen
    if name not in schema.names:
        raise DataError(f"{file} has no column {name!r}: {advice}")
    if name == other:
        raise DataError(f"{file}: the column {name!r} cannot have both the photos and the masks: {advice}")
    if name not in options:
        raise DataError(
            f"the column {name!r} of {file} has values of type {schema.field(name).type}: expected the bytes of image "
            f"files, their paths, or the struct of Hugging Face datasets; {advice}"
        )
    return name


def _holds_images(kind: Any) -> bool:
    types = arrow().types
    if types.is_struct(kind):
        return any(_holds_images(kind.field(index).type) for index in range(kind.num_fields)
                   if kind.field(index).name in ("bytes", "path"))  # fmt: skip
    return bool(
        types.is_binary(kind) or types.is_large_binary(kind) or types.is_string(kind) or types.is_large_string(kind)
    )


def _rows(
    file: str, metadata: Any, schema: Any, image: str, mask: str
) -> Iterator[tuple[str | None, Entry | None, Entry | None]]:
    """Key, photo and mask of every row; None for those that it does not have."""
    number = 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        keys = _keys(file, group, schema, image)
        photos, masks = (_entries(file, group, number, count, metadata, schema, name) for name in (image, mask))
        for row in range(count):
            yield keys[row] if keys else None, photos[row], masks[row]
        number += count


def _keys(file: str, group: int, schema: Any, image: str) -> list[str] | None:
    """A name for each row, if the file has any."""
    types = arrow().types
    for name in _KEY_COLUMNS:
        if name in schema.names and name != image and not _is_nested(schema.field(name).type):
            return [str(value) if value is not None else "" for value in _values(file, group, name)]
    kind = schema.field(image).type
    if types.is_struct(kind) and any(kind.field(index).name == "path" for index in range(kind.num_fields)):
        return [_stem(value["path"]) for value in read_columns(file, group, [f"{image}.path"])[image].to_pylist()]
    if types.is_string(kind) or types.is_large_string(kind):
        return [_stem(value) for value in _values(file, group, image)]
    return None


def _is_nested(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _stem(path: str | None) -> str:
    return PurePosixPath(path).stem if path else ""


def _values(file: str, group: int, column: str) -> list[Any]:
    values: list[Any] = read_columns(file, group, [column])[column].to_pylist()
    return values


def _entries(
    file: str, group: int, first: int, count: int, metadata: Any, schema: Any, column: str
) -> list[Entry | None]:
    """The cells of a column in a row group; those of a column of paths are the files that they name."""
    types, kind = arrow().types, schema.field(column).type
    if types.is_string(kind) or types.is_large_string(kind):
        places = [beside(file, value) if value else None for value in _values(file, group, column)]
        return [None if place is None else StoredFile(place) if is_address(place) else Path(place) for place in places]
    cells: list[Entry | None] = [Cell(file, group, row, first + row, column) for row in range(count)]
    for row in _empty_rows(file, group, metadata, column):
        cells[row] = None
    return cells


def _empty_rows(file: str, group: int, metadata: Any, column: str) -> list[int]:
    """The rows of a row group whose cells are null. The column is read only if its statistics do not exclude that."""
    row_group = metadata.row_group(group)
    for index in range(row_group.num_columns):
        part = row_group.column(index)
        if part.path_in_schema in (column, f"{column}.bytes"):
            statistics = part.statistics
            if statistics is not None and statistics.has_null_count and not statistics.null_count:
                return []
    values = read_columns(file, group, [column])[column]
    return [row for row, value in enumerate(values) if not content_of(value.as_py())]


def classes_in(file: str) -> tuple[LabelClass, ...] | None:
    """The classes in the metadata that Hugging Face datasets wrote; None if there are none.

    These are the names of a ``ClassLabel`` in a column such as ``classes``, whose positions are the ids in the masks.
    The label of a whole photo is not used.
    """
    content = (parquet_metadata(file).metadata or {}).get(b"huggingface")
    try:
        features = json_of(content)["info"]["features"] if content else {}
        names = next((names for column in _CLASS_COLUMNS for names in _class_labels(features.get(column))), None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if names is None:
        return None
    return classes_of([{"id": number, "name": name} for number, name in enumerate(names)], f"the features of {file}")


def _class_labels(feature: Any) -> Iterator[list[str]]:
    """The names of every ``ClassLabel`` in lists below a feature."""
    if isinstance(feature, dict):
        for key, value in feature.items():
            inner = value if key == "feature" else None
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
                yield list(inner["names"])
            elif inner is not None or isinstance(value, dict):
                yield from _class_labels(value)
    elif isinstance(feature, list):  # the short form of a list
        for value in feature:
            if isinstance(value, dict) and value.get("_type") == "ClassLabel":
                yield list(value["names"])


def wide_row_groups(pairs: Sequence[Pair]) -> int:
    """The size of the largest row group that photos are in, in bytes; 0 if it is small enough to be read at random."""
    files = {pair.photo.container for pair in pairs if isinstance(pair.photo, Cell)}
    sizes = [
        metadata.row_group(group).total_byte_size
        for metadata in map(parquet_metadata, files)
        for group in range(metadata.num_row_groups)
    ]
    largest = max(sizes, default=0)
    return largest if largest > _WIDE else 0

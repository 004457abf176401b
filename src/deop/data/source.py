"""Opening labelled data of any kind: a folder, Parquet files, or WebDataset's tar files."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from deop.batch.sources import expand, kind_of
from deop.batch.stores import file_system, is_address, read_bytes
from deop.data import folder
from deop.data.entries import attempt
from deop.data.labelled import EXAMPLE, LabelClass, LabelledData, check_pairs, classes_of, read_classes
from deop.data.parquet import Columns, classes_in, read_parquets
from deop.data.tar import read_tars
from deop.dependencies import require
from deop.errors import DataError, ImageError, SettingError
from deop.files import json_of

_KINDS = ("parquet", "tar")
_SPLITS = {
    "train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing"),
}  # fmt: skip
"""Words that file names of a split begin with."""


def open_data(
    place: str | Path,
    split: str | None = None,
    *,
    default: str = "val",
    skip_unpaired: bool = False,
    classes: str | Path | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
) -> LabelledData:
    """Find the photos, masks and classes of a data set. No photo or mask is read.

    Args:
        place: a folder with ``images/`` and ``masks/`` (``open_folder``); a Parquet or tar file, a pattern such as
            ``data/*.parquet`` or ``shards/{0000..0009}.tar``, or a directory of such files. Parquet and tar files may
            be at an address of fsspec.
        split: "train", "val", ...; None: ``default`` if the data set has splits, else all photos.
        default: the split that is used if none is given.
        skip_unpaired: leave out photos without mask, masks without photo, and files that are incomplete, instead of
            raising an error.
        classes: the list of classes; None: ``classes.json`` beside the files, or in the directory above; for Parquet
            also the metadata of Hugging Face datasets, and the names of the results of ``deop batch``.
        image_column: the column of Parquet files with the photos; None: the first with a usual name.
        mask_column: the column with the masks.

    Raises:
        DataError: no such data or split, no valid list of classes, a photo without mask, or a mask without photo.
        SettingError: columns for data that is not Parquet.
        MissingDependencyError: Parquet files without pyarrow, or an address without fsspec.
    """
    if is_address(str(place)):
        require("reading data at an address", "fsspec")
    files = _files(str(place), split, default)
    if (files is None or kind_of(files[0]) != "parquet") and (image_column or mask_column):
        raise SettingError(f"columns apply to Parquet files, and {place} is none: omit the columns")
    if files is None:
        return folder.open_folder(place, split, default=default, skip_unpaired=skip_unpaired, classes=classes)
    if kind_of(files[0]) == "parquet":
        require("reading Parquet files", "pyarrow", "fsspec")
    listed = read_classes(Path(classes)) if classes is not None else _classes_beside(files[0])
    if kind_of(files[0]) == "tar":
        pairs, unpaired = read_tars(files)
    else:
        pairs, unpaired = read_parquets(files, Columns(image_column, mask_column))
    options = {"split": split, "image-column": image_column, "mask-column": mask_column, "classes-json": classes}
    command = [str(place), *(part for name, value in options.items() if value for part in (f"--{name}", str(value)))]
    check_pairs(str(place), pairs, unpaired, (), skip_unpaired=skip_unpaired, command=command)
    return LabelledData(str(place), listed, tuple(pairs), tuple(unpaired))


def splits_of(place: str | Path) -> tuple[str | None, ...]:
    """The names of the splits of a data set; (None,) if it has no splits."""
    if not _is_directory(str(place)):
        return (None,)
    found = () if _is_folder(str(place)) else _by_split(str(place))
    return tuple(sorted(name for name in found if name)) or folder.splits_of(place)


def _is_folder(place: str) -> bool:
    """Whether a path is a folder with ``images/``, or with splits that have ``images/``."""
    return not is_address(place) and ((Path(place) / "images").is_dir() or folder.splits_of(place) != (None,))


def _files(place: str, split: str | None, default: str) -> list[str] | None:
    """The Parquet or tar files of a split; None if the data is a folder of images, or there is none."""
    if _is_folder(place):
        return None
    if _is_directory(place):
        found = _by_split(place)
        if not found:
            if is_address(place):
                raise DataError(f"{place} has neither Parquet nor tar files: give their pattern")
            return None
        return _one_kind(place, _select(place, found, split, default))
    if split not in (None, "all"):
        raise DataError(f"{place} has no splits, so no split {split!r}: omit the split, or give their directory")
    try:
        files = expand(place)
    except ImageError:
        if _is_pattern(place) or kind_of(place) in _KINDS:
            raise DataError(f"no files match {place}: check the path") from None
        return None  # ``open_folder`` says what is missing
    return _one_kind(place, files or [])


def _is_pattern(place: str) -> bool:
    return bool(set(place) & set("*?[{"))


def _is_directory(place: str) -> bool:
    if not is_address(place):
        return Path(place).expanduser().is_dir()
    return not _is_pattern(place) and kind_of(place) not in _KINDS


def _one_kind(place: str, files: list[str]) -> list[str]:
    kinds = {kind_of(file) for file in files}
    if len(kinds) != 1 or not kinds <= set(_KINDS):
        packed = place.endswith((".tar.gz", ".tgz"))
        hint = "give a folder with images/ and masks/, Parquet files, or tar files, and only files of one kind"
        raise DataError(f"{place} is no labelled data: {'decompress it with gunzip' if packed else hint}")
    return files


def _by_split(directory: str) -> dict[str, list[str]]:
    """The Parquet and tar files of a directory by their split; "" for those that name none.

    A split is a directory with such files, or the word that file names begin with. The files may also be in ``data/``.
    """
    found: dict[str, list[str]] = {}
    files, directories = _list(directory)
    for file in _of_kinds(files):
        found.setdefault(_split_of(PurePosixPath(file).name), []).append(file)
    for below in directories:
        name = PurePosixPath(below).name
        if inner := _of_kinds(_list(below)[0]):
            if name == "data":
                for file in inner:
                    found.setdefault(_split_of(PurePosixPath(file).name), []).append(file)
            else:
                found.setdefault(_split_of(name) or name, []).extend(inner)
    return found


def _of_kinds(files: Iterable[str]) -> list[str]:
    return [file for file in files if kind_of(file) in _KINDS and not PurePosixPath(file).name.startswith(".")]


def _split_of(name: str) -> str:
    word = re.split(r"[-_.]", name.lower(), maxsplit=1)[0]
    return next((split for split, words in _SPLITS.items() if word in words), "")


def _list(directory: str) -> tuple[list[str], list[str]]:
    """The files and the directories in a directory, sorted."""
    if not is_address(directory):
        try:
            entries = sorted(Path(directory).expanduser().absolute().iterdir())
        except OSError as error:
            raise DataError(f"cannot list {directory}: {error.strerror or error}") from error
        visible = [entry for entry in entries if not entry.name.startswith((".", "_"))]
        return [str(entry) for entry in visible if entry.is_file()], [str(entry) for entry in visible if entry.is_dir()]
    system, path = file_system(directory)
    try:
        details: list[dict[str, Any]] = attempt(directory, lambda: system.ls(path, detail=True))
    except FileNotFoundError:
        raise DataError(f"{directory} does not exist") from None
    places = sorted((str(system.unstrip_protocol(entry["name"])), entry["type"] == "directory") for entry in details)
    return [place for place, is_folder in places if not is_folder], [place for place, is_folder in places if is_folder]


def _select(place: str, found: dict[str, list[str]], split: str | None, default: str) -> list[str]:
    """The files of a split: that which is asked for, else the default, else all if no file names a split."""
    named = sorted(name for name in found if name)
    if split == "all" or (split is None and not named):
        return [file for files in found.values() for file in files]
    wanted = split or default
    wanted = wanted if wanted in found else _split_of(wanted) or wanted
    if wanted not in found:
        present = f"it has the splits {', '.join(named)}" if named else "its files name no splits: omit the split"
        raise DataError(f"no split {wanted!r} in {place}: {present}")
    return found[wanted]


def _classes_beside(file: str) -> tuple[LabelClass, ...]:
    """The classes of the data set that a file is part of."""
    here = file.rpartition("/")[0] if is_address(file) else str(Path(file).parent)
    for directory in (here, here.rpartition("/")[0] if is_address(file) else str(Path(here).parent)):
        if (content := _content(f"{directory}/classes.json")) is not None:
            return _parsed(content, f"{directory}/classes.json")
    if kind_of(file) == "parquet":
        if (content := _content(f"{here}/_deop/settings.json")) is not None:
            return _names_of_batch(content, f"{here}/_deop/settings.json")
        if classes := classes_in(file):
            return classes
    raise DataError(
        f"{here} has no classes.json beside {PurePosixPath(file).name}: expected {EXAMPLE}. Or give the list with "
        "--classes-json (in a recipe: data.classes)"
    )


def _content(place: str) -> bytes | None:
    try:
        return read_bytes(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error


def _json(content: bytes) -> Any:
    return json_of(content.decode("utf-8-sig"))


def _parsed(content: bytes, place: str) -> tuple[LabelClass, ...]:
    try:
        entries = _json(content)
    except ValueError as error:
        raise DataError(f"cannot read {place}: {error}. Expected {EXAMPLE}") from error
    return classes_of(entries, place)


def _names_of_batch(content: bytes, place: str) -> tuple[LabelClass, ...]:
    """The names of the results of ``deop batch``, whose label maps begin with id 1."""
    try:
        names = _json(content)["names"]
        entries = [{"id": number, "name": "|".join(texts)} for number, texts in enumerate(names, 1)]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"cannot read the names in {place}: {error!r}") from error
    return classes_of(entries, place)

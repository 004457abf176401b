"""``Segmentation.save``: which format a path and a format name mean, and its options."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deop.errors import OutputError, SettingError
from deop.files import replacing
from deop.results.archive import save_archive
from deop.results.formats import check_picture_suffix, save_json, save_picture

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


@dataclass(frozen=True)
class Format:
    """A format of ``Segmentation.save``.

    Attributes:
        write: writes a result to a path, with options.
        method: the method of ``Segmentation`` whose options it takes; None: it has none.
        suffixes: the suffixes that mean this format.
    """

    write: "Callable[[Segmentation, Path, Mapping[str, Any]], None]"
    method: str | None
    suffixes: tuple[str, ...] = ()


def save(result: "Segmentation", path: Path, format: str | None, options: Mapping[str, Any]) -> Path:
    """Write a result to a file; ``Segmentation.save`` describes the formats.

    Raises:
        SettingError: the format or an option is unknown.
        OutputError: the suffix is unknown, or the file cannot be written.
    """
    name = format if format is not None else _format_of(path)
    if name not in FORMATS:
        raise SettingError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    _check_options(result, path, name, options)
    FORMATS[name].write(result, path, options)
    return path


def _format_of(path: Path) -> str:
    for name, form in FORMATS.items():
        if path.suffix.lower() in form.suffixes:
            return name
    known = ", ".join(suffix for form in FORMATS.values() for suffix in form.suffixes)
    names = ", ".join(name for name, form in FORMATS.items() if not form.suffixes)
    raise OutputError(
        f"cannot write {path}: unknown suffix {path.suffix!r}; use one of {known}, or pass format= ({names})"
    )


def _check_options(result: "Segmentation", path: Path, name: str, options: Mapping[str, Any]) -> None:
    known = _options_of(result, FORMATS[name].method)
    for option in options:
        if option in known:
            continue
        others = [other for other, form in FORMATS.items() if option in _options_of(result, form.method)]
        if others:
            listed = " and ".join(others)
            raise SettingError(f"option {option!r} applies only to the format {listed}: omit it for {path.name}")
        listed = f"its options are {', '.join(known)}" if known else "it has no options"
        raise SettingError(f"unknown option {option!r} of save for the format {name}: {listed}")


def _options_of(result: "Segmentation", method: str | None) -> list[str]:
    if method is None:
        return []
    return [name for name in inspect.signature(getattr(result, method)).parameters if name != "path"]


def _picture(result: "Segmentation", path: Path, options: Mapping[str, Any]) -> None:
    form = check_picture_suffix(path)  # before drawing, which takes longer
    if form == "JPEG" and options.get("style") == "cutout":
        raise OutputError(f"cannot write {path}: JPEG has no transparency; use .png or .webp for a cut-out")
    save_picture(result.overlay(**options), path)


def _archive(result: "Segmentation", path: Path, options: Mapping[str, Any]) -> None:
    save_archive(result, path)


def _text(result: "Segmentation", path: Path, options: Mapping[str, Any]) -> None:
    text = result.to_yolo(**options)
    with replacing(path) as file:
        file.write(text.encode())


def _labels(result: "Segmentation", path: Path, options: Mapping[str, Any]) -> None:
    result.save_labels(path, **options)


def _panoptic(result: "Segmentation", path: Path, options: Mapping[str, Any]) -> None:
    """The complete file of panopticapi; its folder of PNG files is the folder of the JSON file."""
    picture_path = path.with_suffix(".png")
    if path == picture_path:
        raise OutputError(f"cannot write {path}: this is the JSON file of the panoptic format; use the suffix .json")
    picture, content = result.to_panoptic(**{"file_name": picture_path.name, **options})
    image = result.to_coco(image_id=content["annotation"]["image_id"])["images"]
    save_picture(picture, picture_path)
    content = {"images": image, "annotations": [content["annotation"]], "categories": content["categories"]}
    save_json(content, path, ascii_only=True)


def _json_of(method: str, as_list: bool = False) -> "Callable[[Segmentation, Path, Mapping[str, Any]], None]":
    def write(result: "Segmentation", path: Path, options: Mapping[str, Any]) -> None:
        content = getattr(result, method)(**options)
        save_json([content] if as_list else content, path, ascii_only=method != "summary")

    return write


FORMATS = {
    "picture": Format(_picture, "overlay", (".png", ".jpg", ".jpeg", ".webp")),
    "json": Format(_json_of("summary"), "summary", (".json",)),
    "npz": Format(_archive, None, (".npz",)),
    "geojson": Format(_json_of("to_geojson"), "to_geojson", (".geojson",)),
    "yolo": Format(_text, "to_yolo", (".txt",)),
    "labels": Format(_labels, "save_labels"),
    "coco": Format(_json_of("to_coco"), "to_coco"),
    "panoptic": Format(_panoptic, "to_panoptic"),
    "labelme": Format(_json_of("to_labelme"), "to_labelme"),
    "labelstudio": Format(_json_of("to_labelstudio", as_list=True), "to_labelstudio"),
}
"""The formats of ``Segmentation.save``, by name."""

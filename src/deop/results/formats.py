"""Pictures and JSON files, written completely or not at all."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from deop.errors import OutputError
from deop.files import replacing

_IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format that the file suffix names.

    Raises:
        OutputError: the suffix is unknown, the format does not support the size of the picture, or the file cannot be
            written.
    """
    form = check_picture_suffix(path)
    options: dict[str, dict[str, object]] = {
        "PNG": {"optimize": False},
        "JPEG": {"quality": 92, "subsampling": 0},
        "WEBP": {"quality": 92},
    }
    with replacing(path) as file:
        try:
            picture.save(file, form, **options[form])
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the format
            size = f"{picture.width} x {picture.height} px"
            raise OutputError(f"cannot write {path}: {form} does not support pictures of {size}; use .png") from error


def check_picture_suffix(path: Path) -> str:
    """Pillow's name of the format that a file suffix names.

    Raises:
        OutputError: the suffix is unknown.
    """
    form = _IMAGE_FORMATS.get(path.suffix.lower())
    if form is None:
        known = ", ".join(_IMAGE_FORMATS)
        raise OutputError(f"cannot write {path}: {path.suffix!r} is not a suffix of pictures; use one of {known}")
    return form


def save_json(content: Any, path: Path, *, ascii_only: bool = False) -> None:
    """Write JSON, as ``encode_json`` encodes it."""
    with replacing(path) as file:
        file.write(encode_json(content, ascii_only=ascii_only, indent=None if ascii_only else 2))


def encode_json(content: Any, *, ascii_only: bool = False, indent: int | None = None) -> bytes:
    """Encode JSON, with a line break at the end. File names that are not UTF-8 are escaped.

    Args:
        content: values that JSON supports; others are written as their ``str``.
        ascii_only: escape all characters beyond ASCII, for programs that read files in the encoding of the system.
        indent: indentation of nested values; None: one line.

    >>> encode_json({"photo": b"caf\\xe9.jpg".decode("utf-8", "surrogateescape")})
    b'{"photo": "caf\\\\udce9.jpg"}\\n'
    """
    text = json.dumps(content, ensure_ascii=ascii_only, indent=indent, default=str)
    # Such a file name has surrogates, for which backslashreplace writes JSON's own escapes.
    return text.encode("utf-8", "backslashreplace") + b"\n"

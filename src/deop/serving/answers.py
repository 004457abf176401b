"""Answers in the type that a client accepts: JSON with run lengths, or a picture."""

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from deop.serving.problems import Problem

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

JSON = "application/json"
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
TYPES = (JSON, *PICTURES)


class Answer(NamedTuple):
    """The body of an answer.

    Attributes:
        content: the bytes.
        type: the media type.
        banks: ids of the banks that were used.
    """

    content: bytes
    type: str
    banks: tuple[str, ...] = ()


def choose_type(accept: str | None) -> str:
    """The media type to answer with, from the header Accept; JSON where several are equally welcome.

    Raises:
        Problem: the client accepts none of ``TYPES``.

    >>> choose_type("image/png;q=0.9, application/json;q=0.1"), choose_type("*/*")
    ('image/png', 'application/json')
    """
    if not accept or not accept.strip():
        return JSON
    weights: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[name] = weight

    def weight_of(kind: str) -> float:
        for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
            if pattern in weights:
                return weights[pattern]
        return 0.0

    best = max(TYPES, key=weight_of)
    if not weight_of(best) > 0:
        raise Problem(406, f"this server answers with {', '.join(TYPES)}: accept one of these")
    return best


def render(result: "Segmentation", question: Any, kind: str, warnings: list[str]) -> Answer:
    """The answer to a question.

    Args:
        result: what the model found.
        question: a ``Question``.
        kind: one of ``TYPES``.
        warnings: remarks for people.

    Raises:
        Problem: a picture that this type of file cannot hold.
        NotFoundInPhotoError: a cut-out of names that no pixel has.
    """
    if kind == JSON:
        content = json.dumps({**result.summary(rle=True), "warnings": warnings}, ensure_ascii=False)
        return Answer(content.encode("utf-8", "backslashreplace"), JSON)
    if question.heatmap is not None:
        (values,) = result.heatmaps.values()
        grey = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
        return _encode(grey, kind, "a heatmap")
    if question.picture == "label-map":
        return _label_map(result, kind)
    if question.picture == "cutout":
        return _encode(result.cutout(), kind, "a cut-out")
    return _encode(result.overlay(style=question.picture), kind, "a picture")


def _label_map(result: "Segmentation", kind: str) -> Answer:
    if kind != "image/png":
        raise Problem(406, "a label map is a PNG file: accept image/png")
    from deop.results.label_maps import label_image

    image, info = label_image(result)
    file = BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return Answer(file.getvalue(), kind)


def _encode(image: Image.Image, kind: str, what: str) -> Answer:
    if image.mode == "RGBA" and kind == "image/jpeg":
        raise Problem(406, f"JPEG has no transparency, which {what} needs: accept image/png or image/webp")
    file = BytesIO()
    try:
        image.save(file, PICTURES[kind], **({"quality": 90} if kind != "image/png" else {}))
    except (OSError, ValueError):
        size = f"{image.width} x {image.height} px"
        raise Problem(406, f"{PICTURES[kind]} does not support pictures of {size}: accept image/png") from None
    return Answer(file.getvalue(), kind)

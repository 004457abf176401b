"""Reading a request about a photo, in a worker: forms, base64, JSON and the header of the photo's file."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from deop.errors import ImageError
from deop.images.reading import no_pixel_limit, open_image, read_photo
from deop.serving.bodies import FORM, JSON
from deop.serving.limits import Limits
from deop.serving.problems import Problem, exceeds
from deop.serving.questions import ENCODING_FIELDS, QUERY_FIELDS, Encoding, PhotoQuestion, Question, from_fields, parse

if TYPE_CHECKING:
    from deop.serving.bank_requests import Examples

FORMATS = frozenset(("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "HEIF", "AVIF"))
"""Pillow's names of the formats that are read. Others have decoders that start programs or are rarely tested."""


@dataclass(frozen=True)
class PhotoRequest:
    """A request about a photo that was sent with it.

    Attributes:
        photo: the bytes of the file.
        encoding: how to encode it.
        question: what to look for; None: nothing yet.
        examples: its marked regions; None: it has none.
    """

    photo: bytes
    encoding: Encoding
    question: Question | None
    examples: "Examples | None" = None


class _FormInMemory(MultiPartParser):
    spool_max_size = 1 << 62  # Starlette would write larger photos to a temporary file


def read_request(body: bytes, content_type: str, query: dict[str, str], limits: Limits, *, asks: bool) -> PhotoRequest:
    """A photo, how to encode it, and the question about it.

    Three forms are accepted: the bytes of the photo, with the fields in the address; a form with the file "photo"; JSON
    with the photo in base64. A field is given once, in the address or in the body.

    Args:
        body: the body of the request.
        content_type: the header of this name.
        query: the fields of the address.
        limits: for the photo and the names.
        asks: whether there is a question.

    Raises:
        Problem: naming the field or the limit, and what is wrong.
    """
    kind = content_type.partition(";")[0].strip().casefold()
    photo, inside = body, dict[str, Any]()
    fields = from_fields(query)
    if kind == JSON:
        content = parse(PhotoQuestion, body)
        photo, inside = _decode(content.photo), content.model_dump(exclude={"photo"}, exclude_unset=True)
    elif kind == FORM:
        photo, inside = asyncio.run(_read_photo_form(body, content_type, limits))
    if twice := fields.keys() & inside.keys():
        raise Problem(422, f"{', '.join(sorted(twice))}: given in the address and in the body: give it once")
    fields |= inside
    encoding = parse(Encoding, {name: fields.pop(name) for name in ENCODING_FIELDS if name in fields})
    question = None
    if asks:
        question = parse(Question, fields)
        question.check(limits)
    elif fields:
        raise Problem(422, f"{', '.join(fields)}: names and other fields belong to POST /v1/label")
    check_photo(photo, limits)
    return PhotoRequest(photo, encoding, question)


def _decode(text: str) -> bytes:
    head, separator, rest = text.partition(",")
    if separator and head.startswith("data:") and head.endswith(";base64"):
        text = rest
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise Problem(422, "photo: this is not base64") from None


async def read_form(
    body: bytes, content_type: str, limits: Limits, files: Sequence[str], fields: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files and the fields of a form, each given at most once.

    Args:
        body: the body of the request.
        content_type: the header of this name.
        limits: for the size of a part.
        files: names of files that the form may have.
        fields: names of fields that it may have.

    Raises:
        Problem: it cannot be read, or has something else.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    named = " and ".join(f'"{name}"' for name in files)
    noun = "file" if len(files) == 1 else "files"
    try:
        parser = _FormInMemory(
            Headers({"content-type": content_type}),
            stream(),
            max_files=len(files),
            max_fields=2 * len(fields),
            max_part_size=limits.bytes,
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError):
        raise Problem(422, f"the form cannot be read: send multipart/form-data with the {noun} {named}") from None
    found: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name in files and name not in found:
            found[name] = await value.read()
            await value.close()
        elif isinstance(value, str) and name in fields and name not in texts:
            texts[name] = value
        else:
            listed = ", ".join(fields)
            raise Problem(422, f"the form may have the {noun} {named} and the fields {listed}, each of them once")
    return found, texts


async def _read_photo_form(body: bytes, content_type: str, limits: Limits) -> tuple[bytes, dict[str, Any]]:
    files, fields = await read_form(body, content_type, limits, ("photo",), QUERY_FIELDS)
    if "photo" not in files:
        raise Problem(422, 'the form has no file "photo": with curl, add -F photo=@photo.jpg')
    return files["photo"], from_fields(fields)


def check_photo(data: bytes, limits: Limits) -> None:
    """Check a photo by the header of its file, before it is decoded.

    Raises:
        Problem: 415 for another kind of file, 413 for too many pixels.
    """
    if not data:
        raise Problem(422, "the photo is empty (0 bytes): send the bytes of an image file")
    try:
        with no_pixel_limit(), open_image(BytesIO(data)) as image:
            form, (width, height) = image.format, image.size
    except Exception:  # Pillow's plugins raise almost any exception for a damaged header
        raise Problem(415, _why(data)) from None
    if form not in FORMATS:
        raise Problem(415, f"this server does not read {form} files: convert the photo to JPEG or PNG")
    if width * height > limits.pixels:
        raise exceeds(413, "pixels", limits.pixels, f"the photo has {width:,} x {height:,} = {width * height:,} pixels")


def _why(data: bytes) -> str:
    try:
        read_photo(data, allow_urls=False)
    except ImageError as error:
        return str(error)
    return "the photo cannot be read: convert it to JPEG or PNG"

"""Bodies of requests: received within the limits, and kept in memory alone."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from deop.serving.access import ClientClosed
from deop.serving.limits import Limits
from deop.serving.problems import Problem, exceeds
from deop.serving.questions import QUERY_FIELDS, PhotoQuestion, Question, from_fields, parse

RAW, FORM, JSON = "application/octet-stream", "multipart/form-data", "application/json"


class _FormInMemory(MultiPartParser):
    spool_max_size = 1 << 62  # Starlette would write larger photos to a temporary file


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        Problem: 413 if it is too large, 408 if it takes too long.
        ClientClosed: the client has gone.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and int(announced) > limits.bytes:
        raise exceeds(413, "bytes", limits.bytes, f"the body has {int(announced):,} bytes")
    parts: list[bytes] = []
    total = 0
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for part in request.stream():
                total += len(part)
                if total > limits.bytes:
                    raise exceeds(413, "bytes", limits.bytes, f"the body has more than {limits.bytes:,} bytes")
                parts.append(part)
    except TimeoutError:
        what = f"the body took longer than {limits.upload_seconds:g} seconds"
        raise exceeds(408, "upload_seconds", limits.upload_seconds, what) from None
    except ClientDisconnect:
        raise ClientClosed from None
    return b"".join(parts)


def query_fields(request: Request) -> dict[str, str]:
    """The parameters of the address.

    Raises:
        Problem: a parameter that is given twice.
    """
    pairs = request.query_params.multi_items()
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Problem(422, "a parameter is given twice in the address: give it once, names with commas")
    return fields


async def read_photo_question(request: Request, limits: Limits) -> tuple[bytes, dict[str, Any]]:
    """A photo, and the fields of the question about it.

    Three forms are accepted: the bytes of the photo, with the fields in the address; a form with the file "photo"; JSON
    with the photo in base64. Fields of the body replace those of the address.

    Raises:
        Problem: 415 for another type of content, 422 for content that is not of its type.
    """
    kind = request.headers.get("content-type", RAW).partition(";")[0].strip().casefold()
    fields = from_fields(query_fields(request))
    if kind != JSON and kind != FORM and kind != RAW and not kind.startswith("image/"):
        raise Problem(
            415, f"the content must be image/* or {RAW} (the bytes of a photo), {FORM} or {JSON}: set Content-Type"
        )
    body = await read_body(request, limits)
    if kind == JSON:
        content = parse(PhotoQuestion, body)
        return _decode(content.photo), fields | content.model_dump(exclude={"photo"}, exclude_unset=True)
    if kind == FORM:
        photo, form = await _read_form(request, body, limits)
        return photo, fields | form
    return body, fields


def _decode(text: str) -> bytes:
    head, separator, rest = text.partition(",")
    if separator and head.startswith("data:") and head.endswith(";base64"):
        text = rest
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise Problem(422, "photo: this is not base64") from None


async def _read_form(request: Request, body: bytes, limits: Limits) -> tuple[bytes, dict[str, Any]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = _FormInMemory(
            request.headers,
            stream(),
            max_files=1,
            max_fields=2 * len(QUERY_FIELDS),
            max_part_size=limits.bytes,
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError):
        raise Problem(422, 'the form cannot be read: send multipart/form-data with one file, "photo"') from None
    photo: bytes | None = None
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name == "photo":
            photo = await value.read()
            await value.close()
        elif isinstance(value, str) and name in QUERY_FIELDS and name not in fields:
            fields[name] = value
        else:
            raise Problem(
                422, f'the form may have the file "photo" and, once each, the fields {", ".join(QUERY_FIELDS)}'
            )
    if photo is None:
        raise Problem(422, 'the form has no file "photo": with curl, add -F photo=@photo.jpg')
    return photo, from_fields(fields)


def question_of(fields: dict[str, Any], limits: Limits) -> tuple[Question, str | None]:
    """The question and the severance of checked fields.

    Raises:
        Problem: naming the field, or the limit.
    """
    severance = fields.pop("severance", None)
    question = parse(Question, fields)
    question.check(limits)
    return question, severance

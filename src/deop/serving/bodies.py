"""Bodies of requests, received within the limits. The process that accepts requests does not look into them."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from deop.serving.access import ClientClosed
from deop.serving.limits import Limits
from deop.serving.problems import Problem, exceeds

RAW, FORM, JSON = "application/octet-stream", "multipart/form-data", "application/json"


async def read_body(request: Request, limits: Limits, *, limit: str = "bytes") -> bytes:
    """The body of a request.

    Args:
        request: the request.
        limits: of the server.
        limit: the one that is meant for this body, "bytes" or "question_bytes".

    Raises:
        Problem: 413 if it is too large, 408 if it takes too long.
        ClientClosed: the client has gone.
    """
    maximum = getattr(limits, limit)
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and int(announced) > maximum:
        raise exceeds(413, limit, maximum, f"the body has {int(announced):,} bytes")
    parts: list[bytes] = []
    total = 0
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for part in request.stream():
                total += len(part)
                if total > maximum:
                    raise exceeds(413, limit, maximum, f"the body has more than {maximum:,} bytes")
                parts.append(part)
    except TimeoutError:
        what = f"the body took longer than {limits.upload_seconds:g} seconds"
        raise exceeds(408, "upload_seconds", limits.upload_seconds, what) from None
    except ClientDisconnect:
        raise ClientClosed from None
    return b"".join(parts)


def content_type_of(request: Request) -> str:
    """The header ``Content-Type`` of a request with a photo.

    Raises:
        Problem: 415 for a type that no photo comes in.
    """
    given = request.headers.get("content-type", RAW)
    kind = given.partition(";")[0].strip().casefold()
    if kind not in (RAW, FORM, JSON) and not kind.startswith("image/"):
        raise Problem(
            415, f"the content must be image/* or {RAW} (the bytes of a photo), {FORM} or {JSON}: set Content-Type"
        )
    return given


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

"""Bodies of requests to the server: a form, JSON, or the bytes of a photo."""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from starlette.requests import Request
from tests.trust.bad_input import CONTROL, HOSTILE, SCRIPTS, encoded

from deop.serving.bodies import content_type_of, query_fields
from deop.serving.limits import Limits
from deop.serving.photo_requests import read_request
from deop.serving.problems import Problem
from deop.serving.questions import StoredQuestion, parse
from fuzz.target import Target

LIMITS = Limits(bytes=1_000_000, pixels=2_000_000)


def ask(data: bytes, folder: Path) -> None:
    """The header Content-Type and the query in one line each, then the body. A refusal is an answer in JSON."""
    kind, _, rest = data.partition(b"\n")
    query, _, body = rest.partition(b"\n")
    headers = [(b"content-type", kind)] if kind else []
    request = Request({"type": "http", "method": "POST", "headers": headers, "query_string": query, "path": "/"})
    try:
        given, fields = content_type_of(request), query_fields(request)
        asked = read_request(body, given, fields, LIMITS, asks=True)
    except Problem as problem:
        json.loads(bytes(problem.response("0-0").body))
        if not 400 <= problem.status < 500:
            raise AssertionError(problem.detail) from problem
        raise
    assert asked.question is not None
    assert asked.photo


def read_stored(data: bytes, folder: Path) -> None:
    """A question about a stored photo, in JSON."""
    question = parse(StoredQuestion, data)
    question.check(LIMITS)


def form(**parts: bytes) -> bytes:
    """A form with a boundary "x"."""
    body = b""
    for name, content in parts.items():
        file = b'; filename="a.png"\r\nContent-Type: image/png' if name == "photo" else b""
        body += b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), file, content)
    return b"multipart/form-data; boundary=x\n\n" + body + b"--x--\r\n"


def bodies() -> Iterator[bytes]:
    """Every form of request, with the names of the table of bad input."""
    photo = encoded("PNG")
    for name in (*SCRIPTS[:6], *HOSTILE, *CONTROL):
        yield b"application/json\n\n" + json.dumps({"photo": b64encode(photo).decode(), "names": [name]}).encode()
        yield form(photo=photo, names=name.encode())
        yield b"image/png\n" + urlencode({"names": name, "threshold": "0.3"}).encode() + b"\n" + photo
    yield form(photo=photo, names=b"cat, dog", threshold=b"cat=0.3", smallest_region=b"0.1", heatmap=b"1")
    yield form(photo=photo, photo2=photo)
    yield b"multipart/form-data\n\n" + form(photo=photo)
    yield b"multipart/form-data; boundary=x; charset=utf-7\n\n" + form(names=b"cat").split(b"\n\n", 1)[1]
    yield b"multipart/form-data; boundary=x\n\n--x\r\n" + b"a: b\r\n" * 500
    yield b"application/json\n\n" + b"[" * 5000
    yield (
        b"application/json\n\n"
        + b'{"threshold": {"cat": 1e999}, "names": "cat", "photo": "data:image/png;base64,AA=="}'
    )


def questions() -> Iterator[bytes]:
    """Questions about stored photos."""
    for name in (*SCRIPTS[:6], *HOSTILE, *CONTROL):
        yield json.dumps({"id": "0-1", "names": [name, "cat|kitten"], "things": [name]}).encode()
    yield b'{"id": "0-1", "names": "a, b; c\\n d", "threshold": {"*": 0.5, "a": 0.1}, "mode": "instance"}'
    yield b'{"id": "0-1", "vocabulary": "coco", "heatmap": 200, "templates": "a {} b", "smallest_region": 0.5}'


TARGETS = (
    Target("request", ask, bodies, (Problem,)),
    Target("question", read_stored, questions, (Problem,)),
)

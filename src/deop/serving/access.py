"""Who may ask: the token, and the addresses a browser may come from; problems are answered, counted and logged."""

import asyncio
import hmac
import ipaddress
import re
import secrets
import time
import traceback
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders

from deop.serving.limits import Limits
from deop.serving.metrics import Metrics
from deop.serving.problems import Problem
from deop.serving.request_log import RequestLog

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/healthz", "/readyz")
"""What needs no token: probes, which say nothing about photos."""

CLIENT_CLOSED = 499
"""The status in the log when a client has closed the connection before the answer."""

_PATHS = frozenset((
    "/", "/v1/segment", "/v1/encode", "/v1/label", "/v1/marks", "/v1/models", "/v1/banks", "/healthz", "/readyz",
    "/metrics", "/openapi.json",
))  # fmt: skip
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
_DRAIN_SECONDS = 2.0
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ClientClosed(Exception):
    """The client has closed the connection."""


class Gate:
    """The outermost layer of the application: it checks who asks, and logs, counts and answers every problem.

    Args:
        app: what answers.
        tokens: clients must know one of them; none: nothing, and then only requests to a loopback address are answered.
        limits: for the size of a body that is refused.
        metrics: what is counted.
        log: where requests are logged.
        place: takes a place for a request that needs a worker, before its body is received, or raises a ``Problem``.
    """

    def __init__(
        self,
        app: Application,
        *,
        tokens: Sequence[str],
        limits: Limits,
        metrics: Metrics,
        log: RequestLog,
        place: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._app = app
        self._tokens = [token.encode() for token in tokens]
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as an ASGI application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start = time.monotonic()
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        state: dict[str, Any] = {"status": 0, "consumed": False, "sent": 0}

        async def watching_receive() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                state["consumed"] = True
            return message

        async def watching_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                added = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "X-Request-ID": request_id}.items():
                    added[name] = value
                if scope["path"].startswith("/v1/"):
                    added["Cache-Control"] = "no-store"
            else:
                state["sent"] += len(message.get("body", b""))
            await send(message)

        async def refuse(problem: Problem) -> None:
            if problem.limit is not None:
                self._metrics.refusals.labels(problem.limit).inc()
            if not state["consumed"] and _closes(scope, headers) and "expect" not in headers:
                # The connection is closed after the answer, which would be lost with what is still to come.
                await self._drain(watching_receive)
            await problem.response(request_id)(scope, watching_receive, watching_send)

        problem: Problem | None = None
        try:
            scope["state"]["owner"] = self._check(scope, headers)
            needs_worker = scope["method"] in ("POST", "DELETE") and scope["path"].startswith("/v1/")
            with self._place() if needs_worker else nullcontext():
                await self._app(scope, watching_receive, watching_send)
            if error := scope["state"].get("error"):
                raise error
        except Problem as error:
            problem = error
        except ClientClosed:
            self._metrics.cancelled.inc()
            state["status"] = CLIENT_CLOSED
        except Exception as error:
            self.log_crash(request_id, type(error).__name__, _places(error))
            problem = Problem(500, "this is a bug of the server: report it with the lines of its log")
        if problem is not None and state["status"] == 0:
            await refuse(problem)
        path = _path(scope["path"])
        method = scope["method"] if scope["method"] in _METHODS else "other"
        seconds = time.monotonic() - start
        self._metrics.requests.labels(method, path, str(state["status"])).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        if path in OPEN_PATHS and state["status"] == 200:
            return  # probes come every few seconds
        extra = {} if problem is None or problem.limit is None else {"limit": problem.limit}
        self._log.write(
            "request",
            request_id=request_id,
            method=method,
            path=path,
            status=state["status"],
            seconds=round(seconds, 4),
            bytes=state["sent"],
            **extra,
        )

    def log_crash(self, request_id: str, kind: str, places: tuple[str, ...]) -> None:
        """Log where an unexpected error was raised. Its message may contain names, and is left out."""
        self._log.write("error", "error", request_id=request_id, type=kind, places=list(places))

    def _check(self, scope: Scope, headers: Headers) -> int:
        """Refuse who may not ask; else the index of the token, whose banks the client may use."""
        path = scope["path"]
        if path in OPEN_PATHS:
            return 0
        owner: int | None = 0
        if not self._tokens:
            if not is_loopback(_host_name(headers.get("host", ""))):
                raise Problem(
                    403,
                    "without a token, this server answers only requests to localhost: start it with --token-file, or "
                    "open it as http://localhost",
                )
        else:
            owner = self._owner(_given_token(headers.get("authorization", "")))
        if owner is None:
            raise Problem(
                401,
                "a token is needed: send the header Authorization: Bearer TOKEN, or the token as password in a browser",
                headers={"WWW-Authenticate": 'Basic realm="deop", charset="UTF-8", Bearer realm="deop"'},
            )
        # CORS is closed, but browsers send some requests of other sites without asking first.
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
        if (foreign or headers.get("sec-fetch-site") == "cross-site") and path.startswith("/v1/"):
            raise Problem(403, "this server does not answer pages of other sites")
        return owner

    def _owner(self, token: bytes) -> int | None:
        """The index of a token; all are compared, so that the time says nothing about them."""
        equal = [hmac.compare_digest(token, known) for known in self._tokens]
        return equal.index(True) if any(equal) else None

    async def _drain(self, receive: Receive) -> None:
        """Receive the rest of a body."""
        total = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while total <= self._limits.bytes:
                    message = await receive()
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return
                    total += len(message.get("body", b""))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone.

    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _closes(scope: Scope, headers: Headers) -> bool:
    """Whether the connection is closed after the answer. Otherwise the protocol receives the rest of the body."""
    return scope.get("http_version") == "1.0" or "close" in headers.get("connection", "").casefold()


def _host_name(host: str) -> str:
    """The name in a header Host, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _given_token(authorization: str) -> bytes:
    """The token of the header: that of Bearer, or the password of Basic."""
    scheme, _, value = authorization.partition(" ")
    if scheme.casefold() == "bearer":
        return value.strip().encode()
    if scheme.casefold() == "basic":
        with suppress(ValueError):
            return b64decode(value.strip(), validate=True).partition(b":")[2]
    return b""


def _request_id(given: str | None) -> str:
    """The id of a request: that of a proxy, if it has a harmless form."""
    return given if given and re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else secrets.token_hex(8)


def _path(path: str) -> str:
    """A path for logs and metrics, where ids of photos and banks do not belong.

    >>> _path("/v1/banks/4f6sJ2bD/file"), _path("/v1/banks/4f6sJ2bD/cup")
    ('/v1/banks/{id}/file', 'other')
    """
    if path in _PATHS:
        return path
    if path.startswith("/v1/encode/"):
        return "/v1/encode/{id}"
    if path.startswith("/v1/banks/"):
        tail = path.removeprefix("/v1/banks/").partition("/")[2]
        if tail in ("", "file", "examples", "forget"):
            return "/v1/banks/{id}" + (tail and f"/{tail}")
    return "other"


def _places(error: BaseException) -> tuple[str, ...]:
    frames = traceback.extract_tb(error.__traceback__)
    return tuple(f"{frame.filename}:{frame.lineno}" for frame in frames[-12:])

"""Connections that do nothing, send too slowly or take no answer are closed; their number is bounded.

uvicorn has a limit for idle connections that have made a request, and none for the others.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from deop.serving.limits import Limits
from deop.serving.metrics import Metrics
from deop.serving.problems import MEDIA_TYPE, Problem
from deop.serving.request_log import RequestLog

_SWEEP_SECONDS = 1.0
_PHASES = {
    "new": ("head_seconds", "the connection makes no request"),
    "head": ("head_seconds", "the head of the request is not complete"),
    "idle": ("idle_seconds", "the connection makes no request"),
    "refused body": ("upload_seconds", "a body that was refused has not ended"),
    "answer": ("send_seconds", "the client does not take the answer"),
}
"""What a connection may wait for: the limit of the time, and what is wrong then."""


class ConnectionGuard:
    """Watches the connections of one server.

    Args:
        limits: how many connections there may be, and how long each may wait for what.
        metrics: what is counted.
        log: where requests are logged that are not HTTP.
    """

    def __init__(self, limits: Limits, metrics: Metrics, log: RequestLog) -> None:
        self.limits = limits
        self.metrics = metrics
        self.log = log
        self.idle: dict[GuardedProtocol, None] = {}
        """Connections without a request, the one that has waited longest first."""
        self.connections: set[GuardedProtocol] = set()

    def protocol(self, **options: Any) -> "GuardedProtocol":
        """The protocol of a new connection, as uvicorn creates it."""
        return GuardedProtocol(guard=self, **options)

    def added(self, connection: "GuardedProtocol") -> None:
        """Count a new connection, and make room for it."""
        self.connections.add(connection)
        self.metrics.connections.set(len(self.connections))
        self.idle[connection] = None
        if len(self.connections) > self.limits.connections:
            self.close(next(iter(self.idle)), "connections")

    def removed(self, connection: "GuardedProtocol") -> None:
        """Forget a connection that has ended."""
        self.connections.discard(connection)
        self.metrics.connections.set(len(self.connections))
        self.idle.pop(connection, None)

    def close(self, connection: "GuardedProtocol", limit: str) -> None:
        """Close a connection at once because of a limit."""
        self.metrics.closed.labels(limit).inc()
        self.removed(connection)
        connection.transport.abort()

    async def sweep(self) -> None:
        """Close connections that wait for too long; runs for ever."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self.connections):
                phase = connection.phase()
                if connection.changed(phase, now) or phase not in _PHASES:
                    continue
                limit, what = _PHASES[phase]
                seconds = getattr(self.limits, limit)
                if now - connection.since > seconds:
                    if phase == "head":
                        detail = f"{what} after {seconds:g} seconds"
                        connection.refuse(Problem(408, detail, limit=limit, maximum=seconds))
                    self.close(connection, limit)


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, known to a ``ConnectionGuard``."""

    def __init__(self, *, guard: ConnectionGuard, **options: Any) -> None:
        super().__init__(**options)
        self._guard = guard
        self._phase: tuple[str, object] = ("new", None)
        self.since = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._guard.added(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._guard.removed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        super().data_received(data)
        self._count()

    def on_response_complete(self) -> None:
        """The answer is on its way."""
        super().on_response_complete()
        self._count()

    def _count(self) -> None:
        idle = self._guard.idle
        if self.conn.their_state is not h11.IDLE:
            idle.pop(self, None)
        elif self not in idle and self in self._guard.connections:
            idle[self] = None

    def phase(self) -> str:
        """What the connection waits for, a key of ``_PHASES``, or "request": the application has its own limits."""
        if self.transport.is_closing() or self.flow.write_paused:
            return "answer"
        if self.conn.their_state is h11.IDLE:
            if self.conn.trailing_data[0]:
                return "head"
            return "new" if self.cycle is None else "idle"
        if self.cycle is not None and self.cycle.response_complete:
            return "refused body"
        return "request"

    def changed(self, phase: str, now: float) -> bool:
        """Whether this is another phase, or that of another request, than when this was called before."""
        if self._phase[0] == phase and self._phase[1] is self.cycle:
            return False
        self._phase, self.since = (phase, self.cycle), now
        return True

    def refuse(self, problem: Problem) -> None:
        """Answer by hand what is not a request, and close the connection."""
        self._guard.log.write("bad request", "warning", status=problem.status)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps(problem.content("")).encode()
        headers = [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body))), ("Connection", "close")]
        try:
            for event in (h11.Response(status_code=problem.status, headers=headers), h11.Data(data=body)):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError:  # another answer has begun
            self.transport.abort()
            return
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; called by uvicorn while it handles the error."""
        status = getattr(sys.exception(), "error_status_hint", 400)
        detail = "the head of the request is too large" if status == 431 else "this is not a request of HTTP/1.1"
        self.refuse(Problem(status, detail))


def raise_file_limit(connections: int) -> int:
    """Allow as many open files as connections need, as far as the system permits.

    Returns:
        How many connections are possible.
    """
    try:
        import resource  # not on Windows
    except ImportError:
        return connections
    spare = 100  # of the server itself
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + spare
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, soft - spare)
    return connections

"""The log of the server: lines without anything that a client has sent, which never wait for whoever reads them."""

import json
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

_AT_ONCE = getattr(select, "PIPE_BUF", 512)  # bytes that a pipe with room takes without a wait


class RequestLog:
    """A log with one JSON object per line; on a terminal, with a short line for people.

    Nothing that a client has sent is logged but the id of its request. A line that cannot be written at once, because a
    pipe is full, a terminal is stopped or the disk is full, is lost, so that the server does not wait for the reader
    of its log. Lost lines are counted, and the next line that can be written is preceded by their number.

    Args:
        stream: where to write; None: standard error, as it is when a line is written.

    Attributes:
        when_lost: called for each line that is lost.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lost = 0
        self._torn = False  # whether the last line was written in part
        self.when_lost: Callable[[], object] = lambda: None

    def write(self, event: str, level: str = "info", **values: Any) -> None:
        """Write one line, or lose it."""
        stream = self._stream or sys.stderr
        try:
            if self._lost and self._write(stream, _line(stream, "lines lost", "warning", {"count": self._lost})):
                self._lost = 0
            written = not self._lost and self._write(stream, _line(stream, event, level, values))
        except (OSError, ValueError, AttributeError):  # a terminal or a pipe that was closed, a full disk, no stderr
            written = False
        if not written:
            self._lost += 1
            self.when_lost()

    def _write(self, stream: TextIO, line: str) -> bool:
        """Write a line; whether all of it was written."""
        handle = None
        with suppress(OSError):
            handle = stream.fileno()
        if handle is None:  # a stream in memory
            stream.write(line)
            return True
        content = memoryview((b"\n" if self._torn else b"") + line.encode("utf-8", "backslashreplace"))
        while content and _has_room(handle):
            content = content[os.write(handle, content[:_AT_ONCE]) :]
            self._torn = bool(content)
        return not content


def _has_room(handle: int) -> bool:
    """Whether ``_AT_ONCE`` bytes can be written without a wait, or an error be raised; always on Windows."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    return bool(poll.poll(0))


def _line(stream: TextIO, event: str, level: str, values: dict[str, Any]) -> str:
    if stream.isatty():
        return _for_people(event, values) + "\n"
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "event": event, **values}) + "\n"


def _for_people(event: str, values: dict[str, Any]) -> str:
    """A line of the log on a terminal.

    >>> _for_people("request", {"method": "GET", "path": "/", "status": 200, "seconds": 0.01, "request_id": "1f"})[10:]
    'GET / 200 0.010 s'
    """
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    if event != "request":
        return f"{now}  {event}: " + ", ".join(f"{name} {value}" for name, value in values.items())
    limit = f" (limit {values['limit']})" if "limit" in values else ""
    return f"{now}  {values['method']} {values['path']} {values['status']} {values['seconds']:.3f} s{limit}"

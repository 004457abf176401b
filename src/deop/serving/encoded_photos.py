"""Encoded photos that wait for questions: a cache with bounded memory and time."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from deop.serving.problems import Problem, exceeds


@dataclass
class _Entry:
    encoded: Any
    size: int
    used: float


class EncodedPhotos:
    """The encoded photos of one worker, by id. Those that were used longest ago make room for new ones.

    Args:
        max_bytes: memory of all entries.
        max_seconds: an entry is forgotten when it has not been used for this long.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, max_bytes: int, max_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: str, encoded: Any) -> None:
        """Keep an encoded photo.

        Raises:
            Problem: it needs more memory than all photos together may have.
        """
        self.expire()
        size = memory_of(encoded)
        if size > self._max_bytes:
            raise exceeds(413, "cache_bytes", self._max_bytes, f"the encoded photo has {size:,} bytes")
        while self.bytes + size > self._max_bytes:
            self.remove(next(iter(self._entries)))
        self._entries[key] = _Entry(encoded, size, self._clock())
        self.bytes += size

    def get(self, key: str) -> Any:
        """An encoded photo.

        Raises:
            Problem: the id is not known, or no longer.
        """
        self.expire()
        entry = self._entries.get(key)
        if entry is None:
            raise unknown_photo()
        entry.used = self._clock()
        self._entries.move_to_end(key)
        return entry.encoded

    def remove(self, key: str) -> bool:
        """Forget an encoded photo; whether it was there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size
        return entry is not None

    def expire(self) -> None:
        """Forget what has not been used for too long. Entries are in the order of their use."""
        oldest = self._clock() - self._max_seconds
        while self._entries and next(iter(self._entries.values())).used < oldest:
            self.remove(next(iter(self._entries)))


def unknown_photo() -> Problem:
    """The problem that a photo has not been encoded here, or has been forgotten."""
    detail = "this server has no encoded photo with this id, or has forgotten it: encode the photo again"
    return Problem(404, detail, missing="photo")


def memory_of(value: Any) -> int:
    """Bytes of all arrays and tensors in an encoded photo."""
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    if is_dataclass(value):
        return sum(memory_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, dict):
        return sum(map(memory_of, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(memory_of, value))
    return sum(map(memory_of, vars(value).values())) if hasattr(value, "__dict__") and not callable(value) else 0

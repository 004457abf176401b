"""Banks of examples that clients have: bytes that the accepting process keeps and only workers read."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deop.serving.limits import Limits
from deop.serving.problems import Problem, exceeds

if TYPE_CHECKING:
    from deop.bank import Bank


@dataclass(frozen=True)
class StoredBank:
    """A bank between two requests.

    Attributes:
        digest: of its content; "" for a bank without examples.
        content: the bytes of its file.
        names: each name with the number of its regions and of their photos.
        regions: number of regions, also of those without a name.
        photos: number of photos.
    """

    digest: str = ""
    content: bytes = b""
    names: tuple[tuple[str, int, int], ...] = ()
    regions: int = 0
    photos: int = 0

    @classmethod
    def of(cls, bank: "Bank", *, with_content: bool = True) -> "StoredBank":
        """A bank that has examples."""
        names = tuple((name, *counts) for name, counts in bank.counts().items() if name)
        content = bank.to_bytes() if with_content else b""
        return cls(bank.digest, content, names, len(bank), len(bank.photos))

    def summary(self, key: str, *, given: bool = False) -> dict[str, Any]:
        """What ``GET /v1/banks/{id}`` answers.

        Args:
            key: its id.
            given: whether the operator of the server gave it.
        """
        names = [{"name": name, "regions": regions, "photos": photos} for name, regions, photos in self.names]
        return {
            "id": key,
            "given": given,
            "names": names,
            "regions": self.regions,
            "photos": self.photos,
            "bytes": len(self.content),
        }


@dataclass(frozen=True)
class MissingBanks:
    """What a worker returns that does not have the content of some banks: the work is sent again with it.

    Attributes:
        digests: of these banks.
    """

    digests: tuple[str, ...]


@dataclass
class _Entry:
    bank: StoredBank
    used: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Banks:
    """The banks of one token. Those that were used longest ago make room for new ones.

    Args:
        limits: their number, memory and lifetime.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Memory of all banks."""
        return sum(len(entry.bank.content) for entry in self._entries.values())

    def create(self, bank: StoredBank) -> str:
        """Keep a bank under a new id, which cannot be guessed.

        Raises:
            Problem: it is larger than all banks together may be.
        """
        self.expire()
        key = secrets.token_urlsafe(18)
        self._check(bank)
        while len(self._entries) >= self._limits.banks:
            self._entries.popitem(last=False)
        self._entries[key] = _Entry(bank, self._clock())
        self._make_room(key)
        return key

    def replace(self, key: str, bank: StoredBank) -> None:
        """Keep another content under an id.

        Raises:
            Problem: it is too large, or the bank was deleted in between.
        """
        entry = self._entry(key)
        self._check(bank)
        entry.bank = bank
        self._make_room(key)

    def get(self, key: str) -> StoredBank:
        """A bank.

        Raises:
            Problem: the id is not known, or no longer.
        """
        return self._entry(key).bank

    def lock(self, key: str) -> asyncio.Lock:
        """What somebody holds who changes a bank.

        Raises:
            Problem: as ``get``.
        """
        return self._entry(key).lock

    def remove(self, key: str) -> None:
        """Forget a bank.

        Raises:
            Problem: as ``get``.
        """
        self._entry(key)
        del self._entries[key]

    def all(self) -> dict[str, StoredBank]:
        """All banks by id, as they are now."""
        self.expire()
        return {key: entry.bank for key, entry in self._entries.items()}

    def touch(self, keys: Sequence[str]) -> None:
        """Note that banks were used."""
        for key in keys:
            if key in self._entries:
                self._entry(key)

    def expire(self) -> None:
        """Forget what has not been used for too long. Entries are in the order of their use."""
        oldest = self._clock() - self._limits.bank_seconds
        while self._entries and next(iter(self._entries.values())).used < oldest:
            self._entries.popitem(last=False)

    def _entry(self, key: str) -> _Entry:
        self.expire()
        entry = self._entries.get(key)
        if entry is None:
            raise unknown_bank()
        entry.used = self._clock()
        self._entries.move_to_end(key)
        return entry

    def _check(self, bank: StoredBank) -> None:
        if len(bank.content) > self._limits.bank_bytes:
            raise exceeds(413, "bank_bytes", self._limits.bank_bytes, f"the bank has {len(bank.content):,} bytes")

    def _make_room(self, key: str) -> None:
        while self.bytes > self._limits.bank_bytes:
            self._entries.pop(next(other for other in self._entries if other != key))


def unknown_bank() -> Problem:
    """The problem that a bank does not exist, no longer exists, or belongs to another token."""
    detail = "this server has no bank with this id, or has forgotten it: create it again, or upload its file"
    return Problem(404, detail, missing="bank")


def check_size(bank: "Bank", limits: Limits) -> None:
    """Check a bank that a client has made or sent.

    Raises:
        Problem: naming the limit.
    """
    if len(bank) > limits.bank_regions:
        raise exceeds(413, "bank_regions", limits.bank_regions, f"the bank would have {len(bank):,} regions")
    count = sum(name.count("|") + 1 for name in bank.names)
    if count > limits.names:
        raise exceeds(422, "names", limits.names, f"the bank would have {count:,} names")
    longest = max(map(len, bank.names), default=0)
    if longest > limits.characters:
        raise exceeds(422, "characters", limits.characters, f"a name of the bank has {longest:,} characters")


def given_summaries(banks: Mapping[str, "Bank"]) -> dict[str, dict[str, Any]]:
    """The banks of the operator, as ``GET /v1/banks`` lists them."""
    summaries = {}
    for name, bank in banks.items():
        size = int(bank.regions.nbytes) + 13 * len(bank)
        summaries[name] = StoredBank.of(bank, with_content=False).summary(name, given=True) | {"bytes": size}
    return summaries

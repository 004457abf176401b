"""A lease on an output in an object store, so that one batch at a time writes it. Stores have no locks.

The owner writes a file, and again every ``RENEWAL`` seconds. Another batch that finds the file watches it: if it
changes, its owner is alive and the batch is refused; if it stays as it is for ``PATIENCE`` seconds, its owner was
killed and the lease is taken over. Nothing depends on the clocks of machines. An owner that is a dead process of this
machine is not waited for.
"""

import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deop.errors import OutputError, SettingError
from deop.files import json_of

RENEWAL = 20.0
"""Seconds between renewals."""
PATIENCE = 90.0
"""Seconds without a renewal after which an owner counts as dead."""
SETTLING = 0.5
"""Seconds between writing a lease and reading it again, in case another batch has written it at the same time."""
_WATCH = 2.0  # seconds between looks at the lease of another batch
_held: set[str] = set()  # keys of the leases of this process


class Lease:
    """A lease on an output.

    Args:
        place: the output, for messages.
        read: the content of the file of the lease, or None.
        write: writes it.
        remove: deletes it.
    """

    def __init__(
        self,
        place: str,
        *,
        read: Callable[[], bytes | None],
        write: Callable[[bytes], None],
        remove: Callable[[], None],
    ) -> None:
        self._place, self._read, self._write, self._remove = place, read, write, remove
        self._key = uuid.uuid4().hex
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._other: dict[str, Any] | None = None

    def take(self) -> None:
        """Become the owner, and stay it until ``give_back``.

        Raises:
            SettingError: another batch is running.
            OutputError: the store cannot be reached.
        """
        before = self._read()
        if before is not None and not _is_dead(_parse(before)):
            self._watch(before)
        self._write(self._content())
        time.sleep(SETTLING)
        owner = _parse(self._read())
        if owner.get("key") != self._key:
            raise self._refusal(owner)
        _held.add(self._key)
        self._thread = threading.Thread(target=self._renew, name="deop-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that this process is still the owner.

        Raises:
            OutputError: another batch has taken the output over.
        """
        if self._other is not None:
            raise OutputError(
                f"another batch has taken over {self._place}: {_describe(self._other)}. This one could not reach the "
                f"store for more than {PATIENCE:g} s; finished shards are kept"
            )

    def give_back(self) -> None:
        """Delete the lease."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        _held.discard(self._key)
        with suppress(OutputError):  # the next batch waits until the lease is out of date
            if _parse(self._read()).get("key") == self._key:
                self._remove()

    def _watch(self, before: bytes) -> None:
        """Wait until the lease of another batch is out of date."""
        owner = _parse(before)
        warnings.warn(
            f"{self._place} was being written by {_describe(owner)}: waiting up to {PATIENCE:g} s to see whether it "
            "still runs",
            stacklevel=2,
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(min(_WATCH, PATIENCE))
            now = self._read()
            if now is None:
                return
            if now != before:
                raise self._refusal(_parse(now))

    def _refusal(self, owner: dict[str, Any]) -> SettingError:
        return SettingError(
            f"another batch is writing {self._place}: {_describe(owner)}. Wait for it or stop it, or choose another "
            "output"
        )

    def _content(self) -> bytes:
        """The lease as JSON; each is different."""
        owner = {
            "key": self._key,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": _machine(),
            "renewed": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "number": uuid.uuid4().hex,
        }
        return json.dumps(owner, indent=1).encode()

    def _renew(self) -> None:
        while not self._end.wait(RENEWAL):
            with suppress(OutputError):  # the store cannot be reached: the batch itself notices
                content = self._read()
                owner = _parse(content)
                if content is not None and owner.get("key") != self._key:
                    self._other = owner
                    return
                self._write(self._content())


def _parse(content: bytes | None) -> dict[str, Any]:
    try:
        owner = json_of(content or b"{}")
    except ValueError:
        owner = {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict[str, Any]) -> str:
    if "host" not in owner:
        return "an unknown process"
    return f"process {owner.get('process')} on {owner['host']} (last renewed {owner.get('renewed')})"


def _machine() -> str | None:
    """The boot of this machine and the name space of its process numbers; None if they cannot be told apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return None


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that does not exist any more."""
    machine, process = _machine(), owner.get("process")
    if machine is None or owner.get("machine") != machine or not isinstance(process, int):
        return False
    if process == os.getpid():
        return owner.get("key") not in _held
    return not Path(f"/proc/{process}").exists()

"""Text embeddings on disk: one SQLite file per text encoder, shared by any number of processes."""

import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

try:
    import fcntl
except ImportError:  # Windows, which does not remove a file that another process has opened
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

_SCHEMA = "CREATE TABLE IF NOT EXISTS texts (templates TEXT, text TEXT, row BLOB, PRIMARY KEY (templates, text))"
_MAPPED_BYTES = 1 << 30
_TIMEOUT = 60.0  # seconds to wait for other processes that write
_TEXTS_PER_QUERY = 900  # older builds of SQLite allow 999 parameters
_OFF = ("", "0", "off", "none")


class CacheWarning(UserWarning):
    """The cache of text embeddings is damaged or cannot be used; results are not affected."""


def default_cache_folder() -> Path | None:
    """``DEOP_CACHE``, else ``XDG_CACHE_HOME/deop``, else ``~/.cache/deop``; None if ``DEOP_CACHE`` is "off"."""
    folder = os.environ.get("DEOP_CACHE")
    if folder is not None:
        return None if folder.strip().lower() in _OFF else Path(folder).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "deop"


class EmbeddingCache:
    """Embeddings by text encoder, template set and text.

    SQLite locks the file between processes, and its journal undoes the changes of a writer that was killed. A problem
    with the file leads to a CacheWarning and to texts being embedded again, but never to an error. A damaged file is
    rebuilt, unless another process uses it at that moment.

    Args:
        folder: where the files are; None: ``default_cache_folder()``, which may switch the cache off.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_cache_folder() if folder is None else Path(folder)

    def path(self, identity: str) -> Path | None:
        """The file of a text encoder; None if the cache is off."""
        return None if self.folder is None else self.folder / "text" / f"{identity}.sqlite"

    def load(self, identity: str, templates: Sequence[str], texts: Iterable[str], width: int) -> dict[str, np.ndarray]:
        """Load the embeddings of those texts that are in the cache.

        Args:
            identity: identity of the text encoder, suitable as a file name.
            templates: sentences that the texts were put into.
            texts: any number of texts.
            width: number of channels C.

        Returns:
            For each text that is in the cache its embedding, (C,) float32 of unit length. Damaged rows are skipped
            with a CacheWarning.
        """
        path, key, requested = self.path(identity), _key(templates), list(texts)
        try:
            if path is None or not path.is_file():
                return {}
        except OSError as error:  # no permission to list the folder
            _warn_unusable(self.folder, error)
            return {}

        def read(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            rows: list[tuple[str, bytes]] = []
            for start in range(0, len(requested), _TEXTS_PER_QUERY):
                part = requested[start : start + _TEXTS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT text, row FROM texts WHERE templates = ? AND text IN ({marks})"
                rows += connection.execute(query, [key, *part]).fetchall()
            return rows

        stored = self._with_file(path, read) or []
        complete = [(text, row) for text, row in stored if isinstance(row, bytes) and len(row) == 4 * width]
        rows = np.frombuffer(b"".join(row for _, row in complete), "<f4").reshape(-1, width)
        # Every row was stored with length 1, so that a flipped bit is found without a checksum.
        intact = np.abs(np.square(rows, dtype=np.float64).sum(1) - 1) < 1e-4
        if damaged := len(stored) - int(intact.sum()):
            warnings.warn(f"{damaged} damaged rows in {path}: they are embedded again", CacheWarning, stacklevel=2)
        return {text: row for (text, _), row, good in zip(complete, rows, intact, strict=True) if good}

    def store(self, identity: str, templates: Sequence[str], rows: Mapping[str, np.ndarray]) -> None:
        """Add or replace embeddings, (C,) float32 of unit length by text: either all of them or none."""
        path, key = self.path(identity), _key(templates)
        if path is None:
            return
        values = [(key, text, np.ascontiguousarray(row, "<f4").tobytes()) for text, row in rows.items()]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", values)

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _warn_unusable(path, error)
            return
        self._with_file(path, write)

    def _with_file(self, path: Path, use: Callable[[sqlite3.Connection], T]) -> T | None:
        """Use the file, which is rebuilt first if it is damaged; None if it cannot be used."""
        try:
            with _lock(path, alone=False):
                return _use(path, use)
        except sqlite3.OperationalError as error:  # no permission, a full disk, locked for too long
            _warn_unusable(path, error)
            return None
        except sqlite3.DatabaseError as error:  # not a database, or a malformed one
            damage = error
        try:
            with _lock(path, alone=True) as locked:
                if not locked:
                    reason = "another process uses it, or its folder is read-only"
                    _warn_unusable(path, damage, f"; it cannot be rebuilt because {reason}")
                    return None
                try:
                    return _use(path, use)  # another process may have rebuilt it
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError:
                    _remove(path)
                warnings.warn(f"{path} is damaged ({damage}): it is rebuilt", CacheWarning, stacklevel=4)
                return _use(path, use)
        except (sqlite3.DatabaseError, OSError) as error:
            _warn_unusable(path, error)
            return None


def _use(path: Path, use: Callable[[sqlite3.Connection], T]) -> T:
    with closing(sqlite3.connect(path, timeout=_TIMEOUT)) as connection:
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        connection.execute("PRAGMA synchronous = NORMAL")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'texts'").fetchone():
            with connection:
                connection.execute(_SCHEMA)
        return use(connection)


@contextmanager
def _lock(path: Path, *, alone: bool) -> Iterator[bool]:
    """Hold the lock file beside a cache file: shared by all that use the cache file, or alone to remove it.

    Yields:
        Whether the lock is held. It is not if others hold it (``alone``), or if the folder does not support locks.
    """
    if fcntl is None:
        yield True
        return
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # a folder without write permission, in which nothing is removed either
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(lock)


def _key(templates: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(templates)).encode()).hexdigest()[:32]


def _remove(path: Path) -> None:
    path.with_name(path.name + "-journal").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _warn_unusable(path: Path | None, error: Exception, detail: str = "") -> None:
    warnings.warn(
        f"cannot use the cache of text embeddings {path}: {error}{detail}. Names are embedded again each time; "
        "set DEOP_CACHE to another folder, or DEOP_CACHE=off to work without a cache",
        CacheWarning,
        stacklevel=5,
    )

"""Text embeddings on disk: one SQLite file a text encoder, memory-mapped, shared by any number of processes."""

import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

Answer = TypeVar("Answer")

_LAYOUT = "CREATE TABLE IF NOT EXISTS texts (templates TEXT, text TEXT, row BLOB, PRIMARY KEY (templates, text))"
_MAPPED_BYTES = 1 << 30
_SECONDS_TO_WAIT = 60.0  # for other processes that write
_TEXTS_A_QUERY = 900  # SQLite's older builds allow 999 parameters
_OFF = ("", "0", "off", "none")


class CacheWarning(UserWarning):
    """The cache of text embeddings was damaged or cannot be used; results are not affected."""


def default_cache_folder() -> Path | None:
    """``DEOP_CACHE``, else ``XDG_CACHE_HOME/deop``, else ``~/.cache/deop``; None where ``DEOP_CACHE`` is "off"."""
    chosen = os.environ.get("DEOP_CACHE")
    if chosen is not None:
        return None if chosen.strip().lower() in _OFF else Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "deop"


class EmbeddingCache:
    """Rows by (text encoder, template set, text).

    SQLite brings what is asked of it: a lock between processes, and a journal that makes a killed writer harmless. What
    goes wrong with the file ends in a CacheWarning and in embedding again, never in an error.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """``folder``: where to keep the files; None: ``default_cache_folder()``, which may say that there is none."""
        self.folder = default_cache_folder() if folder is None else Path(folder)

    def path(self, identity: str) -> Path | None:
        """The file of a text encoder; None where the cache is switched off."""
        return None if self.folder is None else self.folder / "text" / f"{identity}.sqlite"

    def load(self, identity: str, templates: Sequence[str], texts: Iterable[str], width: int) -> dict[str, np.ndarray]:
        """Those of the texts that are there.

        Args:
            identity: of the text encoder, fit for a file name.
            templates: the sentences that the texts were put into.
            texts: any number.
            width: C.

        Returns:
            (C,) float32 of unit length by text. A row of another form is left out with a CacheWarning.
        """
        path, key, wanted = self.path(identity), _key(templates), list(texts)
        try:
            if path is None or not path.is_file():
                return {}
        except OSError as error:  # a folder that may not be looked into
            _warn_unusable(self.folder, error)
            return {}

        def read(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            found: list[tuple[str, bytes]] = []
            for start in range(0, len(wanted), _TEXTS_A_QUERY):
                some = wanted[start : start + _TEXTS_A_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT text, row FROM texts WHERE templates = ? AND text IN ({marks})"
                found += connection.execute(query, [key, *some]).fetchall()
            return found

        found = self._with_file(path, read) or []
        whole = [(text, row) for text, row in found if isinstance(row, bytes) and len(row) == 4 * width]
        rows = np.frombuffer(b"".join(row for _, row in whole), "<f4").reshape(-1, width)
        # Every row was stored with length 1: a flipped bit is found without a checksum.
        sound = np.abs(np.square(rows, dtype=np.float64).sum(1) - 1) < 1e-4
        if bad := len(found) - int(sound.sum()):
            warnings.warn(f"{bad} damaged rows in {path}: they are embedded again", CacheWarning, stacklevel=2)
        return {text: row for (text, _), row, good in zip(whole, rows, sound, strict=True) if good}

    def store(self, identity: str, templates: Sequence[str], rows: Mapping[str, np.ndarray]) -> None:
        """Add or replace rows, (C,) float32 of unit length by text: all of them or none, whatever happens."""
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

    def _with_file(self, path: Path, do: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Open the file and do something; a damaged file is removed first, an unusable one leads to None."""
        for attempt in range(2):
            try:
                with closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)) as connection:
                    connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
                    connection.execute("PRAGMA synchronous = NORMAL")
                    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'texts'").fetchone():
                        with connection:
                            connection.execute(_LAYOUT)
                    return do(connection)
            except sqlite3.OperationalError as error:  # no right to write, a full disk, locked for long
                _warn_unusable(path, error)
                return None
            except sqlite3.DatabaseError as error:  # not a database, or a malformed one
                if attempt == 0 and _remove(path):
                    warnings.warn(f"{path} is damaged ({error}): it is built again", CacheWarning, stacklevel=4)
                else:
                    _warn_unusable(path, error)
                    return None
        return None


def _key(templates: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(templates)).encode()).hexdigest()[:32]


def _remove(path: Path) -> bool:
    try:
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _warn_unusable(path: Path | None, error: Exception) -> None:
    warnings.warn(
        f"cannot use the cache of text embeddings {path}: {error}. Names are embedded anew each time; "
        "DEOP_CACHE names another folder, DEOP_CACHE=off goes without",
        CacheWarning,
        stacklevel=5,
    )

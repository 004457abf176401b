"""Unfinished work beside the output, from which a killed run resumes.

The folder ``.OUT.tiles`` has the settings of the run, the finished bands of the label map, and the views of the tiles
that unfinished bands need. A file appears there when it is complete, so each file that exists is valid after a kill.
"""

import json
import os
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from deop.errors import OutputError, SettingError
from deop.files import json_of, lock_file, parse_json
from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks
from deop.tiles.views import View

VERSION = 2
"""Version of the files in the folder."""
CACHE_BYTES = 128 << 20
"""Memory for views; the others are read again when they are needed."""
KINDS = ("labelled", "cleaned")
"""Kinds of bands: as labelled, and without small regions."""
_COUNTS = "counts.json"
_LONG = 60  # characters of a setting in a message


class Journal:
    """The folder of unfinished work of one output.

    Attributes:
        folder: the folder.
        out: the output.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.tiles")
        self._stack = ExitStack()
        self._cache: OrderedDict[str, View] = OrderedDict()
        self._bytes = 0

    def acquire(self) -> None:
        """Hold the folder for this process, and delete what a killed one left incomplete.

        Raises:
            SettingError: another process holds it.
            OutputError: the folder cannot be written to.
        """
        with writing(self.out):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            for leftover in [*self.folder.rglob("*.part"), *self.folder.glob("*.raw")]:
                leftover.unlink()

    def begin(self, settings: Mapping[str, Any], *, discard: bool) -> None:
        """Begin a run, or resume one.

        Args:
            settings: everything that the label map depends on, as JSON values.
            discard: delete the work of a run with other settings instead of refusing to start.

        Raises:
            SettingError: the unfinished run has other settings.
            OutputError: the folder cannot be written to.
        """
        settings = json.loads(json.dumps({"version": VERSION, **settings}))
        with writing(self.out):
            place = self.folder / "settings.json"
            before: Any = None
            with suppress(OSError, ValueError):
                before = parse_json(place)
            if isinstance(before, dict) and before != settings:
                if not discard:
                    raise SettingError(self._difference(before, settings))
                before = None
            if before is None:
                self._clear()
                with self._complete("settings.json") as file:
                    file.write(json.dumps(settings, indent=1).encode())

    def _difference(self, before: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """What an unfinished run has other settings in."""
        keys = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
        texts = [f"{key} {_shorten(before.get(key))}, now {_shorten(settings.get(key))}" for key in keys]
        return (
            f"{self.folder} has an unfinished run for {self.out.name} with other settings ({'; '.join(texts)}): repeat "
            "its command to resume it, or begin anew with overwrite=True (--overwrite)"
        )

    def _lock(self) -> None:
        try:
            self._stack.enter_context(lock_file(self.folder / "lock"))
        except BlockingIOError as error:
            raise SettingError(
                f"another process is writing {self.out} ({self.folder} is locked): wait for it, or choose another "
                "output"
            ) from error

    def _clear(self) -> None:
        """Delete the work of another run, but not the lock and the decoded image."""
        for name in ("settings.json", *KINDS, "views"):
            entry = self.folder / name
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the folder free; its content stays, to be resumed."""
        begun = (self.folder / "settings.json").exists()
        if not begun:
            self._discard()
        self._stack.close()
        if not begun and os.name == "nt":  # Windows deletes no open file
            self._discard()
        self._cache.clear()

    def _discard(self) -> None:
        with suppress(OSError):
            (self.folder / "lock").unlink(missing_ok=True)
            self.folder.rmdir()

    def remove(self) -> None:
        """Delete the folder: the output is complete."""
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _complete(self, name: str) -> Iterator[BinaryIO]:
        """Write a file that appears when it is complete."""
        target = self.folder / name
        target.parent.mkdir(exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)

    def publish(self, file: Path, target: Path) -> None:
        """Give a complete file its final name, after it has reached the disk: the journal is deleted next."""
        with file.open("r+b") as handle:
            os.fsync(handle.fileno())
        file.replace(target)

    # --- Bands of the label map

    def has_band(self, kind: str, number: int) -> bool:
        """Whether a band is finished, and its file not damaged since."""
        try:
            with zipfile.ZipFile(self.folder / _band(kind, number)) as archive:
                return _COUNTS in archive.namelist()
        except (FileNotFoundError, zipfile.BadZipFile):
            return False

    def write_band(
        self, kind: str, number: int, blocks: Iterable[np.ndarray], counts: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Write a band.

        Args:
            kind: one of ``KINDS``.
            number: of the band, from 0.
            blocks: its blocks (h, w) from left to right, as ids in the type of the output.
            counts: called at the end for what is known about the band, as JSON values.
        """
        with (
            writing(self.out),
            self._complete(_band(kind, number)) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for index, block in enumerate(blocks):
                with archive.open(str(index), "w") as entry:
                    np.lib.format.write_array(_Writer(entry), np.ascontiguousarray(block), allow_pickle=False)
            archive.writestr(_COUNTS, json.dumps(counts()))

    def band(self, kind: str, number: int) -> Iterator[np.ndarray]:
        """The blocks (h, w) of a finished band, from left to right."""
        with zipfile.ZipFile(self.folder / _band(kind, number)) as archive:
            for index in range(len(archive.namelist()) - 1):
                with archive.open(str(index)) as entry:
                    yield np.lib.format.read_array(entry, allow_pickle=False)

    def block(self, kind: str, number: int, index: int) -> np.ndarray:
        """One block of a finished band."""
        with zipfile.ZipFile(self.folder / _band(kind, number)) as archive, archive.open(str(index)) as entry:
            return np.lib.format.read_array(entry, allow_pickle=False)

    def counts(self, kind: str, number: int) -> dict[str, Any]:
        """What is known about a finished band."""
        with zipfile.ZipFile(self.folder / _band(kind, number)) as archive:
            values: dict[str, Any] = json_of(archive.read(_COUNTS))
            return values

    # --- Views

    def view(self, name: str) -> View | None:
        """A view that was stored, or None."""
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        try:
            with np.load(self.folder / "views" / f"{name}.npz", allow_pickle=False) as values:
                canvas = Canvas(*(tuple(int(side) for side in pair) for pair in values["canvas"]))  # type: ignore[arg-type]
                view = View(values["votes"], PhotoMasks(values["logits"]), canvas)
        except Exception:  # missing, or damaged since: NumPy and zipfile raise many kinds of exceptions
            return None
        self._keep(name, view)
        return view

    def store_view(self, name: str, view: View) -> None:
        """Store a view."""
        canvas = view.canvas
        with writing(self.out), self._complete(f"views/{name}.npz") as file:
            np.savez(
                file,
                votes=view.votes,
                logits=view.masks.logits,
                canvas=np.array([canvas.photo, canvas.resized, canvas.padded], np.int64),
            )
        self._keep(name, view)

    def drop_views(self, names: Iterable[str]) -> None:
        """Delete views that are no longer needed."""
        for name in names:
            view = self._cache.pop(name, None)
            self._bytes -= 0 if view is None else view.nbytes
            (self.folder / "views" / f"{name}.npz").unlink(missing_ok=True)

    def _keep(self, name: str, view: View) -> None:
        self._cache[name] = view
        self._bytes += view.nbytes
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._bytes -= oldest.nbytes


def _band(kind: str, number: int) -> str:
    return f"{kind}/{number:06}.zip"


class _Writer:
    """An entry of an archive as NumPy needs it: without ``fileno``."""

    def __init__(self, entry: IO[bytes]) -> None:
        self.write = entry.write


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn errors of the file system into an ``OutputError`` that names the output and says how to resume."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {out}: {error.strerror or error}. What is finished is kept: free space or choose a folder "
            "you may write to, and repeat the command to resume"
        ) from error

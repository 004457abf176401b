"""A worker process: photos in, rows out. ``python -m deop.batch worker`` is started by a supervisor.

Messages are pickled tuples on stdin and stdout, between a process and its parent only. The first message is the
``WorkerOptions``; the answer is ("ready", facts, batch size) or ("failed", error). Then
("photo", number, path, bytes or None) is answered by ("begun", number) and ("row", number, columns), in any order. The
process ends when stdin is closed, also when the parent was killed.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

READERS = 2
"""Threads that read and decode photos."""


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker segments photos.

    Attributes:
        model: as in ``deop.load``.
        load: further arguments of ``deop.load``: engine, proposer, proxy, device, dtype, threads.
        names: the class names, as in ``DeOP.segment``.
        vocabulary: further arguments of ``DeOP.vocabulary``: background, things, templates.
        encoding: arguments of ``DeOP.encode``: severance, anchors.
        mode: as in ``DeOP.segment``.
        threshold: as in ``DeOP.segment``.
        masks: how masks are stored (``table.MASKS``).
        batch: maximum number of photos that are computed together; None: the model's default.
        factory: "module:function" that returns the model, called with ``model`` and ``load``.
        settings: fields of ``Settings`` that differ from those of the model, such as partition and windows.
    """

    model: str = "nano"
    load: dict[str, Any] = field(default_factory=dict)
    names: Any = ""
    vocabulary: dict[str, Any] = field(default_factory=dict)
    encoding: dict[str, Any] = field(default_factory=dict)
    mode: str = "semantic"
    threshold: Any = None
    masks: str = "rle"
    batch: int | None = None
    factory: str = "deop.zoo:load"
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Decoded:
    number: int
    path: str
    photo: Any
    seconds: float


def serve(commands: IO[bytes], answers: IO[bytes]) -> None:
    """Answer the messages of ``commands``; end the process when there are no more."""
    lock = threading.Lock()

    def send(message: tuple[Any, ...]) -> None:
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with lock:
            answers.write(content)
            answers.flush()

    options: WorkerOptions = pickle.load(commands)
    try:
        segmenter = _Segmenter(options)
        facts = segmenter.facts()
    except BaseException as error:
        send(("failed", _portable(error)))
        return
    send(("ready", facts, segmenter.batch))
    decoded: queue.Queue[_Decoded] = queue.Queue()
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="deop-read")
    encoder = ThreadPoolExecutor(1, thread_name_prefix="deop-encode")

    def decode(number: int, path: str, data: bytes | None) -> None:
        send(("begun", number))
        started = time.perf_counter()
        try:
            photo = read(path, data)
        except Exception as error:
            send(("row", number, _failure(error, path)))
        else:
            decoded.put(_Decoded(number, path, photo, time.perf_counter() - started))

    def receive() -> None:
        while True:
            try:
                message = pickle.load(commands)
            except (EOFError, OSError, pickle.UnpicklingError):
                os._exit(0)  # the parent has ended: nobody waits for what is being computed
            readers.submit(decode, *message[1:])

    threading.Thread(target=receive, name="deop-receive", daemon=True).start()
    while True:
        group = [decoded.get()]
        with suppress(queue.Empty):
            while len(group) < segmenter.batch:
                group.append(decoded.get_nowait())
        for item, result, seconds in segmenter.segment(group):
            encoder.submit(_answer, send, segmenter, item, result, seconds)


def _answer(send: Any, segmenter: "_Segmenter", item: _Decoded, result: Any, seconds: float) -> None:
    from deop.batch.table import row_of

    started = time.perf_counter()
    try:
        row = _failure(result, item.path) if isinstance(result, Exception) else row_of(result, segmenter.options.masks)
    except Exception as error:
        row = _failure(error, item.path)
    row["seconds"] = seconds + time.perf_counter() - started
    send(("row", item.number, row))


def read(path: str, data: bytes | None) -> Any:
    """The pixels of a photo.

    Raises:
        ImageError: it cannot be read.
        OSError: its store cannot be reached.
    """
    from deop.batch.stores import is_address, read_bytes
    from deop.errors import ImageError
    from deop.images.reading import read_photo

    if data is None and is_address(path) and not path.startswith(("http://", "https://")):
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            raise ImageError(f"{path} does not exist") from None
        except Exception as error:  # each store has classes of its own
            raise OSError(f"cannot read {path}: {type(error).__name__}: {error}") from error
    photo = read_photo(path if data is None else data)
    photo.flags.writeable = False  # so that ``encode`` does not copy it
    return photo


def _failure(error: BaseException, path: str) -> dict[str, Any]:
    from deop.batch.table import error_row

    text = " ".join(str(error).split()) or type(error).__name__
    kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
    return error_row(text if path in text else f"{path}: {text}", kind)


class _Segmenter:
    """A model with the names of the batch."""

    def __init__(self, options: WorkerOptions) -> None:
        from importlib import import_module

        from deop.results.checks import check_request

        check_request(options.mode, options.batch or 1)
        module, _, function = options.factory.partition(":")
        self.options = options
        self.model = getattr(import_module(module), function)(options.model, **options.load)
        if options.settings:
            self.model.settings = replace(self.model.settings, **options.settings)
        self.vocabulary = self.model.vocabulary(options.names, **options.vocabulary)
        self.vocabulary.check_mode(options.mode)
        self.model.check_encoding(**options.encoding)
        self.classes = self.model.embed(self.vocabulary)
        self.batch = options.batch or self.model.default_batch
        if self.model.needs_masks:
            from deop.errors import SettingError

            raise SettingError(
                f"{options.model} has no proposer: choose a model that proposes masks, or give one (--proposer)"
            )
        self.threshold = self._threshold()

    def _threshold(self) -> Any:
        from deop.text.thresholds import Thresholds

        thresholds = Thresholds.parse(self.options.threshold)
        thresholds.values(self.vocabulary, self.model.settings.threshold)
        return thresholds

    def facts(self) -> dict[str, Any]:
        """Everything about the model that results depend on, as JSON values."""
        from deop.batch.settings import model_facts

        return model_facts(self.model, self.vocabulary, self.classes) | {
            "threshold": self.threshold.record(self.model.settings.threshold)
        }

    def segment(self, group: Sequence[_Decoded]) -> list[tuple[_Decoded, Any, float]]:
        """The result of each photo, or its error, and the time of both decoding and computing."""
        started = time.perf_counter()
        try:
            encoded = self.model.encode([item.photo for item in group], **self.options.encoding)
        except Exception as error:
            if len(group) == 1:
                return [(group[0], error.with_traceback(None), group[0].seconds + time.perf_counter() - started)]
            encoded = None
        if encoded is None:  # one by one, so that only the faulty photo has an error
            return [answer for item in group for answer in self.segment([item])]
        share = (time.perf_counter() - started) / len(group)
        answers = []
        for item, one in zip(group, encoded, strict=True):
            begun = time.perf_counter()
            try:
                result: Any = self.model.label(one, self.vocabulary, mode=self.options.mode, threshold=self.threshold)
            except Exception as error:
                result = error.with_traceback(None)
            answers.append((item, result, item.seconds + share + time.perf_counter() - begun))
        return answers


def _portable(error: BaseException) -> BaseException:
    """The error, or one with its text if it cannot be sent to another process."""
    from deop.errors import DeopError

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return DeopError(f"{type(error).__name__}: {error}")
    return error.with_traceback(None)


def main() -> None:
    """Run a worker on this process's stdin and stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it as well, and closes stdin
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print does not get between messages
    with suppress(OSError):  # if memory runs out, Linux ends this process rather than its parent
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    serve(sys.stdin.buffer, answers)

"""Photo after photo through a model: while some are named the next are read and the last are written.

Photos of one size go through the networks together.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deop.errors import ImageError, ProposalError
from deop.images.canvas import canvas_of, group_by_size
from deop.images.reading import Photo, read_photo
from deop.model import DeOP
from deop.proposals.given import Masks
from deop.regions.encoding import EncodedPhoto
from deop.results.segmentation import Segmentation, check_request
from deop.text.vocabulary import Vocabulary

READERS = 2
"""Threads that decode photos."""
WINDOW = 4
"""Batches that are read ahead, so that enough photos of one size are among them."""
AHEAD = 100_000_000
"""Pixels that are read ahead at most; at least one photo is."""

UNWRITTEN = 2
"""Results that may wait to be written while others are made."""

Failure = ImageError | ProposalError
R = TypeVar("R")


@dataclass(frozen=True)
class _Read:
    """A photo that has been read, and its masks."""

    photo: np.ndarray
    masks: Masks | None
    source: str | None


def segment_stream(
    model: DeOP,
    photos: Sequence[Photo],
    names: Sequence[str] | str | Vocabulary,
    *,
    masks: Sequence[Callable[[], Masks] | None] | None = None,
    mode: str = "semantic",
    threshold: float | None = None,
    batch: int | None = None,
    **options: Any,
) -> Iterator[Segmentation | Failure]:
    """Name every pixel of many photos, one result after the other, in their order.

    Args:
        model: what names them.
        photos: as ``DeOP.segment`` takes them; paths are read when their turn is near.
        names: as there.
        masks: for each photo a function that reads its masks, or None for the proposer's.
        mode: as in ``DeOP.segment``.
        threshold: as there.
        batch: photos that go through the networks together, where their sizes allow; None: 8 on a GPU, 1 elsewhere,
            where larger batches are no faster. The results are the same for any.
        options: ``severance``, ``anchors`` and ``classifier`` of ``DeOP.encode``.

    Yields:
        The result of each photo; for one that cannot be read or does not fit its masks the error, and the others go on.

    Raises:
        VocabularyError, SettingError: of what is asked, before any photo is read.
    """
    if batch is None:
        batch = 1 if model.device.type == "cpu" else 8
    check_request(mode, threshold, batch)
    model.check_encoding(**options)
    vocabulary = model.vocabulary(names)
    model.embed(vocabulary)
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="deop-read")
    try:
        given = masks or [None] * len(photos)
        for window in _windows(readers, photos, given, batch):
            seen: dict[int, EncodedPhoto | Failure] = {}
            for group in _of_one_size(model, window, batch):
                seen |= _look(model, {index: window[index] for index in group}, options)
            for index, read in enumerate(window):
                look = seen.pop(index) if isinstance(read, _Read) else read
                if isinstance(look, EncodedPhoto):
                    yield model.label(look, vocabulary, mode=mode, threshold=threshold)
                else:
                    yield look
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def write_behind(results: Iterator[R], save: Callable[[int, R], None]) -> Iterator[R]:
    """Save results in a thread, each while the next are made.

    Args:
        results: what is saved.
        save: called with the number of a result, from 0, and the result.

    Yields:
        Each result once it is saved, in order.

    Raises:
        Whatever ``results`` or ``save`` do: the former after all results before are saved, the latter at once.
    """
    waiting: deque[tuple[R, Future[None]]] = deque()

    def oldest() -> R:
        result, saved = waiting.popleft()
        saved.result()
        return result

    stopped: BaseException | None = None
    writer = ThreadPoolExecutor(1, thread_name_prefix="deop-write")
    try:
        number = 0
        while stopped is None:
            try:
                result = next(results)
            except StopIteration:
                break
            except (Exception, KeyboardInterrupt) as error:
                stopped = error
            else:
                waiting.append((result, writer.submit(save, number, result)))
                number += 1
                while len(waiting) > UNWRITTEN:
                    yield oldest()
        while waiting:
            yield oldest()
        if stopped is not None:
            raise stopped
    finally:
        writer.shutdown(wait=True, cancel_futures=True)


def _windows(
    readers: ThreadPoolExecutor,
    photos: Sequence[Photo],
    masks: Sequence[Callable[[], Masks] | None],
    batch: int,
) -> Iterator[list[_Read | Failure]]:
    """Photos in their order, a few batches at a time; the next window is being read while one is worked on."""
    most = 1 if batch == 1 else WINDOW * batch
    waiting: deque[Future[_Read | Failure]] = deque()
    place = 0
    while waiting or place < len(photos):
        while place < len(photos) and len(waiting) < most + max(READERS, batch):
            waiting.append(readers.submit(_read, photos[place], masks[place]))
            place += 1
        window: list[_Read | Failure] = []
        pixels = 0
        while waiting and len(window) < most and pixels < AHEAD:
            read = waiting.popleft().result()
            pixels += read.photo.size // 3 if isinstance(read, _Read) else 0
            window.append(read)
        yield window


def _read(photo: Photo, masks: Callable[[], Masks] | None) -> _Read | Failure:
    try:
        source = str(photo) if isinstance(photo, (str, Path)) else None
        return _Read(read_photo(photo), None if masks is None else masks(), source)
    except (ImageError, ProposalError) as error:
        return error


def _of_one_size(model: DeOP, window: Sequence[_Read | Failure], batch: int) -> Iterator[list[int]]:
    """Positions of at most ``batch`` photos that the networks see at one size, with masks given or not."""
    good = [(index, read) for index, read in enumerate(window) if isinstance(read, _Read)]
    canvases = [canvas_of(read.photo, model.settings.resize) for _, read in good]
    for group in group_by_size(canvases, [read.masks for _, read in good]):
        places = [good[place][0] for place in group]
        yield from (places[first : first + batch] for first in range(0, len(places), batch))


def _look(model: DeOP, reads: dict[int, Any], options: dict[str, Any]) -> dict[int, EncodedPhoto | Failure]:
    """Encode photos together; if one of them causes an error, encode each by itself."""
    try:
        looks = model.encode(
            [read.photo for read in reads.values()], [read.masks for read in reads.values()], **options
        )
    except (ImageError, ProposalError) as error:
        if len(reads) == 1:
            return dict.fromkeys(reads, error)
        return {
            index: look for key, read in reads.items() for index, look in _look(model, {key: read}, options).items()
        }
    return {index: replace(look, source=read.source) for (index, read), look in zip(reads.items(), looks, strict=True)}

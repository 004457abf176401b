"""Segmenting many photos: the next ones are decoded and the previous results saved while a batch is computed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from deop.arguments import check_arguments
from deop.errors import ImageError, ProposalError, ResourceError, SettingError
from deop.images.canvas import canvas_of, group_by_size
from deop.images.masks import Masks
from deop.images.reading import Photo, count_pixels, read_photo
from deop.networks.memory import does_not_fit, free_memory, is_out_of_memory
from deop.results.checks import check_request
from deop.results.name_lookup import find_names
from deop.results.segmentation import Segmentation
from deop.text.thresholds import Thresholds, ThresholdValue
from deop.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from deop.regions.two_stream import TwoStream
    from deop.severance import Severance
    from deop.surface import ModelSurface

READERS = 2
"""Threads that decode photos."""

WINDOW = 4
"""Batches that are decoded before they are grouped by size, so that groups become large enough."""

PIXELS_IN_MEMORY = 100_000_000
"""Maximum pixels of the photos in memory, from decoding to the result. A larger photo is processed alone."""

UNSAVED_RESULTS = 2
"""Maximum number of results that wait to be saved while the next is computed."""

UNSAVED_PIXELS = 100_000_000
"""Maximum pixels of the results that wait to be saved. A larger result is saved before the next is computed."""

Failure = ImageError | ProposalError | ResourceError
"""What takes the place of a result when a photo cannot be segmented."""

R = TypeVar("R")


@check_arguments
def segment_stream(
    model: "ModelSurface",
    photos: Sequence[Photo],
    names: Sequence[str] | str | Vocabulary,
    *,
    masks: "Sequence[Callable[[], Masks] | None] | None" = None,
    mode: str = "semantic",
    threshold: ThresholdValue = None,
    batch: int | None = None,
    severance: "str | Severance | None" = None,
    anchors: str | None = None,
    classifier: "str | TwoStream" = "one-pass",
    heatmaps: Sequence[str] | str = (),
) -> Iterator[Segmentation | Failure]:
    """Segment many photos, with a bounded amount of memory.

    Args:
        model: the model.
        photos: as in ``DeOP.segment``; files are read shortly before they are needed.
        names: as in ``DeOP.segment``.
        masks: for each photo a function that returns its masks, or None for masks from the proposer.
        mode: as in ``DeOP.segment``.
        threshold: as in ``DeOP.segment``.
        batch: maximum number of photos that go through the networks together; only photos of one size do. None: 8 with
            torch on a GPU, else 1: larger batches are not faster on a CPU. The results do not depend on it.
        severance: as in ``DeOP.segment``.
        anchors: as in ``DeOP.segment``.
        classifier: as in ``DeOP.segment``.
        heatmaps: as in ``DeOP.segment``.

    Returns:
        An iterator with one item per photo, in the order of the photos: the result, or the error of a photo that
        cannot be read, does not fit its masks, or does not fit in memory. An error does not end the iteration.

    Raises:
        VocabularyError, SettingError: an argument is wrong. They are raised by this call, before any photo is read.
    """
    if isinstance(photos, str | bytes) or not isinstance(photos, Sequence):
        raise SettingError(f"segment_stream takes a list of photos, not a {type(photos).__name__}: give [photo, ...]")
    if batch is None:
        batch = model.default_batch
    check_request(mode, batch)
    thresholds = Thresholds.parse(threshold)
    model.check_encoding(severance, anchors, classifier)
    readers_of_masks = _check_masks(masks, len(photos), model.needs_masks)
    vocabulary = model.vocabulary(names)
    vocabulary.check_mode(mode)
    thresholds.values(vocabulary, model.settings.threshold)  # raises errors before any photo is read
    find_names(heatmaps, vocabulary.names, vocabulary.synonyms)
    model.embed(vocabulary)
    encoding = {"severance": severance, "anchors": anchors, "classifier": classifier}
    labelling = {"mode": mode, "threshold": thresholds, "heatmaps": heatmaps}
    return _results(model, photos, readers_of_masks, vocabulary, batch, encoding, labelling)


def write_behind(results: Iterator[R], save: Callable[[int, R], None]) -> Iterator[R]:
    """Save results in a thread while the next ones are computed.

    Args:
        results: the results. ``UNSAVED_RESULTS`` and ``UNSAVED_PIXELS`` limit how many of them wait to be saved.
        save: called with the number of a result, counted from 0, and the result.

    Yields:
        Each result after it has been saved, in order.

    Raises:
        Exception: whatever ``results`` or ``save`` raise. An error of ``results`` is raised after all results before it
            have been saved, an error of ``save`` when that result is due.
    """
    waiting: deque[tuple[R, Future[None]]] = deque()

    def oldest() -> R:
        result, saved = waiting.popleft()
        saved.result()
        return result

    interruption: BaseException | None = None
    writer = ThreadPoolExecutor(1, thread_name_prefix="deop-write")
    try:
        number = 0
        while interruption is None:
            try:
                result = next(results)
            except StopIteration:
                break
            except (Exception, KeyboardInterrupt) as error:
                interruption = error
            else:
                waiting.append((result, writer.submit(save, number, result)))
                number += 1
                del result
                while len(waiting) > UNSAVED_RESULTS or sum(_pixels(item) for item, _ in waiting) > UNSAVED_PIXELS:
                    yield oldest()
        while waiting:
            yield oldest()
        if interruption is not None:
            raise interruption
    finally:
        writer.shutdown(wait=True, cancel_futures=True)


def _pixels(result: object) -> int:
    return result.label_map.size if isinstance(result, Segmentation) else 0


def _check_masks(masks: Any, count: int, required: bool) -> "Sequence[Callable[[], Masks] | None]":
    """The reader of each photo's masks, or None."""
    if masks is None:
        masks = [None] * count
    if not isinstance(masks, Sequence):
        raise SettingError(f"masks must be a list with a function or None for each photo, not a {type(masks).__name__}")
    if len(masks) != count:
        raise SettingError(f"{len(masks)} masks for {count} photos: give a function or None for each photo")
    for entry in masks:
        if entry is not None and not callable(entry):
            raise SettingError(
                f"masks contain a {type(entry).__name__}: give a function that returns masks, or None, for each photo"
            )
    if required and any(entry is None for entry in masks):
        raise SettingError(
            "this model has no proposer: give masks for each photo (masks=..., --masks), or load it with a proposer"
        )
    return masks


def _results(
    model: "ModelSurface",
    photos: Sequence[Photo],
    masks: "Sequence[Callable[[], Masks] | None]",
    vocabulary: Vocabulary,
    batch: int,
    encoding: dict[str, Any],
    labelling: dict[str, Any],
) -> Iterator[Segmentation | Failure]:
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="deop-read")
    try:
        ahead = _ReadAhead(readers, photos, masks, batch)
        while window := ahead.next_window():
            _encode_window(model, window, batch, encoding)
            while window:  # photos are removed one by one, so that each is freed once its result is handed over
                yield _label(model, window.pop(0), vocabulary, labelling)
                ahead.release()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _DecodedPhoto:
    """A decoded photo and its masks.

    Attributes:
        photo: (H, W, 3) uint8, read-only so that ``DeOP.encode`` does not copy it.
        masks: as ``DeOP.segment`` takes them, or None.
        source: path of the photo, or None.
        writeable: whether the photo becomes writeable after it has been encoded.
    """

    photo: np.ndarray
    masks: "Masks | None"
    source: str | None
    writeable: bool


class _ReadAhead:
    """Decodes photos in order, ahead of their use, as far as ``PIXELS_IN_MEMORY`` allows.

    Args:
        readers: the threads that decode.
        photos: the photos.
        masks: for each photo the function that reads its masks, or None.
        batch: photos that go through the networks together.
    """

    def __init__(
        self,
        readers: ThreadPoolExecutor,
        photos: Sequence[Photo],
        masks: "Sequence[Callable[[], Masks] | None]",
        batch: int,
    ) -> None:
        self._readers = readers
        self._photos = photos
        self._masks = masks
        self._window = 1 if batch == 1 else WINDOW * batch
        self._limit = self._window + max(READERS, batch)
        self._decoding: deque[tuple[int, Future[_DecodedPhoto | Failure]]] = deque()  # pixels, photo
        self._in_use: deque[int] = deque()  # pixels of the photos that were handed out
        self._pixels = 0  # of both
        self._position = 0
        self._next_pixels: int | None = None

    def next_window(self) -> list[Any]:
        """The next photos or their errors: at least one, unless all photos have been handed out."""
        self._submit()
        window: list[Any] = []
        pixels = 0
        # Half of the pixels are left for photos that are decoded while the window is processed.
        while self._decoding and len(window) < self._window:
            if window and pixels + self._decoding[0][0] > PIXELS_IN_MEMORY // 2:
                break
            size, photo = self._decoding.popleft()
            window.append(photo.result())
            self._in_use.append(size)
            pixels += size
        return window

    def release(self) -> None:
        """Count the photo that was handed out first as no longer in memory, and decode more."""
        self._pixels -= self._in_use.popleft()
        self._submit()

    def _submit(self) -> None:
        while self._position < len(self._photos) and len(self._decoding) + len(self._in_use) < self._limit:
            if self._next_pixels is None:
                self._next_pixels = count_pixels(self._photos[self._position])
            if self._pixels and self._pixels + self._next_pixels > PIXELS_IN_MEMORY:
                return
            decoding = self._readers.submit(_read, self._photos[self._position], self._masks[self._position])
            self._decoding.append((self._next_pixels, decoding))
            self._pixels += self._next_pixels
            self._position += 1
            self._next_pixels = None


def _read(photo: Photo, masks: "Callable[[], Masks] | None") -> _DecodedPhoto | Failure:
    source = str(photo) if isinstance(photo, str | Path) else None
    try:
        array = read_photo(photo)
        writeable = array.flags.writeable
        array.flags.writeable = False
        return _DecodedPhoto(array, None if masks is None else masks(), source, writeable)
    except (ImageError, ProposalError) as error:
        return error
    except MemoryError:
        pass
    return ResourceError(f"{source or 'a photo'} does not fit in memory: resize it, or use a machine with more memory")


def _encode_window(model: "ModelSurface", window: list[Any], batch: int, encoding: dict[str, Any]) -> None:
    """Replace each decoded photo in the window by an ``EncodedPhoto`` or an error."""
    places = [index for index, photo in enumerate(window) if isinstance(photo, _DecodedPhoto)]
    canvases = [canvas_of(window[index].photo, model.settings.resize) for index in places]
    for members in group_by_size(canvases, [window[index].masks for index in places]):
        for start in range(0, len(members), batch):
            group = [places[member] for member in members[start : start + batch]]
            encoded = _encode(model, [window[index] for index in group], encoding)
            for index, result in zip(group, encoded, strict=True):
                window[index] = result


def _encode(model: "ModelSurface", photos: list[_DecodedPhoto], encoding: dict[str, Any]) -> Sequence[Any]:
    """Encode photos of one size together; if that fails, one by one, so that only the faulty photos have errors."""
    error: Failure
    try:
        encoded = model.encode([photo.photo for photo in photos], [photo.masks for photo in photos], **encoding)
    except (ImageError, ProposalError) as caught:
        error = caught.with_traceback(None)  # whose frames would keep tensors alive
    except Exception as caught:
        if not is_out_of_memory(caught):
            raise
        error = _out_of_memory(model, photos[0])
    else:
        for photo in photos:
            photo.photo.flags.writeable = photo.writeable
        return [replace(result, source=photo.source) for result, photo in zip(encoded, photos, strict=True)]
    # Not in the handlers, where the exception still keeps the tensors of the failed attempt alive.
    if isinstance(error, ResourceError):
        free_memory()
    if len(photos) == 1:
        return [error]
    return [result for photo in photos for result in _encode(model, [photo], encoding)]


def _label(
    model: "ModelSurface", encoded: Any, vocabulary: Vocabulary, labelling: dict[str, Any]
) -> Segmentation | Failure:
    if isinstance(encoded, Failure):
        return encoded
    for _ in range(2):  # a second time after unused memory has been freed
        try:
            return model.label(encoded, vocabulary, **labelling)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
    return _out_of_memory(model, encoded)


def _out_of_memory(model: "ModelSurface", photo: Any) -> ResourceError:
    height, width = photo.photo.shape[:2]
    subject = f"{photo.source or 'a photo'} ({width} x {height} px)"
    return does_not_fit(subject, model.device)

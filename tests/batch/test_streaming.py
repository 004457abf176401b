"""Many photos: the results of one by one, in order, whatever fails, with a bounded amount of memory."""

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from deop.batch import segment_stream, streaming, write_behind
from deop.errors import ImageError, ProposalError, ResourceError, SettingError, VocabularyError
from deop.images.preprocessing import Resize
from deop.results.segmentation import Segmentation
from deop.zoo import load

NAMES = ["cat", "wall", "sky"]
SIZES = [(40, 56), (56, 40), (40, 56), (33, 47), (40, 56), (56, 40), (40, 56)]
PIXELS = 40 * 56
GUARD = 60  # seconds after which a test that hangs fails


@pytest.fixture(scope="module")
def model(tiny_clip):
    loaded = load(str(tiny_clip), proposer="given", device="cpu")
    loaded.cache = None
    loaded.settings = replace(loaded.settings, resize=Resize(64))
    return loaded


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(path)
    return paths


def masks_of(size):
    half = np.zeros(size, bool)
    half[: size[0] // 2] = True
    return np.stack([half, ~half])


READ = [lambda size=size: masks_of(size) for size in SIZES]


@pytest.mark.parametrize("batch", [1, 2, 3, None])
def test_results_equal_those_of_single_photos(model, photos, batch):
    results = list(segment_stream(model, photos, NAMES, masks=READ, batch=batch))
    for path, size, result in zip(photos, SIZES, results, strict=True):
        alone = model.segment(path, NAMES, masks=masks_of(size))
        assert np.array_equal(result.label_map, alone.label_map)
        assert result.source == alone.source == str(path)
        assert result.label_map.shape == size


def test_options_are_passed_on(model, photos):
    results = list(segment_stream(model, photos[:2], NAMES, masks=READ[:2], mode="instance", classifier="two-stream"))
    alone = model.segment(photos[1], NAMES, masks=masks_of(SIZES[1]), mode="instance", classifier="two-stream")
    assert [segment.name for segment in results[1].segments] == [segment.name for segment in alone.segments]


def test_photos_of_results_can_be_changed_and_arrays_of_the_caller_stay_as_they_are(model):
    changing, fixed = arrays_of([(40, 56)] * 2)
    fixed.flags.writeable = False
    first, second = segment_stream(model, [changing, fixed], NAMES, masks=READ[:1] * 2)
    first.photo[:] = 255
    assert not changing.any()
    assert not second.photo.flags.writeable


@pytest.mark.parametrize("batch", [1, 4])
def test_an_error_takes_the_place_of_a_result_and_the_others_follow(model, photos, tmp_path, batch):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:60])
    paths = [photos[0], broken, photos[2], tmp_path / "missing.png", photos[4]]
    masks = [READ[0], READ[0], lambda: masks_of((9, 9)), READ[0], READ[4]]  # the third does not fit its photo
    results = list(segment_stream(model, paths, NAMES, masks=masks, batch=batch))
    assert [type(result) for result in results[1:4]] == [ImageError, ProposalError, ImageError]
    assert "broken.png" in str(results[1])
    for index in (0, 4):
        alone = model.segment(paths[index], NAMES, masks=masks_of(SIZES[index]))
        assert np.array_equal(results[index].label_map, alone.label_map)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"severance": "loose"}, SettingError, "unknown severance"),
        ({"anchors": "none"}, SettingError, "unknown anchors"),
        ({"classifier": "crops"}, SettingError, "unknown classifier"),
        ({"mode": "panotpic"}, SettingError, "unknown mode 'panotpic'"),
        ({"threshold": 5}, SettingError, "threshold"),
        ({"threshold": "high"}, SettingError, "threshold"),
        ({"batch": 0}, SettingError, "batch"),
        ({"batch": 2.5}, SettingError, "batch"),
        ({"names": []}, VocabularyError, "empty"),
        ({"names": {"cat", "dog"}}, VocabularyError, "a set"),
        ({"photos": "a.png"}, SettingError, "a list of photos, not a str"),
        ({"photos": {"a.png", "b.png"}}, SettingError, "a list of photos, not a set"),
        ({"photos": iter(["a.png"])}, SettingError, "a list of photos"),
        ({"photos": np.zeros((4, 5, 3), np.uint8)}, SettingError, "a list of photos"),
        ({"masks": []}, SettingError, "0 masks for 2 photos"),
        ({"masks": READ[:1]}, SettingError, "1 masks for 2 photos"),
        ({"masks": set(READ[:2])}, SettingError, "not a set"),
        ({"masks": [masks_of((9, 9))] * 2}, SettingError, "a ndarray: give a function"),
        ({"masks": [READ[0], None]}, SettingError, "no proposer"),
        ({"masks": None}, SettingError, "no proposer"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_arguments_are_checked_by_the_call_itself(model, arguments, error, message):
    given = {"photos": ["a.png", "b.png"], "names": NAMES, "masks": READ[:2]} | arguments
    with pytest.raises(error, match=message):
        segment_stream(model, **given)  # not iterated


def test_no_photos(model):
    assert list(segment_stream(model, [], NAMES)) == []


class Counter:
    """Counts photos and pixels from their decoding until the caller has the result."""

    def __init__(self, monkeypatch, read=streaming.read_photo):
        self.lock = threading.Lock()
        self.decoded = self.received = 0
        self.pixels = self.peak = 0
        self.read = read
        monkeypatch.setattr(streaming, "read_photo", self)

    def __call__(self, photo):
        with self.lock:
            self.decoded += 1
            self.pixels += photo.shape[0] * photo.shape[1]
            self.peak = max(self.peak, self.pixels)
        return self.read(photo)

    def take_all(self, results):
        for result in results:
            with self.lock:
                self.received += 1
                self.pixels -= result.label_map.size


@dataclass(frozen=True)
class Stub:
    """Stands for an ``EncodedPhoto``."""

    photo: np.ndarray
    source: str | None = None


@pytest.fixture
def quick(model, monkeypatch):
    """The model without its computations, for tests of the order of events."""

    def label(encoded, vocabulary, **options):
        return Segmentation.from_semantic(encoded.photo, vocabulary.names, np.zeros(encoded.photo.shape[:2], int))

    monkeypatch.setattr(model, "encode", lambda photos, masks, **options: [Stub(photo) for photo in photos])
    monkeypatch.setattr(model, "label", label)
    return model


def arrays_of(sizes):
    return [np.zeros((*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("limit", [1, 2, 5, 12])
def test_decoded_pixels_are_bounded(quick, monkeypatch, batch, limit):
    monkeypatch.setattr(streaming, "PIXELS_IN_MEMORY", limit * PIXELS)
    counter = Counter(monkeypatch)
    sizes = [(40, 56)] * 30
    counter.take_all(segment_stream(quick, arrays_of(sizes), NAMES, masks=READ[:1] * 30, batch=batch))
    assert counter.received == 30
    assert counter.peak <= limit * PIXELS


def test_a_photo_above_the_limit_is_processed_alone(quick, monkeypatch):
    monkeypatch.setattr(streaming, "PIXELS_IN_MEMORY", 2 * PIXELS)
    counter = Counter(monkeypatch)
    sizes = [(40, 56), (80, 100), (40, 56), (80, 100), (80, 100), (40, 56)]
    masks = [lambda size=size: masks_of(size) for size in sizes]
    counter.take_all(segment_stream(quick, arrays_of(sizes), NAMES, masks=masks, batch=8))
    assert counter.received == len(sizes)
    assert counter.peak == 80 * 100


def test_photos_are_bounded_in_number_too(quick, monkeypatch):
    counter = Counter(monkeypatch)
    results = segment_stream(quick, arrays_of([(40, 56)] * 30), NAMES, masks=READ[:1] * 30, batch=1)
    next(results)
    results.close()
    assert counter.decoded <= 1 + streaming.READERS


def test_photos_are_decoded_while_another_is_encoded(quick, monkeypatch):
    second = threading.Event()
    photos = arrays_of([(40, 56)] * 2)

    def read(photo):
        if photo is photos[1]:
            second.set()
        return np.array(photo)

    def encode(photos, masks, **options):
        assert second.wait(GUARD)
        return [Stub(photo) for photo in photos]

    monkeypatch.setattr(streaming, "read_photo", read)
    monkeypatch.setattr(quick, "encode", encode)
    assert len(list(segment_stream(quick, photos, NAMES, masks=READ[:1] * 2, batch=1))) == 2


def test_closing_stops_the_readers(quick, monkeypatch):
    gate = threading.Event()
    photos = arrays_of([(40, 56)] * 30)
    started = []

    def read(photo):
        started.append(photo)
        assert photo is photos[0] or gate.wait(GUARD)
        return np.array(photo)

    monkeypatch.setattr(streaming, "read_photo", read)
    before = set(threading.enumerate())
    results = segment_stream(quick, photos, NAMES, masks=READ[:1] * 30, batch=1)
    next(results)
    readers = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("deop-read")]
    results.close()
    gate.set()
    for reader in readers:
        reader.join(GUARD)
        assert not reader.is_alive()
    assert len(started) <= 1 + streaming.READERS


def out_of_memory(kind):
    if kind == "cuda":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if kind == "cpu":
        return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")
    return MemoryError("Unable to allocate 20.0 GiB for an array")


MARK = 77  # value of the pixels of the photo that does not fit


def marked_photos(count, marked):
    photos = arrays_of([(40, 56)] * count)
    photos[marked][:] = MARK
    return photos


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cuda", "cpu", "numpy"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("stage", ["encode", "label"])
def test_a_photo_that_does_not_fit_in_memory_does_not_end_the_stream(quick, monkeypatch, kind, batch, stage):
    original = getattr(quick, stage)

    def fail_for_the_marked_photo(photos, *arguments, **options):
        """``encode``, whose first argument is a list of photos, or ``label``, whose first argument is one."""
        arrays = photos if stage == "encode" else [photos.photo]
        if any((array == MARK).all() for array in arrays):
            raise out_of_memory(kind)
        return original(photos, *arguments, **options)

    monkeypatch.setattr(quick, stage, fail_for_the_marked_photo)
    results = list(segment_stream(quick, marked_photos(6, 2), NAMES, masks=READ[:1] * 6, batch=batch))
    assert isinstance(results[2], ResourceError)
    assert "a photo (56 x 40 px) does not fit in memory: resize it" in str(results[2])
    assert [isinstance(result, Segmentation) for result in results] == [index != 2 for index in range(6)]


def test_a_photo_that_cannot_be_decoded_for_lack_of_memory(quick, photos, monkeypatch):
    def read(photo):
        if photo is photos[2]:
            raise MemoryError
        return np.asarray(Image.open(photo)).copy()

    monkeypatch.setattr(streaming, "read_photo", read)
    results = list(segment_stream(quick, photos, NAMES, masks=READ))
    assert isinstance(results[2], ResourceError)
    assert str(photos[2]) in str(results[2])
    assert sum(isinstance(result, Segmentation) for result in results) == len(photos) - 1


def test_memory_is_freed_before_photos_are_tried_one_by_one(quick, monkeypatch):
    calls = []

    def encode(photos, *arguments, **options):
        calls.append(len(photos))
        if len(photos) > 1:
            raise out_of_memory("cuda")
        return [Stub(photo) for photo in photos]

    monkeypatch.setattr(quick, "encode", encode)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("freed"))
    results = list(segment_stream(quick, arrays_of([(40, 56)] * 3), NAMES, masks=READ[:1] * 3, batch=4))
    assert calls == [3, "freed", 1, 1, 1]
    assert all(isinstance(result, Segmentation) for result in results)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SettingError("a bug")])
def test_other_errors_end_the_stream(model, monkeypatch, error):
    def encode(*arguments, **options):
        raise error

    monkeypatch.setattr(model, "encode", encode)
    with pytest.raises(type(error), match="a bug"):
        next(segment_stream(model, arrays_of([(40, 56)]), NAMES, masks=READ[:1]))


def results_then(error=None, count=5):
    yield from range(count)
    if error:
        raise error


def test_results_are_saved_in_order_while_the_next_are_computed():
    second, saved = threading.Event(), []

    def results():
        for number in range(5):
            if number == 1:
                second.set()
            yield number

    def save(number, result):
        assert second.wait(GUARD)  # the first is saved only once the second has been computed
        saved.append((number, result))

    for result in write_behind(results(), save):
        assert (result, result) in saved
    assert saved == [(number, number) for number in range(5)]


def blank_results(count, received):
    """Results of 20 pixels; the list grows by the number of those that the caller lacks before each is computed."""
    lacking = []

    def results():
        for number in range(count):
            lacking.append(number - len(received))
            yield Segmentation.from_semantic(np.zeros((4, 5, 3), np.uint8), ["cat"], np.zeros((4, 5), int))

    return results(), lacking


@pytest.mark.parametrize(("pixels", "waiting"), [(1_000, 2), (40, 2), (39, 1), (20, 1), (19, 0), (1, 0)])
def test_results_that_wait_to_be_saved_are_bounded(monkeypatch, pixels, waiting):
    monkeypatch.setattr(streaming, "UNSAVED_PIXELS", pixels)
    received = []
    results, lacking = blank_results(8, received)
    for result in write_behind(results, lambda number, result: None):
        received.append(result)
    assert len(received) == 8
    assert max(lacking) == waiting


def test_results_before_an_interruption_are_saved():
    saved = []
    written = write_behind(results_then(KeyboardInterrupt()), lambda number, result: saved.append(result))
    received = [next(written) for _ in range(5)]
    with pytest.raises(KeyboardInterrupt):
        next(written)
    assert saved == received == list(range(5))


def test_a_result_that_cannot_be_saved_ends_the_iteration():
    computed = []

    def results():
        for number in range(50):
            computed.append(number)
            yield number

    def save(number, result):
        if number == 1:
            raise OSError("full")

    written = write_behind(results(), save)
    assert next(written) == 0
    with pytest.raises(OSError, match="full"):
        next(written)
    assert len(computed) <= 4

"""A stream of photos: the results of one by one, in order, whatever fails and whatever is read ahead."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from deop.batch.streaming import segment_stream, write_behind
from deop.errors import ImageError, ProposalError, SettingError
from deop.zoo import load

NAMES = ["cat", "wall", "sky"]
SIZES = [(40, 56), (56, 40), (40, 56), (33, 47), (40, 56), (56, 40), (40, 56)]


@pytest.fixture(scope="module")
def model(tiny_clip):
    loaded = load(str(tiny_clip), proposer="given", device="cpu")
    loaded.cache = None
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
def test_as_one_by_one(model, photos, batch):
    results = list(segment_stream(model, photos, NAMES, masks=READ, batch=batch))
    for path, size, result in zip(photos, SIZES, results, strict=True):
        alone = model.segment(path, NAMES, masks=masks_of(size))
        assert np.array_equal(result.label_map, alone.label_map)
        assert result.source == alone.source == str(path)
        assert result.label_map.shape == size


def test_options_go_through(model, photos):
    results = list(segment_stream(model, photos[:2], NAMES, masks=READ[:2], mode="instance", classifier="two-stream"))
    alone = model.segment(photos[1], NAMES, masks=masks_of(SIZES[1]), mode="instance", classifier="two-stream")
    assert [segment.name for segment in results[1].segments] == [segment.name for segment in alone.segments]


@pytest.mark.parametrize("batch", [1, 4])
def test_what_fails_stands_in_its_place_and_the_others_go_on(model, photos, tmp_path, batch):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:60])
    paths = [photos[0], broken, photos[2], tmp_path / "missing.png", photos[4]]
    masks = [READ[0], READ[0], lambda: masks_of((9, 9)), READ[0], READ[4]]  # the third fits no photo
    results = list(segment_stream(model, paths, NAMES, masks=masks, batch=batch))
    assert [type(result) for result in results[1:4]] == [ImageError, ProposalError, ImageError]
    assert "broken.png" in str(results[1])
    for index in (0, 4):
        alone = model.segment(paths[index], NAMES, masks=masks_of(SIZES[index]))
        assert np.array_equal(results[index].label_map, alone.label_map)


def test_settings_are_refused_before_a_photo_is_read(model, tmp_path):
    with pytest.raises(SettingError, match="unknown severance"):
        next(segment_stream(model, [tmp_path / "none.png"], NAMES, severance="loose"))


def test_reading_goes_on_while_one_is_looked_at_and_not_too_far(model, photos, monkeypatch):
    import deop.batch.streaming as stream

    read = []
    monkeypatch.setattr(stream, "read_photo", lambda path: (read.append(path), np.zeros((40, 56, 3), np.uint8))[1])
    many = photos * 10
    results = segment_stream(model, many, NAMES, masks=[READ[0]] * len(many))
    next(results)
    time.sleep(0.3)
    assert 2 <= len(read) <= 5
    results.close()
    time.sleep(0.1)
    count = len(read)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deop-read") and thread.is_alive()]
    time.sleep(0.1)
    assert len(read) == count < len(many)


def results_then(error=None, count=5):
    yield from range(count)
    if error:
        raise error


def test_results_are_written_while_the_next_are_made_and_come_in_order():
    saved, made = [], []

    def results():
        for number in range(5):
            made.append(number)
            yield number

    def save(number, result):
        time.sleep(0.02)
        saved.append((number, result))

    for got in write_behind(results(), save):
        assert (got, got) in saved
        assert len(made) <= got + 4
    assert saved == [(number, number) for number in range(5)]


def test_what_was_made_before_a_fault_is_written():
    saved = []
    written = write_behind(results_then(KeyboardInterrupt()), lambda number, result: saved.append(result))
    got = [next(written) for _ in range(5)]
    with pytest.raises(KeyboardInterrupt):
        next(written)
    assert saved == got == list(range(5))


def test_a_result_that_cannot_be_written_ends_it_at_once():
    saved = []

    def save(number, result):
        if number == 1:
            raise OSError("full")
        time.sleep(0.05)
        saved.append(number)

    written = write_behind(results_then(count=50), save)
    assert next(written) == 0
    with pytest.raises(OSError, match="full"):
        next(written)
    assert len(saved) <= 4

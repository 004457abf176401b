"""What is not accepted is refused with the documented status and a body that names the limit."""

import asyncio
import base64
import io
import tempfile
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from deop.errors import SettingError
from deop.serving.encoded_photos import EncodedPhotos, memory_of
from deop.serving.limits import Limits
from deop.serving.metrics import Metrics
from deop.serving.problems import Problem
from deop.serving.queue import WorkQueue
from deop.serving.request_log import RequestLog
from deop.serving.work import Done, Kept
from tests.serving.conftest import png, problem


class SlowLane:
    """A worker that waits until it may go on, and records what it was given."""

    def __init__(self):
        self.go = threading.Event()
        self.batches = []

    async def run(self, works):
        self.batches.append(list(works))
        while not self.go.is_set():
            await asyncio.sleep(0.002)
        return Done([Kept(f"0-{len(self.batches)}", (1, 1)) for _ in works], 0, 0)

    async def restart(self):
        pass

    def close(self):
        pass


def test_sizes(serve, cat):
    with serve(limits=Limits(bytes=len(cat) - 1)) as client:
        assert problem(client.post("/v1/encode", content=cat), 413, "bytes")["maximum"] == len(cat) - 1

        def parts():  # without Content-Length
            yield cat

        problem(client.post("/v1/encode", content=parts()), 413, "bytes")
        problem(client.post("/v1/encode", files={"photo": cat}), 413, "bytes")
        assert 'deop_refusals_total{limit="bytes"} 3.0' in client.get("/metrics").text
    with serve(limits=Limits(pixels=160 * 106 - 1)) as client:
        problem(client.post("/v1/encode", content=cat), 413, "pixels")
    with serve(limits=Limits(cache_bytes=1000)) as client:
        problem(client.post("/v1/encode", content=cat), 413, "cache_bytes")


def test_a_decompression_bomb_is_refused_by_its_header(serve):
    image = Image.new("1", (30_000, 30_000))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert len(file.getvalue()) < 200_000
    with serve() as client:
        start = time.monotonic()
        problem(client.post("/v1/segment", params={"names": "cat"}, content=file.getvalue()), 413, "pixels")
        assert time.monotonic() - start < 5


def test_names(serve, cat):
    with serve(limits=Limits(names=3, characters=20)) as client:
        problem(client.post("/v1/segment", params={"names": "a,b|c,d"}, content=cat), 422, "names")
        problem(client.post("/v1/segment", params={"names": "a,b", "background": "c,d"}, content=cat), 422, "names")
        problem(client.post("/v1/segment", params={"names": "x" * 21}, content=cat), 422, "characters")
        problem(client.post("/v1/segment", files={"photo": cat}, data={"names": "x" * 5000}), 422, "characters")
        for names in ("", " ", "cat, cat", "cat,,dog", "a\x07b"):
            problem(client.post("/v1/segment", params={"names": names}, content=cat), 422)


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "fast"}, {"threshold": "2"}, {"threshold": "x"}, {"threshold": "dog=0.5"}, {"heatmap": "1"},
        {"heatmap": "-1"}, {"picture": "none"}, {"vocabulary": "mine"}, {"things": "dog"}, {"severance": "gate"},
        {"severance": "nonsense"}, {"colour": "red"}, {"mode": ""}, {"vocabulary": " "}, {"picture": ""},
        {"classifier": ""}, {"classifier": "two-stream"}, {"anchors": "nonsense"}, {"templates": "no braces"},
        {"smallest_region": "1"}, {"smallest_region": "nan"}, {"smallest_region": ""}, {"heatmap": ""},
    ],
)  # fmt: skip
def test_options(serve, cat, fields):
    with serve() as client:
        problem(client.post("/v1/segment", params={"names": "cat", **fields}, content=cat), 422)


def test_kinds_of_files(serve, cat):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "EPS")  # Pillow would start a program to read it
    with serve() as client:
        for content in (b"hello", b"%PDF-1.7", b"<svg/>", b"GIF89a", file.getvalue()):
            problem(client.post("/v1/segment", params={"names": "cat"}, content=content), 415)
        for content in (b"", cat[: len(cat) // 2]):
            problem(client.post("/v1/segment", params={"names": "cat"}, content=content), 422)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
            headers = {"Content-Type": kind}
            problem(client.post("/v1/segment", params={"names": "cat"}, content=cat, headers=headers), 415)
        problem(client.post("/v1/label", content=b"{}", headers={"Content-Type": "text/plain"}), 415)
        problem(client.post("/v1/segment", params={"names": "cat"}, content=cat, headers={"Accept": "text/html"}), 406)
        headers = {"Accept": "image/jpeg"}
        for picture in ("cutout", "label-map"):
            fields = {"names": "cat", "picture": picture}
            problem(client.post("/v1/segment", params=fields, content=cat, headers=headers), 406)


def test_bodies_that_cannot_be_read(serve, cat):
    with serve() as client:
        for content in (b"", b"{", b"[]", b"null", b'{"photo": 3}', b'{"photo": "%%%", "names": "cat"}', b"\xff"):
            problem(client.post("/v1/segment", content=content, headers={"Content-Type": "application/json"}), 422)
        for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
            problem(client.post("/v1/segment", content=b"nonsense", headers={"Content-Type": kind}), 422)
        problem(client.post("/v1/segment", files={"picture": cat}, data={"names": "cat"}), 422)
        problem(client.post("/v1/segment", data={"names": "cat"}, files={"x": cat}), 422)
        text = base64.b64encode(cat).decode()
        problem(client.post("/v1/segment", json={"photo": text, "names": ["cat"], "colour": 1}), 422)
        problem(client.post("/v1/segment", json={"photo": text}), 422)
        problem(client.post("/v1/segment?names=cat&names=dog", content=cat), 422)
        problem(client.post("/v1/segment?names=cat", data={"names": "dog"}, files={"photo": cat}), 422)
        problem(client.post("/v1/segment?mode=fast", json={"photo": text, "names": ["cat"], "mode": "panoptic"}), 422)
        problem(client.post("/v1/encode", params={"names": "cat"}, content=cat), 422)


def test_web_addresses_are_not_fetched(serve):
    with serve() as client:
        for address in ("http://127.0.0.1/x.png", "https://example.com/cat.jpg", "file:///etc/passwd"):
            problem(client.post("/v1/segment", json={"photo": address, "names": "cat"}), 422)
            problem(client.post("/v1/segment", params={"names": "cat"}, content=address.encode()), 415)


def test_photos_stay_in_memory(serve, monkeypatch):
    """Starlette writes files of a form above one megabyte to disk; ours are not."""
    noise = png(np.random.default_rng(0).integers(0, 256, (800, 800, 3)))
    assert len(noise) > 1_500_000

    def fail(*args, **options):
        raise AssertionError("a temporary file was created")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr(tempfile, "_TemporaryFileWrapper", fail)
    with serve() as client:
        answer = client.post("/v1/encode", files={"photo": noise})
        assert answer.json()["size"] == [800, 800]


def test_too_many_requests(serve, cat):
    lane = SlowLane()
    with serve(lane=lane, limits=Limits(requests=2)) as client:
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/v1/encode", content=cat))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while "deop_requests_in_progress 2.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        start = time.monotonic()
        problem(client.post("/v1/encode", content=cat), 429, "requests")
        assert time.monotonic() - start < 5
        lane.go.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [201, 201]
        assert client.post("/v1/encode", content=cat).status_code == 201, "the places are free again"


def test_a_wait_that_would_be_too_long_is_refused_at_once():
    """With slow photos, fewer requests are accepted than there are places: none is to wait and then get no answer."""
    queue = WorkQueue([SlowLane()], Limits(requests=100, seconds=10), Metrics(), RequestLog(io.StringIO()))
    queue._seconds = 3
    with ExitStack() as stack:
        for _ in range(3):  # the third waits for 6 seconds and takes 3; a fourth would take 12
            stack.enter_context(queue.place())
        with pytest.raises(Problem) as error, queue.place():
            pass
        assert (error.value.status, error.value.limit) == (429, "seconds")
        assert error.value.retry_after >= 1
    queue._seconds = 1000
    with queue.place():
        pass


def test_an_answer_that_takes_too_long(serve, cat):
    lane = SlowLane()
    with serve(lane=lane, limits=Limits(seconds=0.2)) as client:
        problem(client.post("/v1/encode", content=cat), 503, "seconds")
        problem(client.post("/v1/encode", content=cat), 503, "seconds")
        assert len(lane.batches) == 1, "the second one left the queue"
        assert "deop_queue_length 0.0" in client.get("/metrics").text
        lane.go.set()


def test_waiting_photos_are_encoded_together(serve, cat):
    lane = SlowLane()
    with serve(lane=lane, batch=4) as client:
        threads = [
            threading.Thread(target=client.post, args=("/v1/encode",), kwargs={"content": cat}) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while "deop_requests_in_progress 6.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        lane.go.set()
        for thread in threads:
            thread.join()
        assert sum(map(len, lane.batches)) == 6
        assert 1 < max(map(len, lane.batches)) <= 4


def test_the_cache_is_bounded_in_memory_and_time():
    now = [0.0]
    photos = EncodedPhotos(100, 10, lambda: now[0])
    for key in "abc":
        photos.add(key, np.zeros(40, np.uint8))
    assert len(photos) == 2
    assert photos.bytes == 80
    with pytest.raises(Problem):
        photos.get("a")
    photos.get("b")  # used last, so that the next one replaces c
    photos.add("d", np.zeros(40, np.uint8))
    assert photos.get("b").nbytes == 40
    with pytest.raises(Problem):
        photos.get("c")
    now[0] = 9
    photos.get("b")
    now[0] = 12
    photos.expire()
    assert len(photos) == 1
    assert photos.bytes == 40
    now[0] = 30
    photos.expire()
    assert (len(photos), photos.bytes) == (0, 0)
    with pytest.raises(Problem):
        photos.add("e", np.zeros(101, np.uint8))


def test_the_memory_of_an_encoded_photo(model, cat):
    (encoded,) = model.encode([cat])
    assert memory_of(encoded) == encoded.photo.nbytes + encoded.masks.logits.nbytes + encoded.regions.nbytes


def test_limits_must_be_positive():
    with pytest.raises(SettingError, match="pixels"):
        Limits(pixels=0)

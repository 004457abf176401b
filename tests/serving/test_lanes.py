"""Workers that end or hang: what they had is answered, and a harmful photo costs itself alone."""

import os
import threading
import time

import pytest

from deop.serving.lanes import NICENESS, ProcessLane
from deop.serving.limits import Limits
from deop.serving.work import Done, Kept
from tests.serving.conftest import problem

SECONDS = 3


class FakeWorker:
    """Answers at once, except about harmful photos."""

    def describe(self):
        return {"nice": os.nice(0)}

    def run(self, works):
        for work in works:
            if work.body == b"crash":
                os._exit(1)
            if work.body == b"hang":
                time.sleep(1000)
            if work.body == b"slow":
                time.sleep(0.5)
        return Done([Kept(f"0-{len(works)}", (1, 1)) for _ in works], 0, 0)


@pytest.fixture
def lane():
    started = ProcessLane(FakeWorker, SECONDS)
    started.description = started.wait_until_ready()
    yield started
    started.close()


def post_all(client, bodies):
    """The answers to requests that are sent at the same time, the first one a little earlier."""
    answers = [None] * len(bodies)

    def post(index):
        answers[index] = client.post("/v1/encode", content=bodies[index])

    threads = [threading.Thread(target=post, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no GPU")  # Windows has no niceness
def test_a_worker_has_a_lower_priority(lane):
    assert lane.description["nice"] == os.nice(0) + NICENESS


def test_a_photo_that_ends_its_worker_costs_itself_alone(serve, lane):
    """Photos that were in the same batch are answered; the harmful one is refused after two tries."""
    with serve(lane=lane, batch=4) as client:
        answers = post_all(client, [b"slow", b"good", b"crash", b"good"])
        assert [answer.status_code for answer in answers] == [201, 201, 422, 201]
        assert "two workers" in problem(answers[2], 422)["detail"]
        assert "deop_workers_lost_total 2.0" in client.get("/metrics").text
        assert [line["event"] for line in client.log()].count("worker lost") == 2
        assert client.post("/v1/encode", content=b"good").status_code == 201


def test_a_photo_that_blocks_its_worker_is_given_up(serve, lane):
    with serve(lane=lane, limits=Limits(seconds=SECONDS)) as client:
        problem(client.post("/v1/encode", content=b"hang"), 503, "seconds")
        deadline = time.monotonic() + 30
        while client.post("/v1/encode", content=b"good").status_code != 201:
            assert time.monotonic() < deadline
        assert "deop_workers_lost_total 1.0" in client.get("/metrics").text


def test_a_worker_that_was_ended_while_idle_is_replaced_without_notice(serve, lane):
    with serve(lane=lane) as client:
        for _ in range(3):
            lane._process.kill()
            lane._process.join()
            assert client.post("/v1/encode", content=b"good").status_code == 201
        assert client.get("/readyz").status_code == 200

"""``deop serve`` as a process, over a socket."""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serving.conftest import png, problem

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no GPU")  # signals differ on Windows


def segment(client, photo, names="cat, wall"):
    return client.post("/v1/segment", params={"names": names}, content=photo)


def test_it_answers_and_ends_with_sigterm(process, model, cat):
    """What was accepted before SIGTERM is answered; the process then ends with success, and says so in its log."""
    server = process()
    expected = json.loads(json.dumps(model.segment(cat, "cat, wall").summary(rle=True)))["segments"]
    assert segment(server.client, cat).json()["segments"] == expected
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(segment(server.client, cat))) for _ in range(6)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=server.url) as other:
        deadline = time.monotonic() + 30
        while "deop_requests_in_progress 6.0" not in other.get("/metrics").text and len(answers) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    server.child.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert all(answer.json()["segments"] == expected for answer in answers)
    assert server.child.wait(30) == 0
    rest = server.log()
    lines = [json.loads(line) for line in rest.splitlines() if line.startswith("{")]
    assert lines[-1]["event"] == "stopped"
    assert "wall" not in rest
    assert not [path for path in server.folder.rglob("*") if path.name != "log-0.txt"], "nothing is written"


def test_a_client_that_leaves_frees_its_place(process, cat):
    server = process("--max-requests", "2")
    body = cat * 1
    head = (
        f"POST /v1/segment?names=cat HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(body) + 1}\r\n\r\n"
    ).encode()
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port)
    for _ in range(4):  # twice as many as there are places
        with socket.create_connection(address) as connection:
            connection.sendall(head + body)  # one byte is missing
            deadline = time.monotonic() + 20
            while "deop_requests_in_progress 1.0" not in server.client.get("/metrics").text:
                assert time.monotonic() < deadline
        deadline = time.monotonic() + 20
        while "deop_requests_in_progress 0.0" not in server.client.get("/metrics").text:
            assert time.monotonic() < deadline
    assert "deop_cancelled_total 4.0" in server.client.get("/metrics").text
    assert segment(server.client, cat).status_code == 200


@pytest.mark.slow
def test_workers_are_processes_that_are_replaced(process, model, cat):
    server = process("--workers", "2")
    expected = json.loads(json.dumps(model.segment(cat, "cat, wall").summary(rle=True)))["segments"]
    keys = [server.client.post("/v1/encode", content=cat).json()["id"] for _ in range(8)]
    for key in keys:  # each is labelled by the worker that has it
        answer = server.client.post("/v1/label", json={"id": key, "names": ["cat", "wall"]})
        assert answer.json()["segments"] == expected
    problem(server.client.post("/v1/segment", params={"names": "cat, cat"}, content=cat), 422)
    problem(server.client.post("/v1/segment", params={"names": "cat", "severance": "x"}, content=cat), 422)
    processes = Path("/proc")
    children = (processes / f"{server.child.pid}/task/{server.child.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"spawn_main" in (processes / pid / "cmdline").read_bytes()]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    answer = segment(server.client, cat)
    assert answer.status_code == 200, "the request waits for the next worker"
    assert answer.json()["segments"] == expected
    server.child.send_signal(signal.SIGTERM)
    server.child.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no GPU")  # the limit exists on Linux only
def test_a_photo_that_needs_more_memory_than_a_worker_has(process, cat):
    """It is refused, and the worker goes on."""
    server = process("--worker-megabytes", "700", "--max-seconds", "300")
    large = png(np.full((5000, 6000, 3), 128))
    with httpx.Client(base_url=server.url, timeout=300) as client:
        problem(client.post("/v1/segment", params={"names": "cat"}, content=large), 413, "memory")
        assert segment(client, cat).status_code == 200
        assert "deop_workers_lost_total 0.0" in client.get("/metrics").text


def test_other_addresses_with_a_token(process, cat, tmp_path):
    server = process("--host", "0.0.0.0", environment={"DEOP_TOKEN": "0123456789abcdefghij"})
    problem(segment(server.client, cat), 401)
    server.client.headers["Authorization"] = "Bearer 0123456789abcdefghij"
    assert segment(server.client, cat).status_code == 200


def test_it_runs_without_torch(process, cat):
    hidden = ("torch", "scipy", "transformers", "safetensors", "huggingface_hub", "onnx")
    code = f"import sys\nsys.modules |= dict.fromkeys({hidden})\nfrom deop.__main__ import main\nmain()\n"
    server = process(program=("-c", code))
    assert segment(server.client, cat).status_code == 200


def test_mistakes_end_it_at_once(process):
    for arguments, text in (
        (("--host", "0.0.0.0"), "token"),
        (("--model", "no-such-model"), "no-such-model"),
        (("--max-names", "0"), "max-names"),
        (("--worker-megabytes", "20"), "worker-megabytes"),
    ):
        with pytest.raises(AssertionError, match=text):
            process(*arguments)

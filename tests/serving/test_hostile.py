"""Clients that mean harm: paths, headers, tokens, connections, and photos that are slow to decode."""

import hmac
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from deop.serving.access import Gate
from tests.serving.conftest import connect, metric, problem, rest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no GPU")  # signals and sockets differ on Windows

TOKEN = "a-token-of-the-tests-0123456789"
HEADERS = frozenset((
    "allow", "cache-control", "connection", "content-length", "content-type", "cross-origin-resource-policy",
    "date", "etag",
    "last-modified", "location", "referrer-policy", "retry-after", "transfer-encoding", "vary", "www-authenticate",
    "x-content-type-options", "x-frame-options", "x-request-id", "accept-ranges",
))  # fmt: skip
"""All headers that the server sends."""


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/..%2f..%2f..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/samples/../../__init__.py", "/samples/..%2f..%2f__init__.py", "/samples/%2e%2e/%2e%2e/_version.py",
        "/./../setup.py", "/..\\..\\__init__.py", "/%5c..%5c..%5c__init__.py", "/samples/coffee.jpg%00.html",
        "/etc/passwd", "file:///etc/passwd",
        "http://127.0.0.1/../etc/passwd", "/samples/coffee.jpg/", "/samples//coffee.jpg", "/%c0%ae%c0%ae/etc/passwd",
        "/v1/encode/../../etc/passwd", "/v1/encode/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/~root/.ssh/id_rsa",
        "/.git/config",
    ],
)  # fmt: skip
def test_paths_that_leave_the_page(listen, path):
    """Sent as they are: libraries for HTTP shorten some of them."""
    with listen() as server:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer, _ = rest(connect(server, head.encode("latin-1")))
        assert re.match(rb"HTTP/1\.1 (400|404|405) ", answer), answer
        assert b"root:" not in answer
        assert b"import" not in answer


@pytest.mark.parametrize(
    "form",
    ["%0d%0aSet-Cookie:%20a=b", "%0aX-Injected: 1", "\u560d\u560aX-Injected: 1", "%E5%98%8A%E5%98%8DX-Injected:1"],
)
def test_nothing_that_is_sent_becomes_a_header(serve, cat, form):
    raw = re.sub("%0d%0a|%0a", "\n", form)
    with serve() as client:
        answers = [
            client.get(f"/{form}"),
            client.get(f"/v1/models?x={form}"),
            client.delete(f"/v1/encode/{form}"),
            client.post(f"/v1/segment?names={form}", content=cat),
            client.post("/v1/label", json={"id": raw, "names": [raw]}),
            client.post("/v1/segment", files={"photo": (raw, cat, "image/png")}, data={"names": raw}),
            client.post(
                "/v1/segment?names=cat", content=cat, headers={"Content-Type": b"image/png; a=" + form.encode()}
            ),
            client.get("/v1/models", headers={"X-Request-ID": form.encode()}),
            client.get("/v1/models", headers={"Origin": form.encode()}),
            client.get("/v1/models", headers={"Accept": form.encode()}),
        ]
        for answer in answers:
            assert answer.status_code < 500
            assert {name.lower() for name in answer.headers} <= HEADERS
            assert not any("njected" in value or "Set-Cookie" in value for value in answer.headers.values())
        assert "njected" not in client.log_text()
        assert "Set-Cookie" not in client.log_text()
        assert all(line.count("\n") == 0 for line in client.log_text().splitlines())


def test_tokens_are_compared_in_constant_time(serve, monkeypatch):
    """Each token that is given is compared by a function whose time does not depend on where they differ."""
    compared = []
    compare = hmac.compare_digest

    def watch(given, expected):
        compared.append((given, expected))
        return compare(given, expected)

    monkeypatch.setattr("deop.serving.access.hmac.compare_digest", watch)
    given = [TOKEN, TOKEN[:-1], "x" + TOKEN[1:], "", "x"]
    with serve(tokens=(TOKEN, "another")) as client:
        statuses = [client.get("/", headers={"Authorization": f"Bearer {token}"}).status_code for token in given]
        assert statuses == [200, 401, 401, 401, 401]
        assert compared == [(token.encode(), known) for token in given for known in (TOKEN.encode(), b"another")]
    assert isinstance(client.application, Gate)


def test_nothing_of_a_request_is_written_anywhere(process, cat, tmp_path):
    """Neither photos nor names are in a file, the log or the metrics. All folders it knows are its own."""
    place = tmp_path / "own"
    folders = {
        name: str(place / name.lower())
        for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DEOP_CACHE")
    }
    for folder in folders.values():
        Path(folder).mkdir(parents=True)
    server = process(environment=folders)
    secret = "zanzibar"
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)).save(noise, "PNG")
    with httpx.Client(base_url=server.url, timeout=120) as client:
        files = {"photo": (f"{secret}.png", noise.getvalue(), "image/png")}
        assert client.post("/v1/segment", files=files, data={"names": secret}).status_code == 200
        assert client.post(f"/v1/segment?names={secret}", content=cat).status_code == 200
        key = client.post("/v1/encode", content=cat).json()["id"]
        assert client.post("/v1/label", json={"id": key, "names": [secret]}).status_code == 200
        problem(client.post("/v1/segment", params={"names": f"{secret},{secret}"}, content=cat), 422)
        text = client.get("/metrics").text
    server.child.send_signal(signal.SIGTERM)
    assert server.child.wait(30) == 0
    for shown in (text, server.log()):
        assert secret not in shown
        assert key not in shown
    assert [path for path in place.rglob("*") if path.is_file()] == []


CONNECTIONS = """
import resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
address = ("127.0.0.1", int(sys.argv[1]))
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.create_connection(address, timeout=60))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_ten_thousand_idle_connections(listen, cat):
    """Another process holds them. Who asks is answered; the server keeps a thousand, and needs little memory."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    with listen(idle_seconds=600, head_seconds=600) as server:
        server.client.post("/v1/segment", params={"names": "cat"}, content=cat).raise_for_status()
        before = resident()
        command = [sys.executable, "-c", CONNECTIONS, str(server.address[1]), "10000"]
        crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert crowd.stdout.readline() == "open\n"
            with httpx.Client(base_url=str(server.client.base_url), timeout=60) as client:
                for _ in range(3):
                    assert client.post("/v1/segment", params={"names": "cat"}, content=cat).status_code == 200
            text = server.client.get("/metrics").text
            assert metric(text, "deop_connections") <= 1000
            assert metric(text, 'deop_connections_closed_total{limit="connections"}') >= 9000
            assert resident() - before < 100
        finally:
            crowd.communicate("")
        deadline = time.monotonic() + 60
        while server.metric("deop_connections") > 10:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def slow_jpeg(scans=3000, side=3000):
    """A small progressive JPEG whose last scan is there thousands of times, so that decoding takes minutes."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True, quality=50)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


@pytest.mark.slow
def test_a_photo_whose_decoding_takes_too_long_costs_itself_alone(process, cat):
    """A worker that decodes for longer than an answer may take is replaced; what others ask is answered."""
    photo = slow_jpeg()
    assert len(photo) < 20_000_000
    server = process("--workers", "2", "--max-seconds", "8")
    answers = []

    def send(content):
        with httpx.Client(base_url=server.url, timeout=120) as client:
            answers.append((content is photo, client.post("/v1/segment", params={"names": "cat"}, content=content)))

    threads = [threading.Thread(target=send, args=(content,)) for content in (photo, cat, cat, cat)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for is_harmful, answer in answers:
        if is_harmful:
            assert answer.status_code in (422, 503), answer.text
        else:
            assert answer.status_code == 200, answer.text
    with httpx.Client(base_url=server.url, timeout=120) as client:
        assert client.post("/v1/segment", params={"names": "cat"}, content=cat).status_code == 200
        # The answer comes at its limit of time, the end of the worker as soon as the system has removed the process.
        end = time.monotonic() + 60
        while not metric(client.get("/metrics").text, "deop_workers_lost_total"):
            assert time.monotonic() < end, "the worker that decodes was not replaced"
            time.sleep(0.2)


@pytest.mark.slow
def test_workers_that_are_killed_under_load_lose_nothing(process, model, cat):
    """Eight clients ask all the time while a worker is killed again and again: each gets the right answer."""
    server = process("--workers", "2", "--max-seconds", "300")
    expected = json.loads(json.dumps(model.segment(cat, "cat, wall").summary(rle=True)))["segments"]
    end, statuses, wrong = time.monotonic() + 30, [], []

    def ask():
        with httpx.Client(base_url=server.url, timeout=300) as client:
            while time.monotonic() < end:
                answer = client.post("/v1/segment", params={"names": "cat, wall"}, content=cat)
                statuses.append(answer.status_code)
                if answer.status_code == 200 and answer.json()["segments"] != expected:
                    wrong.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    random = np.random.default_rng(0)
    kills = 0
    while time.monotonic() < end:
        time.sleep(random.uniform(0.5, 2))
        children = Path(f"/proc/{server.child.pid}/task/{server.child.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if workers:
            os.kill(int(random.choice(workers)), signal.SIGKILL)
            kills += 1
    for thread in threads:
        thread.join()
    assert not wrong
    assert kills > 3
    # A photo that was computed by two workers which ended cannot be told from a harmful one.
    assert set(statuses) <= {200, 422}
    assert statuses.count(200) > 0
    assert statuses.count(422) <= kills


def test_a_socket_that_only_connects_and_leaves(listen):
    with listen() as server:
        for _ in range(200):
            connection = socket.create_connection(server.address)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()  # with a reset
        assert server.client.get("/healthz").status_code == 200
        assert '"error"' not in server.log()

"""Servers for tests: the application around a worker, and ``deop serve`` as a process."""

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason='needs the extra "serve"')
pytest.importorskip("uvicorn", reason='needs the extra "serve"')
pytest.importorskip("httpx", reason='needs the extra "dev"')

import httpx
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

import deop
from deop.serving.app import create_app
from deop.serving.limits import Limits
from deop.serving.request_log import RequestLog
from deop.serving.server import Server, bind
from deop.serving.work import Worker

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def model():
    loaded = deop.load("nano", engine="onnx", device="cpu", threads=1)
    loaded.cache = None
    return loaded


@pytest.fixture(scope="session")
def cat():
    """The bytes of a photo of a cat, small so that tests are fast."""
    with Image.open(EXAMPLES / "chelsea.png") as image:
        return png(np.asarray(image.convert("RGB").resize((160, 106))))


class ThreadLane:
    """A worker in a thread of this process, where tests can replace its parts."""

    def __init__(self, worker):
        self._worker = worker

    async def run(self, works):
        return await asyncio.to_thread(self._worker.run, works)

    async def restart(self):
        pass

    def close(self):
        pass


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def serve(model):
    """``with serve(limits=..., lane=...) as client``: the application in this process, and ``client.log()``."""

    @contextmanager
    def start(*, lane=None, description=None, limits=None, **options):
        limits = limits or Limits()
        worker = Worker(model, limits, "0-")
        description = description or worker.describe()
        stream = io.StringIO()
        lanes = [lane or ThreadLane(worker)]
        app = create_app(lanes, description, limits=limits, log=RequestLog(stream), **options)
        with TestClient(app, base_url="http://localhost") as client:
            client.application = app
            client.log = lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
            client.log_text = stream.getvalue
            yield client

    return start


@pytest.fixture
def process(tmp_path):
    """``process("--workers", "2")`` runs ``deop serve`` and waits for its address."""
    started = []

    def run(*arguments, environment=None, program=("-m", "deop")):
        log = tmp_path / f"log-{len(started)}.txt"
        with log.open("wb") as file:  # a pipe that nobody reads would fill up, and stop the server
            child = subprocess.Popen(
                [sys.executable, *program, "serve", "--port", "0", "--threads", "1", *arguments],
                stderr=file,
                cwd=tmp_path,
                env={**os.environ, "COLUMNS": "200", **(environment or {})},
            )
        started.append(child)
        while child.poll() is None:
            if address := re.search(r"^open (http://\S+) ", log.read_text(), re.MULTILINE):
                url = address[1]
                client = httpx.Client(base_url=url, timeout=60)
                return SimpleNamespace(url=url, child=child, client=client, log=log.read_text, folder=tmp_path)
            time.sleep(0.02)
        raise AssertionError(log.read_text())

    yield run
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()


@pytest.fixture
def listen(model):
    """``with listen(head_seconds=1) as server``: the whole server with these limits, on a socket of this process."""

    @contextmanager
    def start(**limits):
        limits, ready, stream = Limits(**limits), threading.Event(), io.StringIO()
        worker = Worker(model, limits, "0-")
        listening = bind("127.0.0.1", 0)
        address = listening.getsockname()
        server = Server(
            [ThreadLane(worker)], worker.describe(), limits=limits, announce=ready.set, log=RequestLog(stream)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        assert ready.wait(30)
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=60) as client:
            try:
                yield SimpleNamespace(
                    address=address,
                    client=client,
                    log=stream.getvalue,
                    metric=lambda name: metric(client.get("/metrics").text, name),
                )
            finally:
                server.should_exit = True
                thread.join(30)
        assert not thread.is_alive()

    return start


def metric(text, name):
    return float(re.search(f"^{re.escape(name)} (.*)$", text, re.MULTILINE)[1])


def connect(server, *parts):
    connection = socket.create_connection(server.address, timeout=30)
    for part in parts:
        connection.sendall(part)
    return connection


def rest(connection):
    """What is received until the other side closes the connection, and the seconds until then."""
    start, parts = time.monotonic(), []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts), time.monotonic() - start


def problem(answer, status, limit=None):
    """The content of a refusal, after checks that all of them have to pass."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status
    assert content["title"]
    assert content["detail"]
    assert content["request_id"] == answer.headers["x-request-id"]
    assert content.get("limit") == limit
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    return content

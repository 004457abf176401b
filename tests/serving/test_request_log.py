"""The server does not wait for the reader of its log: lines are lost, and counted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from deop.serving.request_log import RequestLog

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no GPU")  # pipes cannot be asked for room on Windows


@pytest.fixture
def pipe():
    """(reading end, stream that writes) of a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        yield reading, stream
        os.close(reading)


def drained(reading):
    """What a pipe has, without waiting for more."""
    os.set_blocking(reading, False)
    parts = []
    try:
        while part := os.read(reading, 1 << 16):
            parts.append(part)
    except BlockingIOError:
        pass
    os.set_blocking(reading, True)
    return b"".join(parts).decode()


def fill(writing):
    """Write to a pipe until it is full."""
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)


@pytest.mark.parametrize("size", [1, 3000, 10_000])
def test_a_full_pipe_loses_lines_and_says_how_many(pipe, size):
    """Also of lines that are longer than a pipe takes at once; each line that was read is whole."""
    reading, stream = pipe
    log, lost, sent = RequestLog(stream), [], 2_000_000 // (size + 100)
    log.when_lost = lambda: lost.append(1)
    for number in range(sent):
        log.write("request", number=number, filling="x" * size)
    assert 0 < len(lost) < sent
    log.write("request", number=sent)
    assert len(lost) + len(drained(reading).splitlines()) >= sent
    log.write("request", number=sent + 1)
    torn, *lines = drained(reading).splitlines()
    lines = [json.loads(line) for line in ([torn, *lines] if torn else lines)]
    assert [line["event"] for line in lines] == ["lines lost", "request"]
    assert lines[0]["count"] == len(lost)
    assert lines[1]["number"] == sent + 1


def test_a_line_that_was_written_in_part_stays_alone(pipe):
    reading, stream = pipe
    log = RequestLog(stream)
    for _ in range(40):
        log.write("request", filling="x" * 10_000)
    drained(reading)
    log.write("request", number=1)
    broken = drained(reading)
    assert [json.loads(line)["event"] for line in broken.splitlines() if line] == ["lines lost", "request"]


def test_a_full_disk_and_a_closed_pipe(pipe):
    reading, stream = pipe
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        log, lost = RequestLog(full), []
        log.when_lost = lambda: lost.append(1)
        log.write("ready")
        assert len(lost) == 1
    log, lost = RequestLog(stream), []
    log.when_lost = lambda: lost.append(1)
    replacement, _ = os.pipe()
    os.dup2(replacement, reading)  # the reader has gone
    log.write("ready")
    assert len(lost) == 1


def test_a_terminal_that_is_stopped():
    """Ctrl-S in a terminal stops what is shown, and nothing else."""
    import pty
    import termios

    control, terminal = pty.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        log, lost = RequestLog(stream), []
        log.when_lost = lambda: lost.append(1)
        log.write("ready", model="nano")
        assert os.read(control, 1000).endswith(b"ready: model nano\r\n")
        termios.tcflow(stream.fileno(), termios.TCOOFF)
        log.write("ready", model="nano")
        assert lost == [1]
        termios.tcflow(stream.fileno(), termios.TCOON)
        log.write("stopped")
        assert b"lines lost: count 1" in os.read(control, 1000)
        assert lost == [1]
    os.close(control)


def test_a_server_whose_log_is_not_read(tmp_path):
    """Each request is answered, and is in the log or counted as lost, also after the reader goes on."""
    command = [sys.executable, "-m", "deop", "serve", "--port", "0", "--threads", "1"]
    environment = {**os.environ, "COLUMNS": "200"}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, env=environment)
    assert child.stderr is not None
    try:
        text = b""
        while not (address := re.search(rb"open (http://\S+) ", text)):
            part = os.read(child.stderr.fileno(), 1 << 16)
            assert part, text
            text += part
        with httpx.Client(base_url=address[1].decode(), timeout=20) as client:
            for _ in range(1000):
                assert client.get("/nothing").status_code == 404
            metrics = client.get("/metrics").text
            lost = int(float(re.search(r"^deop_log_lines_lost_total (\S+)$", metrics, re.MULTILINE)[1]))
            assert lost > 0
            before = drained(child.stderr.fileno())
            assert client.get("/nothing").status_code == 404
        child.send_signal(signal.SIGTERM)
        after = child.stderr.read().decode()
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
    lines = [json.loads(line) for line in (text.decode() + before + after).splitlines() if line.startswith("{")]
    read = sum(line["event"] == "request" for line in lines)
    (gap,) = [line["count"] for line in lines if line["event"] == "lines lost"]
    assert read + gap == 1000 + 1 + 1, "all requests, that for the metrics and the last one"
    assert lines[-1]["event"] == "stopped"


def test_a_server_ends_although_its_log_is_not_read(tmp_path):
    command = [sys.executable, "-m", "deop", "serve", "--port", "0", "--threads", "1"]
    reading, writing = os.pipe()
    child = subprocess.Popen(command, stderr=writing, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"})
    try:
        text = b""
        while not (address := re.search(rb"open (http://\S+) ", text)):
            text += os.read(reading, 1 << 16)
        fill(writing)
        assert httpx.get(address[1].decode() + "/nothing").status_code == 404
        start = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert time.monotonic() - start < 30
    finally:
        child.kill()
        child.wait()
        os.close(reading)
        os.close(writing)

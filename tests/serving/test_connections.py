"""Connections that wait for nothing, and what is not HTTP."""

import json
import socket
import threading
import time

import pytest

from tests.serving.conftest import connect, png, problem, rest


def healthy(connection):
    """Whether a request on a connection is answered."""
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b"}"):
        part = connection.recv(1 << 16)
        if not part:
            return False
        received += part
    return received.startswith(b"HTTP/1.1 200 ")


def test_a_head_that_takes_too_long(listen):
    """Slow-loris: one byte at a time is not progress."""
    with listen(head_seconds=1.5) as server:
        trickling = connect(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.1):
                try:
                    trickling.sendall(b"a")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        answer, seconds = rest(trickling)
        stop.set()
        thread.join()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["limit"] == "head_seconds"
        assert 1 < seconds < 20
        silent, _ = rest(connect(server))
        assert silent == b"", "a connection that sends nothing is closed, too"
        assert server.metric('deop_connections_closed_total{limit="head_seconds"}') == 2


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(listen):
    with listen(idle_seconds=1, head_seconds=1) as server:
        idle, busy = connect(server), connect(server)
        assert healthy(idle)
        for _ in range(8):
            assert healthy(busy)
            time.sleep(0.4)
        assert rest(idle)[0] == b""
        assert healthy(busy)


def test_the_number_of_connections_is_bounded(listen, cat):
    """Whoever opens connections and does nothing loses them; those that ask are answered."""
    with listen(connections=20) as server:
        idle = [connect(server) for _ in range(100)]
        assert server.client.post("/v1/segment", params={"names": "cat"}, content=cat).status_code == 200
        assert server.metric("deop_connections") <= 20
        assert server.metric('deop_connections_closed_total{limit="connections"}') >= 80
        for connection in idle:
            connection.close()


def test_a_refusal_does_not_wait_for_the_body(listen):
    """The answer is there before the body; what still comes is received for a while, so that no client is cut off."""
    with listen(bytes=1000, upload_seconds=1.5) as server:
        head = b"POST /v1/segment?names=cat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        connection = connect(server, head)
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 413 ")
        connection.sendall(b"x" * 100_000)
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 16)
        assert healthy(connection), "the connection can be used again"
        _, seconds = rest(connect(server, head))
        assert seconds < 20
        assert server.metric('deop_connections_closed_total{limit="upload_seconds"}') == 1
        # A client that closes the connection after the answer reads it although it sends all of the body first.
        closing = connect(server, head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"x" * 100_000)
        assert rest(closing)[0].startswith(b"HTTP/1.1 413 ")


def test_a_form_that_stops_in_the_middle(listen):
    with listen(upload_seconds=1) as server:
        head = (
            b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        answer, _ = rest(connect(server, head, b'--x\r\nContent-Disposition: form-data; name="photo"'))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["limit"] == "upload_seconds"
        assert server.metric("deop_requests_in_progress") == 0


def test_an_answer_that_nobody_takes(listen):
    """A client that never reads its answer does not keep the connection, nor the memory of the answer."""
    import numpy as np

    noise = png(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3)))
    with listen(send_seconds=1, head_seconds=1) as server:
        head = (
            f"POST /v1/segment?names=cat,wall HTTP/1.1\r\nHost: localhost\r\nAccept: image/png\r\n"
            f"Content-Type: image/png\r\nContent-Length: {len(noise)}\r\n\r\n"
        ).encode()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        connection.sendall(head + noise)
        deadline = time.monotonic() + 60
        while 'deop_connections_closed_total{limit="send_seconds"} 1.0' not in server.client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        connection.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzanzibar\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 400_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 400_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    ],
)
def test_what_is_not_http(listen, request_, status):
    with listen(head_seconds=2) as server:
        answer, _ = rest(connect(server, request_))
        if status == 431 and not answer:
            return  # the connection was closed while the rest was on its way
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"content-type: application/problem+json" in head.lower()
        assert json.loads(body)["status"] == status
        assert server.client.get("/healthz").status_code == 200
        lines = [json.loads(line) for line in server.log().splitlines()]
        assert {"bad request"} <= {line["event"] for line in lines}
        assert not any(line["event"] == "error" for line in lines)
        assert "zanzibar" not in server.log()


def test_hostile_headers(listen, cat):
    with listen() as server:
        for headers in (
            {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"},
            {"Host": "example.com"},
            {"Host": "localhost@example.com"},
            {"Host": "127.0.0.1.nip.io"},
        ):
            answer = server.client.get("/v1/models", headers={"Host": "example.com", **headers})
            problem(answer, 403)
        answer = server.client.get("/healthz", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"})
        assert answer.status_code == 200
        assert "server" not in answer.headers
        many = {f"X-{number}": "a" for number in range(500)}
        assert server.client.get("/healthz", headers=many).status_code == 200
        split = server.client.get("/healthz", headers={"X-Request-ID": "a\tSet-Cookie: b"})
        assert "set-cookie" not in split.headers

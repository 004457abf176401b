"""Photos from web addresses: a server on this machine, for which the test allows http."""

import http.server
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from deop.errors import ImageError
from deop.images import download
from deop.images.download import fetch
from deop.images.reading import count_pixels, read_photo


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.requests.append((path, self.headers.get("User-Agent", "")))
        if path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", self.server.targets[path])
            self.end_headers()
        elif path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif path == "/gone":
            self.send_error(404)
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.05)
        elif path == "/silent":
            self.server.stop.wait(5)
        else:
            content = {"/cat.png": png(), "/page": b"<!doctype html>", "/large": bytes(5000)}[path]
            self.send_response(200)
            if path != "/large" or "unknown" not in self.path:
                declared = len(content) + (10 if "short" in self.path else 0)
                self.send_header("Content-Length", str(declared))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.targets, server.stop = [], {}, threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


def get(url, **options):
    return fetch(url, schemes=("http", "https"), **options)


def test_a_photo_is_downloaded(server):
    server.targets["/redirect/1"] = "/cat.png"
    for path in ("/cat.png?size=2", "/redirect/1"):
        assert get(server.address + path) == png()
    server.targets["/redirect/caf%C3%A9%20%E2%98%95%25.png"] = "/cat.png"
    assert get(server.address + "/redirect/café ☕%25.png") == png()
    assert all(agent.startswith("deop/") for _, agent in server.requests)


def test_read_photo_takes_addresses(server, monkeypatch):
    monkeypatch.setattr("deop.images.download.fetch", get)
    photo = read_photo(server.address + "/cat.png")
    np.testing.assert_array_equal(photo, np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match=r"/page: it is a web page"):
        read_photo(server.address + "/page")
    assert count_pixels(server.address + "/cat.png") == 0
    with pytest.raises(ImageError, match="not allowed here"):
        read_photo(server.address + "/cat.png", allow_urls=False)
    assert [path for path, _ in server.requests] == ["/cat.png", "/page"]


@pytest.mark.parametrize("query", ["", "?unknown"])
def test_large_files_are_refused_whether_they_say_so_or_not(server, query):
    with pytest.raises(ImageError, match=r"more than 0\.004 MB"):
        get(server.address + "/large" + query, max_bytes=4000)
    assert len(get(server.address + "/large" + query, max_bytes=5000)) == 5000


def test_incomplete_files_are_refused(server):
    with pytest.raises(ImageError, match=r"only 5,000 of 5010 bytes|IncompleteRead"):
        get(server.address + "/large?short")


def test_slow_servers_are_given_up(server):
    with pytest.raises(ImageError, match=r"more than 0\.2 s"):
        get(server.address + "/slow", max_seconds=0.2)
    with pytest.raises(ImageError, match=r"no answer for 0\.2 s"):
        get(server.address + "/silent", timeout=0.2)


def test_errors_of_the_server_are_named(server):
    with pytest.raises(ImageError, match="/gone: the server answers 404"):
        get(server.address + "/gone")
    with pytest.raises(ImageError, match="the server answers 302"):
        get(server.address + "/loop")
    assert len(server.requests) <= 2 + download.MAX_REDIRECTS
    server.shutdown()
    server.server_close()
    with pytest.raises(ImageError, match="check the address and the connection"):
        get(server.address + "/cat.png")


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/cat.png", "ftp://127.0.0.1/cat.png", "file:///etc/hosts"])
def test_redirects_to_other_schemes_are_refused(server, target, monkeypatch):
    """With https only, a server cannot lead to anything else. The first request is let through for the test."""
    server.targets["/redirect/1"] = target.format(port=server.server_port)
    check = download._check

    def allow_first(url, origin, schemes):
        if url != origin:
            check(url, origin, schemes)

    monkeypatch.setattr(download, "_check", allow_first)
    with pytest.raises(ImageError, match=r"redirected to .*only https addresses are allowed|is not allowed"):
        fetch(server.address + "/redirect/1")
    assert [path for path, _ in server.requests] == ["/redirect/1"]


def test_a_public_server_does_not_lead_into_a_private_network(server, monkeypatch):
    """The name of the public server is that of this machine, for the test."""
    server.targets["/redirect/1"] = f"http://127.0.0.1:{server.server_port}/cat.png"
    address = server.address.replace("127.0.0.1", "localhost")
    is_public = download._is_public
    monkeypatch.setattr(download, "_is_public", lambda url: "localhost" in url or is_public(url))
    with pytest.raises(ImageError, match="in a private network"):
        get(address + "/redirect/1")
    assert is_public("https://8.8.8.8/")
    assert not is_public("https://10.1.2.3/")
    assert not is_public("https://[::1]/")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/a.jpg", "only https addresses are allowed"),
        ("ftp://example.org/a.jpg", "only https addresses are allowed"),
        ("https://user:secret@example.org/a.jpg", "user names and passwords"),
        ("https:///a.jpg", "no host"),
        ("https://example.org:port/a.jpg", "check the address"),
        ("https://[::1/a.jpg", "check the address"),
        ("https://é" + 70 * "é" + ".org/a.jpg", "check the address"),
    ],
)
def test_addresses_that_are_refused_without_a_connection(url, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_photo(url)
    assert "secret" not in str(caught.value)

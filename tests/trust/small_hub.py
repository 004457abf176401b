"""A hub over HTTP on this machine, which the real client downloads from, and which can drop connections."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class SmallHub:
    """One repo, "org/model", with one revision.

    Attributes:
        files: contents by name.
        dropped_after: bytes of an answer after which the connection is dropped; None: never.
        ends_at: place in a file beyond which nothing is sent; None: its end.
        pause: seconds between parts of 64 KB.
        ranges: the first bytes that were asked for, of each download of a file other than JSON.
        address: of the server.
    """

    files: dict[str, bytes]
    dropped_after: int | None = None
    ends_at: int | None = None
    pause: float = 0.0
    ranges: list[int] = field(default_factory=list)
    address: str = ""


def _id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def small_hub(files: dict[str, bytes]) -> Iterator[SmallHub]:
    """Serve files until the end of the context."""
    hub = SmallHub(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, *, body: bool = True) -> None:
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/models/org/model/"):
                entries = [(name, _id(content), len(content)) for name, content in hub.files.items()]
                listed: object = [
                    {"type": "file", "path": name, "oid": oid, "size": size} for name, oid, size in entries
                ]
                if "/tree/" not in path:
                    siblings = [{"rfilename": name, "blobId": oid, "size": size} for name, oid, size in entries]
                    listed = {"id": "org/model", "modelId": "org/model", "sha": COMMIT, "siblings": siblings}
                content = json.dumps(listed).encode()
                self.answer(200, content, {"Content-Type": "application/json"})
                if body:
                    self.wfile.write(content)
                return
            found = re.fullmatch(r"/org/model/resolve/[^/]+/(.+)", path)
            if not found or found[1] not in hub.files:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            self.send_file(found[1], body)

        def send_file(self, name: str, body: bool) -> None:
            whole = hub.files[name]
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(start[1]) if start else 0
            content = whole[first:]
            headers = {"ETag": f'"{_id(whole)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
            self.answer(206 if first else 200, content, headers)
            if not body:
                return
            large = not name.endswith(".json")
            if large:
                hub.ranges.append(first)
            end = len(content)
            if large and hub.dropped_after is not None:
                end = min(end, hub.dropped_after)
            if large and hub.ends_at is not None:
                end = max(0, min(end, hub.ends_at - first))
            try:
                for place in range(0, min(end, len(content)), 1 << 16):
                    self.wfile.write(content[place : min(place + (1 << 16), end)])
                    time.sleep(hub.pause if large else 0)
            except OSError:  # the client has gone
                self.close_connection = True
            if end < len(content):
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()

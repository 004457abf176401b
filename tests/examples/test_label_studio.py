"""examples/label_studio: the backend as a process, asked as Label Studio asks it; a stand-in for it has the photos."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

pytest.importorskip("fastapi", reason='needs the extra "serve"')
import httpx

from tests.examples.conftest import EXAMPLES
from tests.results.test_annotation_tools import decode_brush
from tests.results.test_polygons import fill

KEY = "0123456789abcdef0123456789abcdef01234567"
BRUSH = """
<View>
  <Image name="photo" value="$picture" zoom="true"/>
  <BrushLabels name="masks" toName="photo">
    <Label value="cat"/> <Label value="sofa|couch"/> <Label value="wall|plaster"/>
  </BrushLabels>
</View>
"""
LABELS = ["cat", "sofa|couch", "wall|plaster"]


def server_of(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture(scope="module")
def label_studio(cat):
    """A server that hands out a photo to those who have the key, and sends those who ask for s3:// elsewhere."""
    seen = SimpleNamespace(store=[], refreshed=[])

    class Store(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.store.append((self.path, self.headers.get("Authorization")))
            answer(self, cat.read_bytes())

        def log_message(self, *_):
            pass

    store, store_address = server_of(Store)

    class LabelStudio(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.headers.get("Authorization") not in (f"Token {KEY}", "Bearer access"):
                self.send_error(401)
            elif self.path.startswith("/tasks/5/presign/"):
                (place,) = parse_qs(urlsplit(self.path).query)["fileuri"]
                self.send_response(303)
                self.send_header("Location", f"{store_address}/{urlsafe_b64decode(place).decode()}")
                self.end_headers()
            elif self.path == "/data/upload/1/cat.png":
                answer(self, cat.read_bytes())
            elif self.path == "/data/upload/1/text.txt":
                answer(self, b"not a photo")
            else:
                self.send_error(404)

        def do_POST(self):
            seen.refreshed.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer(self, b'{"access": "access"}')

        def log_message(self, *_):
            pass

    def answer(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    server, address = server_of(LabelStudio)
    yield SimpleNamespace(url=address, seen=seen)
    server.shutdown()
    store.shutdown()


def start(label_studio, key):
    """The backend as a process, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "PORT": str(port), "LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": key,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, EXAMPLES / "label_studio" / "backend.py"], env=environment)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            assert httpx.get(f"{address}/health").json()["status"] == "UP"
            return process, address
        except httpx.TransportError:
            assert process.poll() is None
            time.sleep(0.1)
    raise AssertionError("the backend does not start")


@pytest.fixture(scope="module")
def backend(label_studio):
    process, address = start(label_studio, KEY)
    yield httpx.Client(base_url=address, timeout=120)
    process.terminate()
    process.wait()


def question(*places, config=BRUSH):
    """What Label Studio posts to /predict."""
    tasks = [
        {
            "id": number, "data": {"picture": place}, "meta": {}, "created_at": "2026-01-01T00:00:00Z", "project": 1,
            "annotations": [], "predictions": [], "is_labeled": False, "overlap": 1, "inner_id": number,
        }
        for number, place in enumerate(places, 5)
    ]  # fmt: skip
    parameters = {"login": None, "password": None, "context": None}
    return {
        "tasks": tasks, "project": "1.1767225600", "label_config": config, "params": parameters, "model_version": None,
    }  # fmt: skip


def test_connecting(backend):
    body = {
        "project": "1.1",
        "schema": BRUSH,
        "hostname": "http://localhost:8080",
        "access_token": "",
        "extra_params": None,
    }
    assert backend.post("/setup", json=body).json()["model_version"].startswith("deop ")
    assert backend.get("/").json()["status"] == "UP"
    assert backend.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 201


def test_masks_of_two_tasks(backend, label_studio, model, cat):
    answer = backend.post("/predict", json=question("/data/upload/1/cat.png", "/data/upload/1/cat.png")).json()
    expected = model.segment(cat, LABELS, mode="panoptic")
    assert len(answer["results"]) == 2
    for prediction in answer["results"]:
        assert prediction["model_version"] == answer["model_version"]
        assert len(prediction["result"]) == len(expected.segments)
        for region, segment in zip(prediction["result"], expected.segments, strict=True):
            assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "masks", "photo")
            assert region["value"]["brushlabels"] == [LABELS[segment.class_id]]  # as in the configuration
            alpha = decode_brush(region["value"]["rle"]).reshape(*expected.shape, 4)[..., 3]
            np.testing.assert_array_equal(alpha > 0, segment.mask)


def test_polygons(backend, model, cat):
    config = BRUSH.replace("BrushLabels", "PolygonLabels")
    (prediction,) = backend.post("/predict", json=question("/data/upload/1/cat.png", config=config)).json()["results"]
    expected = model.segment(cat, LABELS, mode="panoptic")
    for label in {region["value"]["polygonlabels"][0] for region in prediction["result"]}:
        regions = [region for region in prediction["result"] if region["value"]["polygonlabels"] == [label]]
        size = expected.shape[::-1]
        rings = [np.rint(np.array(region["value"]["points"]) / 100 * size) for region in regions]
        mask = expected.label_map == LABELS.index(label)
        assert (fill(rings, expected.shape) ^ mask).sum() < 0.05 * mask.sum()  # simplified by a pixel


def test_the_key_does_not_reach_the_cloud_storage(backend, label_studio):
    answer = backend.post("/predict", json=question("s3://bucket/my cat.png"))
    assert answer.status_code == 200
    assert label_studio.seen.store == [("/s3://bucket/my%20cat.png", None)]


@pytest.mark.parametrize(
    ("place", "config", "text"),
    [
        ("http://169.254.169.254/latest", BRUSH, "photos are read from Label Studio"),
        ("file:///etc/passwd", BRUSH, "photos are read from Label Studio"),
        ("/data/upload/1/text.txt", BRUSH, "cannot read"),
        ("/data/upload/1/other.png", BRUSH, "answers 404"),
        ("/data/upload/1/cat.png", "<View/>", "needs BrushLabels or PolygonLabels"),
        ("/data/upload/1/cat.png", "<View>", "not XML"),
    ],
)
def test_what_cannot_be_predicted_is_named(backend, place, config, text):
    answer = backend.post("/predict", json=question(place, config=config))
    assert answer.status_code == 422
    assert text in answer.json()["detail"]


def test_keys(example, label_studio, monkeypatch):
    backend = example("label_studio/backend.py")
    monkeypatch.setattr(backend, "LABEL_STUDIO", label_studio.url)
    monkeypatch.setattr(backend, "KEY", "")
    with pytest.raises(ValueError, match="set LABEL_STUDIO_API_KEY"):
        backend.photo_of({"id": 1}, "/data/upload/1/cat.png")
    monkeypatch.setattr(backend, "KEY", "a.personal.token")
    assert backend.photo_of({"id": 1}, "/data/upload/1/cat.png").startswith(b"\x89PNG")
    assert label_studio.seen.refreshed == [{"refresh": "a.personal.token"}]

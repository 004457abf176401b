"""Which pixels a click, a box or a mask stands for: what ``POST /v1/marks`` answers is what is learned."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

import deop
from deop.bank import Box, Click
from deop.bank.marks import masks_of
from deop.serving import openapi
from deop.serving.app import create_app
from deop.serving.limits import Limits
from deop.serving.request_log import RequestLog
from deop.serving.work import Worker
from tests.bank.desk import render
from tests.serving.conftest import ThreadLane, png, problem
from tests.serving.test_banks import TOKENS, centre, create, encode, read, run_lengths, teach

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def either_model(request, model):
    if request.param == "onnx":
        return model
    pytest.importorskip("torch", reason='needs the extra "torch"')
    loaded = deop.load("nano", engine="torch", device="cpu")
    loaded.cache = None
    return loaded


@pytest.fixture(scope="module")
def desk():
    """A photo of a desk (240, 320, 3) and the masks of its objects."""
    return render(0)


@pytest.fixture
def client(serve, either_model):
    worker = Worker(either_model, Limits(), "0-")
    with serve(lane=ThreadLane(worker), description=worker.describe()) as started:
        yield started


def ask(client, photo, *marks, **options):
    return client.post("/v1/marks", json={"id": photo, "marks": list(marks)}, **options)


def marks_on(masks):
    """Marks as a client sends them, and as ``learn`` takes them."""
    rows, columns = np.nonzero(masks["blorp"])
    box = [int(columns.min()) - 1.4, int(rows.min()) - 2, int(columns.max()) + 2.5, int(rows.max()) + 2]
    picture = base64.b64encode(png(masks["zindle"] * 255)).decode()
    sent = [
        {"click": centre(masks["widget-a"])}, {"click": [0, 239]}, {"box": box}, {"box": [-20, -20, 30.5, 31.5]},
        {"box": [300, 0, 302, 2]}, {"mask": run_lengths(masks["widget-a"])}, {"mask": picture},
    ]  # fmt: skip
    local = [
        Click(*centre(masks["widget-a"])), Click(0, 239), Box(*box), Box(-20, -20, 30.5, 31.5),
        Box(300, 0, 302, 2), masks["widget-a"], masks["zindle"],
    ]  # fmt: skip
    return sent, local


def pixels_of(answer):
    """The masks of an answer, decoded by COCO's own reader."""
    tools = pytest.importorskip("pycocotools.mask", reason='needs the extra "dev"')
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return [tools.decode(entry["segmentation"]).astype(bool) for entry in answer.json()["marks"]]


def test_the_pixels_are_those_that_python_learns(client, either_model, desk):
    photo, masks = desk
    sent, local = marks_on(masks)
    (encoded,) = either_model.encode([photo])
    expected = masks_of(local, photo.shape[:2], encoded.masks, encoded.canvas)
    key = encode(client, png(photo))
    answer = ask(client, key, *sent)
    np.testing.assert_array_equal(pixels_of(answer), expected)
    content = answer.json()
    assert content["size"] == [320, 240]
    for entry, mask in zip(content["marks"], expected, strict=True):
        rows, columns = np.nonzero(mask)
        assert entry["area"] == len(rows)
        assert entry["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert entry["segmentation"]["size"] == [240, 320]
    # The click finds the object, and the box does not leave its sides.
    click, box = expected[0], expected[2]
    assert (click & masks["widget-a"]).sum() > 0.5 * (click | masks["widget-a"]).sum()
    assert click[tuple(int(value) for value in centre(masks["widget-a"])[::-1])]
    left, top, right, bottom = content["marks"][2]["box"]
    given = sent[2]["box"]
    assert left >= round(given[0])
    assert top >= given[1]
    assert right <= round(given[2])
    assert bottom <= given[3]
    assert (box & masks["blorp"]).sum() > 0.5 * masks["blorp"].sum()
    for place, mark in enumerate(sent):  # one by one, too
        np.testing.assert_array_equal(pixels_of(ask(client, key, mark)), expected[[place]])


def test_a_mark_and_its_pixels_are_learned_alike(client, desk):
    photo, masks = desk
    sent, _ = marks_on(masks)
    names = ["widget-a", "table", "-blorp", "table", "table", "widget-a", "zindle"]
    key = encode(client, png(photo))
    returned = [{"mask": entry["segmentation"]} for entry in ask(client, key, *sent).json()["marks"]]
    banks = []
    for marks in (sent, returned):
        banks.append(create(client))
        answer = teach(
            client, banks[-1], key, *({"name": name, **mark} for name, mark in zip(names, marks, strict=True))
        )
        assert answer.status_code == 200, answer.text
    by_marks, by_pixels = (read(client, bank) for bank in banks)
    np.testing.assert_array_equal(by_marks.regions.view(np.uint16), by_pixels.regions.view(np.uint16))
    assert by_marks == by_pixels


def test_asking_costs_no_pass_and_changes_nothing(client, either_model, desk, monkeypatch):
    photo, masks = desk
    key, bank = encode(client, png(photo)), create(client)
    monkeypatch.setattr(type(either_model), "encode", None)
    first, second = (ask(client, key, {"click": centre(masks["blorp"])}) for _ in range(2))
    assert first.content == second.content
    assert client.get(f"/v1/banks/{bank}").json()["regions"] == 0


def test_a_mask_without_a_pixel(client, desk):
    """It is ignored beside others, as when it is learned; alone it is refused."""
    photo, masks = desk
    empty = {"mask": run_lengths(np.zeros((240, 320), bool))}
    key, bank = encode(client, png(photo)), create(client)
    content = ask(client, key, {"mask": run_lengths(masks["blorp"])}, empty).json()
    assert content["marks"][1] == {"box": None, "area": 0, "segmentation": empty["mask"]}
    detail = problem(ask(client, key, empty, empty), 422)["detail"]
    assert detail == problem(teach(client, bank, key, {"name": "cup", **empty}), 422)["detail"]


@pytest.fixture(scope="module")
def refusing(model):
    """A server, the id of an encoded photo, and that of an empty bank."""
    worker = Worker(model, Limits(), "0-")
    app = create_app([ThreadLane(worker)], worker.describe(), log=RequestLog(io.StringIO()))
    with TestClient(app, base_url="http://localhost") as started:
        yield started, encode(started, png(render(0)[0])), create(started)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "mark",
    [
        {}, {"click": None}, {"click": [1, 1], "box": [1, 1, 2, 2]}, {"click": [1]}, {"click": [1, 1, 1]},
        {"click": "1,1"}, {"click": ["1", 1]}, {"click": [True, 1]}, {"click": {"x": 1, "y": 2}},
        {"click": [320, 3]}, {"click": [3, 240]}, {"click": [-0.5, 3]}, {"click": [1e7, 3]}, {"click": [NAN, 3]},
        {"click": [3, INFINITY]}, {"box": [5, 5, 5, 9]}, {"box": [9, 5, 5, 9]}, {"box": [400, 5, 420, 9]},
        {"box": [-9, -9, -1, -1]}, {"box": [0.1, 0.1, 0.2, 0.2]}, {"box": [1, 2, 3]}, {"box": [1, 2, NAN, 4]},
        {"mask": "%%"}, {"mask": "é"}, {"mask": ""}, {"mask": base64.b64encode(b"hello").decode()}, {"mask": 7},
        {"mask": base64.b64encode(png(np.ones((9, 9)))).decode()}, {"mask": {"size": [240, 319], "counts": "0"}},
        {"mask": {"size": [240, 320], "counts": "9"}}, {"mask": {"size": [240, 320], "counts": "é"}},
        {"mask": {"size": [240, 320], "counts": [1, 2]}}, {"mask": {"size": [240, 320], "counts": [-1, 76801]}},
        {"mask": {"size": [240, 320], "counts": [76800]}}, {"mask": {"size": [240], "counts": "0"}},
        {"colour": "red", "click": [1, 1]}, 3, None, [1, 1],
    ],
)  # fmt: skip
def test_what_learning_refuses_is_refused_with_the_same_words(refusing, mark):
    client, photo, bank = refusing
    example = {"name": "cup", **mark} if isinstance(mark, dict) else mark
    answers = [
        client.post(path, content=json.dumps(body), headers=JSON)
        for path, body in (
            ("/v1/marks", {"id": photo, "marks": [mark]}),
            (f"/v1/banks/{bank}/examples", {"id": photo, "examples": [example]}),
        )
    ]
    status = answers[1].status_code
    assert status in (415, 422), answers[1].text
    shown, learned = (problem(answer, status, answer.json().get("limit"))["detail"] for answer in answers)
    assert shown == learned.replace("examples.", "marks.").replace("Example`", "Mark`").replace("Example", "Mark")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "id"), ({"id": 3, "marks": []}, "id"), ({"marks": [{"click": [1, 1]}]}, "id"), ({"id": None}, "marks"),
        ({"id": None, "marks": []}, "marks"), ({"id": None, "marks": {"click": [1, 1]}}, "marks"),
        ({"id": None, "marks": [{"click": [1, 1]}], "replace": True}, "replace"),
        ({"id": None, "marks": [{"click": [1, 1], "name": "cup"}]}, "name"), ([], "the body"), ("id", "the body"),
    ],
)  # fmt: skip
def test_bodies_of_another_form(refusing, content, text):
    """``None`` stands for the id of the photo."""
    client, photo, _ = refusing
    if isinstance(content, dict) and "id" in content and content["id"] is None:
        content = {**content, "id": photo}
    assert text in problem(client.post("/v1/marks", json=content), 422)["detail"]


def test_requests_of_another_form(refusing):
    client, photo, _ = refusing
    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        problem(client.post("/v1/marks", content=body, headers=JSON), 422)
    problem(client.post("/v1/marks", content=b"x", headers={"Content-Type": "image/png"}), 415)
    problem(client.post("/v1/marks", params={"id": photo}, json={"id": photo, "marks": [{"click": [1, 1]}]}), 422)
    answer = client.get("/v1/marks")
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    for key in ("0-x", "9-x", "x", "", photo + "x", photo.upper()):
        assert problem(ask(client, key, {"click": [1, 1]}), 404)["missing"] == "photo"
    problem(ask(client, "0-" + "x" * 99, {"click": [1, 1]}), 422)


def test_where_the_model_proposes_nothing(serve, model, desk):
    """A click is refused, and a box is the whole box."""
    photo, _ = desk
    worker = Worker(model, Limits(), "0-")
    with serve(lane=ThreadLane(worker), description=worker.describe()) as client:
        key, bank = encode(client, png(photo)), create(client)
        encoded, encoding = worker._photos.get(key)
        without = replace(encoded, masks=encoded.masks.keep(np.zeros(0, int)), regions=encoded.regions[:0])
        worker._photos.add(key, (without, encoding))
        refused = problem(ask(client, key, {"click": [7, 9]}), 422)["detail"]
        assert "no mask at (7, 9)" in refused
        assert refused == problem(teach(client, bank, key, {"name": "cup", "click": [7, 9]}), 422)["detail"]
        (whole,) = pixels_of(ask(client, key, {"box": [3, 5, 9, 8]}))
        assert (whole[5:8, 3:9].sum(), whole.sum()) == (18, 18)


@pytest.mark.slow
def test_a_photo_of_two_streams(serve, desk):
    """Learning refuses it, too: embeddings of crops would not compare."""
    pytest.importorskip("torch", reason='needs the extra "torch"')
    loaded = deop.load("nano", engine="torch", device="cpu")
    worker = Worker(loaded, Limits(), "0-")
    with serve(lane=ThreadLane(worker), description=worker.describe()) as client:
        key = encode(client, png(desk[0]), params={"classifier": "two-stream"})
        bank = create(client)
        details = {
            problem(answer, 422)["detail"]
            for answer in (
                ask(client, key, {"click": [9, 9]}),
                teach(client, bank, key, {"name": "cup", "click": [9, 9]}),
            )
        }
        assert len(details) == 1
        assert "two-stream" in details.pop()


def test_limits(serve, desk):
    photo, masks = desk
    mark = {"click": centre(masks["blorp"])}
    with serve(limits=Limits(examples=2)) as client:
        key = encode(client, png(photo))
        assert ask(client, key, mark, mark).status_code == 200
        assert problem(ask(client, key, mark, mark, mark), 422, "examples")["maximum"] == 2
    with serve(limits=Limits(pixels=photo.shape[0] * photo.shape[1])) as client:
        key = encode(client, png(photo))
        assert ask(client, key, *[mark] * 4).status_code == 200
        problem(ask(client, key, *[mark] * 5), 413, "memory")
    body = json.dumps({"id": "0-x", "marks": [mark]})
    with serve(limits=Limits(bytes=len(body))) as client:
        problem(client.post("/v1/marks", content=body, headers=JSON), 404)
        problem(client.post("/v1/marks", content=body + " ", headers=JSON), 413, "examples_bytes")


def test_the_answer_is_bounded(serve, desk):
    """A small picture can be a mask of many runs: an answer has at most as many bytes as a request may have."""
    photo, masks = desk
    stripes = np.zeros((240, 320), bool)
    stripes[::2] = True  # 240 runs in each column
    picture = png(stripes * 255)
    mark = {"mask": base64.b64encode(picture).decode()}
    sent = png(photo)
    most = max(len(sent), 200_000)
    assert len(picture) < 2000
    with serve(limits=Limits(bytes=most)) as client:
        key = encode(client, sent)
        answer = ask(client, key, mark, mark)
        assert 2 * 76_800 < len(answer.content) <= most
        np.testing.assert_array_equal(pixels_of(answer)[1], stripes)
        content = problem(ask(client, key, *[mark] * 3), 413, "examples_bytes")
        assert content["maximum"] == most
        assert "in several requests" in content["detail"]
        assert ask(client, key, *[{"mask": run_lengths(masks["blorp"])}] * 3).status_code == 200


def test_tokens(serve, desk):
    """Photos belong to whoever knows their id, as for ``/v1/label``: it cannot be guessed."""
    photo, masks = desk
    mark = {"click": centre(masks["blorp"])}
    first, second = ({"headers": {"Authorization": f"Bearer {token}"}} for token in TOKENS)
    with serve(tokens=TOKENS) as client:
        key = encode(client, png(photo), **first)
        problem(ask(client, key, mark), 401)
        problem(ask(client, key, mark, headers={"Authorization": "Bearer wrong"}), 401)
        answers = [ask(client, key, mark, **token) for token in (first, second)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == answers[1].content
        labels = client.post("/v1/label", json={"id": key, "names": "cat"}, **second)
        assert labels.status_code == 200, "both requests have the same rule"
        client.delete(f"/v1/encode/{key}", **first)
        assert problem(ask(client, key, mark, **first), 404)["missing"] == "photo"


def test_neither_log_nor_metrics_have_marks_or_ids(serve, desk):
    photo, masks = desk
    spot = [123.4567, 45.6789]
    with serve() as client:
        key = encode(client, png(photo))
        ask(client, key, {"click": spot}, {"mask": run_lengths(masks["blorp"])})
        ask(client, key, {"click": [98765.4321, 1]})
        entries = [entry for entry in client.log() if entry.get("path") == "/v1/marks"]
        assert [(entry["method"], entry["status"]) for entry in entries] == [("POST", 200), ("POST", 422)]
        metrics = client.get("/metrics").text
        assert 'deop_requests_total{method="POST",path="/v1/marks",status="200"} 1.0' in metrics
        for text in (client.log_text(), metrics):
            for private in (key, "123.4567", "98765", run_lengths(masks["blorp"])["counts"]):
                assert private not in text


def test_the_document_has_its_form(refusing):
    client, photo, _ = refusing
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/marks"]["post"]
    (example,) = operation["requestBody"]["content"]["application/json"]["examples"].values()
    answer = client.post("/v1/marks", json={**example["value"], "id": photo}).json()
    schema = document["components"]["schemas"]["MarkedPixels"]
    jsonschema = pytest.importorskip("jsonschema", reason='needs the extra "dev"')
    for content in (answer, operation["responses"]["200"]["content"]["application/json"]["examples"]["click"]["value"]):
        jsonschema.validate(content, {**schema, "components": document["components"]})
    assert "7 marked regions" in json.dumps(openapi.describe(Limits(examples=7), needs_token=False))

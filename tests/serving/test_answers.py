"""Answers equal those of the model in Python, in every form of request and answer."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from deop.serving.answers import choose_type
from deop.serving.problems import Problem
from tests.serving.conftest import png, problem

NAMES = ["cat", "wall|curtain"]


@pytest.fixture(scope="module")
def local(model, cat):
    return model.segment(cat, NAMES)


def same(answer, result):
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content.pop("warnings") == []
    assert content == json.loads(json.dumps(result.summary(rle=True)))


def test_three_forms_of_a_request_have_the_same_answer(serve, cat, local):
    with serve() as client:
        query = {"names": "cat, wall|curtain"}
        same(client.post("/v1/segment", params=query, content=cat), local)
        same(client.post("/v1/segment", params=query, content=cat, headers={"Content-Type": "image/png"}), local)
        same(client.post("/v1/segment", data=query, files={"photo": ("my cat.png", cat, "image/png")}), local)
        text = base64.b64encode(cat).decode()
        same(client.post("/v1/segment", json={"photo": text, "names": NAMES}), local)
        same(client.post("/v1/segment", json={"photo": f"data:image/png;base64,{text}", "names": NAMES}), local)


def test_options_arrive(serve, model, cat):
    options = {"mode": "panoptic", "threshold": {"*": 0.1, "cat": 0.6}, "background": ["sky"], "things": ["cat"]}
    expected = model.segment(cat, NAMES, **options)
    with serve() as client:
        same(
            client.post("/v1/segment", json={"photo": base64.b64encode(cat).decode(), "names": NAMES, **options}),
            expected,
        )
        form = {
            "names": "cat,wall|curtain",
            "mode": "panoptic",
            "threshold": "0.1, cat=0.6",
            "background": "sky",
            "things": "cat",
        }
        same(client.post("/v1/segment", data=form, files={"photo": cat}), expected)
        same(client.post("/v1/segment", params=form, content=cat), expected)


def test_blank_fields_of_a_form_are_not_given(serve, cat, local):
    blank = dict.fromkeys(("background", "things", "threshold", "templates", "severance", "anchors"), " ")
    with serve() as client:
        same(client.post("/v1/segment", data={"names": "cat,wall|curtain", **blank}, files={"photo": cat}), local)


def test_encode_once_label_often(serve, model, cat, local):
    with serve() as client:
        kept = client.post("/v1/encode", content=cat)
        assert kept.status_code == 201
        assert kept.json()["size"] == [160, 106]
        key = kept.json()["id"]
        assert kept.headers["location"] == f"/v1/encode/{key}"
        same(client.post("/v1/label", json={"id": key, "names": NAMES}), local)
        same(client.post("/v1/label", json={"id": key, "names": ["dog"]}), model.segment(cat, ["dog"]))
        assert client.delete(f"/v1/encode/{key}").status_code == 204
        problem(client.delete(f"/v1/encode/{key}"), 404)
        problem(client.post("/v1/label", json={"id": key, "names": NAMES}), 404)
        problem(client.post("/v1/label", json={"id": "nonsense", "names": NAMES}), 404)


def test_the_pages_question(serve, model, cat):
    """All fields that web/src/engine/http.ts sends, those that are null too."""
    with serve() as client:
        key = client.post("/v1/encode", content=cat, params={"severance": "self"}).json()["id"]
        question = {
            "id": key,
            "mode": "semantic",
            "background": [],
            "things": None,
            "vocabulary": None,
            "threshold": None,
        }
        same(client.post("/v1/label", json={**question, "names": NAMES}), model.segment(cat, NAMES))
        from deop.text.builtin import builtin_vocabulary

        coco = builtin_vocabulary("coco")
        listed = {**question, "names": ["|".join(texts) for texts in coco.synonyms], "vocabulary": "coco"}
        same(client.post("/v1/label", json=listed), model.segment(cat, coco))


def test_pictures(serve, model, cat, local):
    def get(client, accept="image/png", **fields):
        answer = client.post(
            "/v1/segment", params={"names": "cat,wall|curtain", **fields}, content=cat, headers={"Accept": accept}
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == accept
        return Image.open(io.BytesIO(answer.content))

    with serve() as client:
        assert np.array_equal(get(client), local.overlay())
        assert np.array_equal(get(client, picture="outline"), local.overlay(style="outline"))
        assert np.array_equal(get(client, picture="cutout"), local.cutout())
        labels = get(client, picture="label-map")
        assert np.array_equal(np.array(labels, np.int32) - 1, local.label_map)
        assert json.loads(labels.text["names"]) == ["cat", "wall"]
        assert get(client, "image/jpeg").format == "JPEG"
        assert get(client, "image/webp").format == "WEBP"
        expected = model.segment(cat, NAMES, heatmaps=["wall"]).heatmaps["wall"]
        heat = get(client, heatmap=1)
        assert heat.mode == "L"
        assert np.abs(np.asarray(heat) / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_warnings_are_part_of_the_answer(serve, cat):
    with serve() as client:
        answer = client.post("/v1/segment", params={"names": "cat, wall", "mode": "instance"}, content=cat)
        assert any("wall" in warning for warning in answer.json()["warnings"])


def test_the_type_of_the_answer():
    for accept in (None, "", "*/*", "application/*", "application/json, image/png", "image/png;q=0.5, */*"):
        assert choose_type(accept) == "application/json"
    assert choose_type("image/*") == "image/png"
    assert choose_type("image/webp,*/*;q=0.1") == "image/webp"
    for accept in ("text/html", "application/json;q=0", "image/png;q=x"):
        with pytest.raises(Problem) as error:
            choose_type(accept)
        assert error.value.status == 406


def test_the_rest_of_a_batch_survives_a_damaged_photo(model, cat):
    """The worker encodes photos together: one that fails does not affect the others."""
    from deop.serving.limits import Limits
    from deop.serving.work import Work, Worker

    noise = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    query = {"names": ",".join(NAMES)}
    photos = [cat, noise[: len(noise) // 2], noise]
    done = Worker(model, Limits()).run(
        [Work("segment", photo, "image/png", query, "application/json") for photo in photos]
    )
    assert (
        json.loads(done.outcomes[0].content)["segments"]
        == json.loads(json.dumps(model.segment(cat, NAMES).summary(rle=True)))["segments"]
    )
    assert done.outcomes[1].status == 422
    assert json.loads(done.outcomes[2].content)["size"] == [64, 64]

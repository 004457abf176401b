"""What only torch computes, through the server: severances, anchors and two streams."""

import pytest

pytest.importorskip("torch", reason='needs the extra "torch"')

import deop
from deop.serving.limits import Limits
from deop.serving.work import Worker
from tests.serving.conftest import ThreadLane, problem
from tests.serving.test_answers import NAMES, same


@pytest.fixture(scope="module")
def torch_model():
    loaded = deop.load("nano", engine="torch", device="cpu")
    loaded.cache = None
    return loaded


@pytest.mark.slow
def test_severances_and_other_settings(serve, torch_model, cat):
    worker = Worker(torch_model, Limits(), "0-")
    with serve(lane=ThreadLane(worker), description=worker.describe()) as client:
        (model,) = client.get("/v1/models").json()["models"]
        assert model["severances"][0] == torch_model.settings.severance.name
        assert {"none", "self", "gate", "region"} <= set(model["severances"])
        query = {"names": "cat,wall|curtain"}
        for options in (
            {"severance": "none"},
            {"severance": "region:similarity=k"},
            {"anchors": "pool"},
            {"classifier": "two-stream"},
        ):
            expected = torch_model.segment(cat, NAMES, **options)
            same(client.post("/v1/segment", params=query | options, content=cat), expected)
            key = client.post("/v1/encode", params=options, content=cat).json()["id"]
            same(client.post("/v1/label", json={"id": key, "names": NAMES}), expected)
        expected = torch_model.segment(cat, NAMES, threshold={"*": 0.2, "cat": 0.5}, smallest_region=0.05)
        fields = {"threshold": {"*": 0.2, "cat": 0.5}, "smallest_region": 0.05}
        key = client.post("/v1/encode", content=cat).json()["id"]
        same(client.post("/v1/label", json={"id": key, "names": NAMES, **fields}), expected)
        for options in (
            {"severance": "nonsense"},
            {"severance": "region:colour=red"},
            {"severance": "proxyclip"},
            {"classifier": "two-stream", "anchors": "pool"},
        ):
            problem(client.post("/v1/segment", params=query | options, content=cat), 422)


@pytest.mark.slow
def test_every_severance_that_is_listed_is_computed(serve, torch_model, cat):
    worker = Worker(torch_model, Limits(), "0-")
    with serve(lane=ThreadLane(worker), description=worker.describe()) as client:
        (model,) = client.get("/v1/models").json()["models"]
        for severance in model["severances"]:
            answer = client.post("/v1/encode", params={"severance": severance}, content=cat)
            assert answer.status_code == 201, (severance, answer.text)

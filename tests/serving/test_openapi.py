"""The OpenAPI document describes what the server does."""

import json
import re
import subprocess
import sys

import pytest

from deop.serving import openapi
from deop.serving.limits import Limits
from deop.serving.questions import QUERY_FIELDS


def test_every_route_is_described_and_nothing_else(serve):
    with serve() as client:
        document = client.get("/openapi.json").json()
        described = {(method.upper(), path) for path, entry in document["paths"].items() for method in entry}
        routes = client.application._app.routes
        present = {
            (method, route.path)
            for route in routes
            for method in route.methods
            if route.path.startswith("/v1") or route.path in ("/healthz", "/readyz", "/metrics")
        }
        assert described == present


def test_the_examples_are_answered(serve, cat):
    with serve() as client:
        paths = client.get("/openapi.json").json()["paths"]
        (example,) = paths["/v1/segment"]["post"]["requestBody"]["content"]["application/json"]["examples"].values()
        answer = client.post("/v1/segment", json=example["value"])
        assert answer.status_code == 200
        documented = paths["/v1/segment"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
        assert set(answer.json()) == set(documented["names"]["value"])
        (example,) = paths["/v1/label"]["post"]["requestBody"]["content"]["application/json"]["examples"].values()
        key = client.post("/v1/encode", content=cat).json()["id"]
        assert client.post("/v1/label", json={**example["value"], "id": key}).status_code == 200


def test_every_answer_has_an_example_of_its_form(serve):
    with serve() as client:
        document = client.get("/openapi.json").json()
        models = client.get("/v1/models").json()
    for path, entry in document["paths"].items():
        for operation in entry.values():
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    if kind.startswith("image/") or kind == "application/octet-stream":
                        continue
                    (example,) = content["examples"].values()
                    if "$ref" in content["schema"]:
                        schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
                        assert set(schema["required"]) <= set(example["value"]) <= set(schema["properties"])
                    if kind == "application/problem+json":
                        assert example["value"]["status"] == int(status)
                    elif path == "/v1/models":
                        assert set(example["value"]["models"][0]) == set(models["models"][0])


def test_links_lead_from_a_photo_to_its_questions(serve, cat):
    with serve() as client:
        document = client.get("/openapi.json").json()
        links = document["paths"]["/v1/encode"]["post"]["responses"]["201"]["links"]
        operations = {
            operation["operationId"]: operation for entry in document["paths"].values() for operation in entry.values()
        }
        assert {link["operationId"] for link in links.values()} <= set(operations)
        key = client.post("/v1/encode", content=cat).json()["id"]
        body = {name: value.replace("$response.body#/id", key) for name, value in links["label"]["requestBody"].items()}
        assert client.post("/v1/label", json=body).status_code == 200


def test_fields_and_limits_are_described():
    document = openapi.describe(Limits(pixels=1234), needs_token=True)
    assert "1,234 pixels" in json.dumps(document)
    parameters = document["paths"]["/v1/segment"]["post"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == set(QUERY_FIELDS)
    assert "401" in document["paths"]["/v1/models"]["get"]["responses"]
    assert document["security"] == [{"bearer": []}, {"basic": []}]


@pytest.mark.slow
def test_schemathesis_finds_only_documented_answers(process):
    """Random requests that fit the document, and requests that do not."""
    pytest.importorskip("schemathesis", reason='needs the extra "dev"')
    server = process()
    # Not every rule of names and photos can be written as a schema: such requests are answered with 415 or 422.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--no-color"]
    command += ["--max-examples=10", "--seed=1", "--exclude-checks=positive_data_acceptance"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=server.folder, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counts, done.stdout[-2000:]
    assert counts[1] == counts[2]

"""The configuration files in docs/deployment.md fit the server."""

import re
import shlex
from pathlib import Path

import httpx
import pytest

from deop.serving.limits import Limits

yaml = pytest.importorskip("yaml", reason='needs the extra "train"')
PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")


def block(language):
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return text


def test_the_manifest_fits_the_server(process):
    """Its arguments start a server, whose probes answer without the token that it takes from the environment."""
    manifest = yaml.safe_load(block("yaml"))
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *arguments = container["args"]
    assert command == "serve"
    assert container["env"][0]["name"] == "DEOP_TOKEN"
    assert container["ports"] == [{"containerPort": 8000}]
    server = process(*arguments, environment={"DEOP_TOKEN": "0123456789abcdefghij"})
    for name in ("readinessProbe", "livenessProbe"):
        assert server.client.get(container[name]["httpGet"]["path"]).status_code == 200
    assert server.client.get("/metrics").status_code == 401
    limits = Limits()
    assert pod["terminationGracePeriodSeconds"] > limits.seconds + limits.upload_seconds


def test_the_unit_leaves_time_to_answer():
    unit = dict(line.split("=", 1) for line in block("ini").splitlines() if re.match(r"[A-Z]\w+=", line))
    limits = Limits()
    assert int(unit["TimeoutStopSec"]) > limits.seconds + limits.upload_seconds
    assert int(unit["LimitNOFILE"]) > limits.connections
    assert shlex.split(unit["ExecStart"])[1] == "serve"


def test_the_proxy_accepts_what_the_server_does():
    limits = Limits()
    assert re.search(r"client_max_body_size (\d+)m;", block("nginx"))[1] == str(limits.bytes // 1_000_000)
    assert int(re.search(r"proxy_read_timeout (\d+)s;", block("nginx"))[1]) > limits.seconds


def test_a_request_by_a_proxy(process, cat):
    """With a token, the server answers under the name of the proxy, also to the page that it serves there."""
    token = "0123456789abcdefghij"
    server = process(environment={"DEOP_TOKEN": token})
    headers = {
        "Host": "deop.example.com",
        "Origin": "https://deop.example.com",
        "Sec-Fetch-Site": "same-origin",
        "Authorization": f"Bearer {token}",
        "X-Request-ID": "4bf92f3577b34da6",
    }
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        answer = client.post("/v1/segment", params={"names": "cat"}, content=cat)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == "4bf92f3577b34da6"
        assert client.get("/v1/models", headers={"Origin": "https://example.com"}).status_code == 403

"""The clients in examples/clients, against the server."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.serving.conftest import EXAMPLES

CLIENTS = EXAMPLES / "clients"
TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture
def run(process, cat, tmp_path):
    """``run(command, argument, ...)`` with a server that asks for a token."""
    server = process(environment={"DEOP_TOKEN": TOKEN})
    photo = tmp_path / "photo.png"
    photo.write_bytes(cat)

    def start(*command, token=TOKEN):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        words = [str(word).format(photo=photo, address=server.url) for word in command]
        environment = {**os.environ, "DEOP_TOKEN": token, "DEOP_ADDRESS": server.url}
        return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    return start


def test_curl(run, model, cat, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = run("sh", CLIENTS / "segment.sh", "{photo}", "cat, wall", "{address}")
    assert done.returncode == 0, done.stderr
    expected = model.segment(cat, "cat, wall")
    assert json.loads(done.stdout)["segments"] == json.loads(json.dumps(expected.summary(rle=True)))["segments"]
    with Image.open(tmp_path / "segmented.png") as picture:
        assert picture.size == expected.overlay().size
    done = run("sh", CLIENTS / "segment.sh", "{photo}", "cat, wall", "{address}", token="wrong")
    assert done.returncode != 0
    assert json.loads(done.stdout)["status"] == 401


def shares(result, form):
    return [form.format(100 * entry["share"]) + f"%  {entry['name']}" for entry in result.summary()["classes"]]


def test_python(run, model, cat):
    done = run(sys.executable, CLIENTS / "segment.py", "{photo}", "cat, wall", "dog, floor")
    assert done.returncode == 0, done.stderr
    expected = [line for names in ("cat, wall", "dog, floor") for line in shares(model.segment(cat, names), "{:5.1f}")]
    assert done.stdout.splitlines() == expected
    done = run(sys.executable, CLIENTS / "segment.py", "{photo}", "cat, cat")
    assert done.returncode == 1
    assert done.stderr.startswith("422: 'cat' is both")


def test_javascript(run, model, cat):
    done = run("node", CLIENTS / "segment.mjs", "{photo}", "cat, wall")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == shares(model.segment(cat, "cat, wall"), "{:5.1f}")
    done = run("node", CLIENTS / "segment.mjs", "{photo}", "cat, cat")
    assert done.returncode == 1
    assert "422: 'cat' is both" in done.stderr

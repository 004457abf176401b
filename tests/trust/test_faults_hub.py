"""Downloads under faults: a hub that drops the connection, kill -9, a full disk, two processes at once."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.trust.forked import ROOT
from tests.trust.small_hub import small_hub

pytest.importorskip("huggingface_hub")

FETCH = """
import sys
from deop.errors import DeopError
from deop.weights.hub import fetch
try:
    print(fetch("org/model"))
except DeopError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def hub():
    weights = np.random.default_rng(0).bytes(25_000_000)
    files = {"config.json": json.dumps({"model_type": "clip"}).encode(), "model.safetensors": weights}
    files |= {"tokenizer.json": b"{}", "preprocessor_config.json": b"{}"}
    with small_hub(files) as started:
        yield started


def start(hub, cache):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "HF_ENDPOINT": hub.address}
    environment |= {"HF_HUB_CACHE": str(cache), "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", FETCH]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def fetched(hub, cache):
    """The folder that a download returns, after a comparison of all its files; None and the message if it fails."""
    process = start(hub, cache)
    out, err = process.communicate(timeout=300)
    if process.returncode:
        assert "Traceback" not in err, err
        return err
    folder = out.strip().splitlines()[-1]
    for name, content in hub.files.items():
        with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123
            assert file.read() == content, name
    return None


def test_a_hub_that_drops_the_connection_in_the_middle(hub, tmp_path):
    """The client asks for the rest."""
    hub.dropped_after = 12_000_000
    assert fetched(hub, tmp_path) is None, "the third part is the last one"
    assert len(hub.ranges) == 3
    assert 0 == hub.ranges[0] < hub.ranges[1] < hub.ranges[2]


@pytest.mark.slow
def test_a_hub_that_stays_away(hub, tmp_path):
    hub.ends_at = 11_000_000
    message = fetched(hub, tmp_path)
    assert message
    assert "org/model" in message
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors")), "an incomplete file is not in the cache"
    assert max(hub.ranges) > 10_000_000, "it went on where it stopped"
    hub.ends_at = None
    assert fetched(hub, tmp_path) is None


@pytest.mark.slow
def test_killed_in_the_middle(hub, tmp_path):
    hub.pause = 0.02
    process = start(hub, tmp_path)
    deadline = time.monotonic() + 120
    while not any(file.stat().st_size > 9_000_000 for file in tmp_path.rglob("*.incomplete")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors"))
    hub.pause = 0
    assert fetched(hub, tmp_path) is None


@pytest.mark.slow
def test_two_processes_at_once(hub, tmp_path):
    hub.pause = 0.005
    processes = [start(hub, tmp_path) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert fetched(hub, tmp_path) is None


@pytest.mark.slow
def test_a_full_disk(hub, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        message = fetched(hub, disk)
        assert message
        assert "No space left on device" in message
        assert "hub cannot be reached" not in message
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        assert fetched(hub, disk) is None
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert fetched(hub, disk) is None, "a model that is there needs no writing"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.slow
def test_a_cache_that_may_not_be_written(hub, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        message = fetched(hub, disk)
        assert message
        assert "Read-only file system" in message
        assert "hub cannot be reached" not in message
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(disk, ignore_errors=True)

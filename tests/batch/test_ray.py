"""Batches on Ray: the rows of the local engine, whatever is killed. Ray takes seconds to start, so these are slow."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from deop.batch import BatchOptions, run_batch
from deop.errors import SettingError
from tests.batch.test_batch import FAKE, WORKER, descendants_of, kill_often, png, rows_of, without_times, write_photos

pytestmark = pytest.mark.slow
pytest.importorskip("pyarrow")
pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def quiet_ray(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture
def batch(tmp_path):
    def run(source, name, engine="ray", **options):
        options = {"worker": WORKER, "command": FAKE, "workers": 2, "memory": 100 << 20, **options}
        result = run_batch(BatchOptions(str(source), str(tmp_path / name), engine=engine, **options))
        return result, rows_of(tmp_path / name)

    return run


def test_the_rows_are_those_of_the_local_engine_and_either_resumes_the_other(batch, tmp_path):
    folder = write_photos(tmp_path / "some", 70)
    (folder / "empty.jpg").touch()
    (folder / "05-crash.png").write_bytes(png(1))
    _, expected = batch(folder, "local", engine="local")
    result, rows = batch(folder, "ray", workers=4)
    assert without_times(rows) == without_times(expected)
    assert result.statistics.failures == {"ImageError": 1, "Crash": 1}
    assert (result.photos, result.restarts) == (72, 2)
    (tmp_path / "ray" / "part-000001.parquet").unlink()
    assert batch(folder, "ray", engine="local")[0].photos == 16
    for number in (1, 2):
        (tmp_path / "local" / f"part-{number:06d}.parquet").unlink()
    with Image.open(BytesIO(png(1))) as image:
        image.save(folder / "empty.jpg", "PNG")
    again, rows = batch(folder, "local", workers=2, retry_failed=True)
    assert (again.photos, again.statistics.failures) == (34, {"Crash": 1})  # two files, and two photos with errors
    changed = [row["id"] for row, before in zip(rows, expected, strict=True)
               if without_times([row]) != without_times([before])]  # fmt: skip
    assert changed == ["empty.jpg"]


def test_an_error_of_a_worker_arrives_as_it_is(batch, tmp_path):
    folder = write_photos(tmp_path / "some", 3)
    with pytest.raises(SettingError, match="mode"):
        batch(folder, "out", worker=replace(WORKER, mode="other"))


def test_a_stall_is_noticed_and_ray_is_started_again(batch, tmp_path, monkeypatch):
    """A worker may take longer for a photo here than Ray may for a shard."""
    folder = write_photos(tmp_path / "some", 20)
    (folder / "05-hang.png").write_bytes(png(1))
    from deop.batch import ray_engine

    starts = []
    watch = ray_engine._Driver.watch

    def count_then_watch(*arguments):
        starts.append(1)
        return watch(*arguments)

    monkeypatch.setattr(ray_engine._Driver, "watch", count_then_watch)
    monkeypatch.setattr(ray_engine, "ATTEMPTS", 2)
    with pytest.raises(ray_engine.RayError, match="finished no shard for 10 s"):
        batch(folder, "out", timeout=600.0, stall=10.0)
    assert len(starts) >= 2  # more if another shard was finished first
    result, rows = batch(folder, "out", engine="local", timeout=3.0)
    assert len(rows) == 21
    assert result.statistics.failures == {"Timeout": 1}


def test_killed_at_random_moments_each_input_is_there_once(batch, tmp_path):
    """DEOP_KILLS is the number of kills: ``DEOP_KILLS=25`` takes minutes."""
    kills = int(os.environ.get("DEOP_KILLS", "2"))
    folder = write_photos(tmp_path / "some", 200 if kills > 3 else 60)
    _, expected = batch(folder, "whole", engine="local")
    kill_often(folder, tmp_path / "killed", "ray", kills, longest=15.0, seconds=0.1)
    assert without_times(rows_of(tmp_path / "killed")) == without_times(expected)


def wait_for_start(node):
    """Wait until ``ray start --block`` says that it has started."""
    lines = []
    for line in node.stdout:
        lines.append(line)
        if "Ray runtime started" in line:
            return
    raise AssertionError("".join(lines))


def test_two_nodes_of_which_one_is_killed(batch, tmp_path, monkeypatch):
    """Two ``ray start`` processes with ports of their own; the second one is killed when the first file is written."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # a cluster of several nodes needs one token for all
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = write_photos(tmp_path / "some", 120)
    _, expected = batch(folder, "whole", engine="local")
    port = 20000 + os.getpid() % 10000
    ray = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--num-cpus=2",
        "--object-store-memory=100000000",
    ]
    head = subprocess.Popen(
        [*ray, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir=/tmp/ray-{os.getpid()}"],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    nodes = [head]
    killed = []

    def kill_second():
        while not list((tmp_path / "killed").glob("part-*")):
            time.sleep(0.1)
        killed.extend(descendants_of(nodes[1].pid))
        os.killpg(nodes[1].pid, signal.SIGKILL)

    try:
        wait_for_start(head)
        nodes.append(
            subprocess.Popen(
                [*ray, f"--address=127.0.0.1:{port}"],
                start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
        wait_for_start(nodes[1])
        threading.Thread(target=kill_second, daemon=True).start()
        _, rows = batch(
            folder, "killed", workers=3, ray_address=f"127.0.0.1:{port}", worker=replace(WORKER, load={"seconds": 0.3})
        )
        assert killed
        assert without_times(rows) == without_times(expected)
    finally:
        for node in nodes:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)

"""One batch at a time in an object store: a lease that its owner renews, and that others take over when it is dead."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from io import BytesIO

import pytest

pytest.importorskip("pyarrow")
import fsspec
import pyarrow.parquet as pq

from deop.batch import BatchOptions, lease, run_batch
from deop.batch.storage import OWNER, Storage
from deop.errors import OutputError, SettingError
from tests.batch.test_batch import FAKE, WORKER, write_photos

GUARD = 30  # seconds after which a test that hangs fails


@pytest.fixture
def place(monkeypatch):
    """An empty directory of fsspec's store in memory; leases are renewed often."""
    monkeypatch.setattr(lease, "RENEWAL", 0.1)
    monkeypatch.setattr(lease, "PATIENCE", 2.0)
    monkeypatch.setattr(lease, "SETTLING", 0.05)
    monkeypatch.setattr(lease, "_WATCH", 0.05)
    name = f"memory://{uuid.uuid4().hex}"
    yield name
    system, path = fsspec.core.url_to_fs(name)
    if system.exists(path):
        system.rm(path, recursive=True)


def file_of(place):
    return Storage(place).read(OWNER)


def test_the_second_batch_is_refused_and_names_the_first(place):
    first, second = Storage(place), Storage(place)
    first.lock()
    with (
        pytest.raises(SettingError, match=f"another batch is writing {place}: process {os.getpid()} on ") as caught,
        pytest.warns(UserWarning, match="waiting up to 2 s to see whether it still runs"),
    ):
        second.lock()
    assert "last renewed 20" in str(caught.value)
    first.write("part-000000.parquet", b"")  # undisturbed
    first.unlock()
    assert file_of(place) is None
    second.lock()
    second.unlock()


def test_the_lease_of_a_killed_process_of_another_machine_is_taken_over_when_it_is_not_renewed(place, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    dead = {"key": "a", "host": "elsewhere", "process": 1, "machine": "another", "renewed": "yesterday"}
    Storage(place).write(OWNER, json.dumps(dead).encode())
    storage = Storage(place)
    started = time.monotonic()
    with pytest.warns(UserWarning, match="process 1 on elsewhere"):
        storage.lock()
    assert time.monotonic() - started >= 0.5
    assert json.loads(file_of(place))["process"] == os.getpid()
    storage.unlock()


@pytest.mark.skipif(lease._machine() is None, reason="needs Linux's /proc")
@pytest.mark.filterwarnings("error")
def test_the_lease_of_a_killed_process_of_this_machine_is_not_waited_for(place):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for number in (process.pid, os.getpid()):  # this one: an earlier process of a container had the same number
        dead = {"key": "a", "host": "here", "process": number, "machine": lease._machine()}
        Storage(place).write(OWNER, json.dumps(dead).encode())
        storage = Storage(place)
        storage.lock()
        storage.unlock()


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]"])
def test_a_damaged_lease_is_waited_for(place, monkeypatch, content):
    monkeypatch.setattr(lease, "PATIENCE", 0.2)
    Storage(place).write(OWNER, content)
    storage = Storage(place)
    with pytest.warns(UserWarning, match="an unknown process"):
        storage.lock()
    storage.unlock()


def test_a_batch_that_was_taken_over_writes_nothing_more(place):
    storage = Storage(place)
    storage.lock()
    other = {"key": "b", "host": "elsewhere", "process": 7, "machine": "another", "renewed": "now"}
    Storage(place).write(OWNER, json.dumps(other).encode())
    end = time.monotonic() + GUARD
    while storage._lease._other is None and time.monotonic() < end:
        time.sleep(0.02)
    with pytest.raises(OutputError, match=r"another batch has taken over .* process 7 on elsewhere"):
        storage.write("part-000000.parquet", b"")
    storage.unlock()
    assert json.loads(file_of(place)) == other  # theirs is left as it is


def test_of_two_that_start_at_the_same_time_one_writes(place, monkeypatch):
    monkeypatch.setattr(lease, "SETTLING", 0.3)
    barrier = threading.Barrier(2)
    outcomes = []

    def start():
        storage = Storage(place)
        reads = []

        def both_see_nothing():
            content = storage.read(OWNER)
            if not reads:
                barrier.wait(GUARD)
            reads.append(content)
            return content

        one = lease.Lease(
            place,
            read=both_see_nothing,
            write=lambda content: storage.write(OWNER, content),
            remove=lambda: storage.remove(OWNER),
        )
        try:
            one.take()
            outcomes.append("owner")
            time.sleep(1)
            one.give_back()
        except SettingError:
            outcomes.append("refused")

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert sorted(outcomes) == ["owner", "refused"]


def test_a_batch_gives_its_lease_back_and_resumes(place, tmp_path):
    folder = write_photos(tmp_path / "some", 20)

    def run():
        return run_batch(BatchOptions(str(folder), place, worker=WORKER, command=FAKE, workers=1))

    assert run().photos == 20
    assert file_of(place) is None
    system, path = fsspec.core.url_to_fs(place)
    system.rm_file(f"{path}/part-000001.parquet")
    assert run().photos == 4
    rows = [pq.read_table(BytesIO(system.cat_file(file))).num_rows for file in sorted(system.glob(f"{path}/part-*"))]
    assert rows == [16, 4]

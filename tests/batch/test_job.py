"""The plan, the record and the manifest of a batch, without workers: the tests of tests/mutation."""

import hashlib
import json
import os
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deop.batch import job, table
from deop.batch.job import (
    BatchOptions,
    BatchResult,
    Progress,
    Tracker,
    begin,
    finish,
    to_run,
    visible_gpus,
    with_threads,
    worker_count,
    worker_environment,
)
from deop.batch.plan import INDEX, PLAN, number_of, part_name, read_plan, write_plan
from deop.batch.settings import NAME
from deop.batch.storage import Storage
from deop.batch.table import Statistics
from deop.batch.worker import WorkerOptions
from deop.errors import DataError, ImageError, SettingError

pytest.importorskip("pyarrow")

WORKER = WorkerOptions(names="cat, wall")
UNITS = [{"count": 3, "ids": ["ä", "b", "c"]}, {"count": None, "tar": "x.tar"}, {"count": 2, "ids": ["d", "e"]}]
KNOWN = [UNITS[0], UNITS[2]]


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "out" / "_deop").mkdir(parents=True)
    return Storage(str(tmp_path / "out"))


def rows(count, failed=0):
    names = [f"{number}.png" for number in range(count)]
    rest = {"path": "p", "model": "m", "settings": "s", "seconds": 0.5}
    return [
        {"id": name, **rest, **(table.error_row(f"bad {name}", "ImageError") if number < failed else {})}
        for number, name in enumerate(names)
    ]


def write_shard(storage, number, count, failed=0):
    content, statistics = table.encode(rows(count, failed))
    storage.write(part_name(number), content)
    return statistics


# ---- the plan


@pytest.mark.parametrize("units", [UNITS, KNOWN, []], ids=["a tar file", "known", "none"])
def test_a_plan_is_read_as_it_was_written(storage, units):
    written = write_plan(storage, iter(units))
    plans = [written, read_plan(storage)] if units else [written]
    for plan in plans:
        assert len(plan) == len(units)
        assert [plan.unit(number) for number in range(len(units))] == units
        assert [plan.count(number) for number in range(len(units))] == [unit["count"] for unit in units]
        assert plan.inputs == (None if units is UNITS else sum(unit["count"] for unit in units))
    lines = (storage.read(PLAN) or b"").splitlines()
    assert [json.loads(line) for line in lines] == units
    index = np.frombuffer(storage.read(INDEX) or b"", "<i8").reshape(-1, 2)
    assert index[:, 1].tolist() == [-1 if unit["count"] is None else unit["count"] for unit in units]
    assert index[:, 0].tolist() == np.cumsum([len(line) + 1 for line in lines]).tolist()


@pytest.mark.parametrize("content", [None, b"", b"x" * 15, b"x" * 17])
def test_a_damaged_index_is_named(storage, content):
    if content is not None:
        storage.write(INDEX, content)
    with pytest.raises(DataError, match=f"out/{INDEX} is missing or damaged: add --overwrite to start again"):
        read_plan(storage)


def test_units_without_inputs_count_as_none(storage):
    plan = write_plan(storage, [{"count": 0, "ids": []}, {"count": 1, "ids": ["a"]}, {"count": 0, "ids": []}])
    assert [plan.count(number) for number in range(3)] == [0, 1, 0]
    assert plan.inputs == 1
    assert write_plan(storage, [{"count": 0, "ids": []}]).inputs == 0
    seen = []
    Tracker(plan, np.array([0, 2]), BatchResult("out"), seen.append)
    assert seen == [Progress(1, 1, 1, 3)]  # the unit with an input is finished


def test_units_with_a_file_are_finished(storage):
    plan = write_plan(storage, KNOWN)
    assert plan.unfinished().tolist() == [0, 1]
    assert plan.unfinished().dtype == np.int64
    for name in (part_name(1), part_name(2), "part-x.parquet", "other.txt"):  # no unit has the second of these
        storage.write(name, b"x")
    assert plan.unfinished().tolist() == [0]


@pytest.mark.parametrize("number", [0, 7, 123_456, 1_234_567])
def test_names_of_files_and_their_numbers(number):
    assert number_of(part_name(number)) == number
    assert part_name(number) == f"part-{number:06d}.parquet"


@pytest.mark.parametrize("name", ["part-1", "000001.parquet", "part-.parquet", "part-1x.parquet", "part--1.parquet",
                                  "x-part-000001.parquet", "part-000001.parquet.part", ""])  # fmt: skip
def test_other_files_have_no_number(name):
    assert number_of(name) is None


# ---- options and their record


def test_defaults():
    options = BatchOptions("in", "out", WORKER)
    assert (options.engine, options.overwrite, options.retry_failed) == ("local", False, False)
    assert (options.column, options.limit, options.shards, options.workers) == (None, None, None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "spark"}, "unknown engine 'spark': choose local or ray"),
        ({"worker": replace(WORKER, masks="x")}, "unknown form of masks 'x': choose one of rle, png, both"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"shards": -2}, "shards must be at least 1, not -2"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"limit": "3"}, "limit must be .*, not '3'"),
    ],
)
def test_options_that_cannot_be_used_are_named(change, message):
    with pytest.raises(SettingError, match=f"^{message}$"):
        BatchOptions(**{"input": "in", "output": "out", "worker": WORKER, **change})
    BatchOptions("in", "out", WORKER, limit=1, shards=1, workers=1, engine="ray")


def test_the_record_has_everything_that_results_depend_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    worker = WorkerOptions(
        names="cat", mode="panoptic", vocabulary={"things": "cat"}, encoding={"severance": "self"}, masks="both",
        load={"proposer": "sam", "proxy": None, "device": "cpu"},
    )  # fmt: skip
    options = BatchOptions("in", "out", worker, column="image", limit=5, shards=2, workers=3, overwrite=True)
    assert options.record({"names": [("cat",)], "weights": tmp_path}) == {
        "version": 1, "input": str(tmp_path / "in"), "column": "image", "limit": 5, "shards": 2, "names": [["cat"]],
        "weights": str(tmp_path), "mode": "panoptic", "things": "cat", "encoding": {"severance": "self"},
        "proposer": "sam", "masks": "both",
    }  # fmt: skip
    assert BatchOptions("s3://bucket/in", "out", WORKER).record({})["input"] == "s3://bucket/in"
    with_proxy = BatchOptions("in", "out", WorkerOptions(load={"proposer": None, "proxy": "dino"})).record({})
    assert with_proxy["proxy"] == "dino"
    assert "proposer" not in with_proxy
    monkeypatch.setenv("HOME", str(tmp_path))
    assert BatchOptions("~/in", "out", WORKER).record({})["input"] == str(tmp_path / "in")


def test_units_follow_the_options(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    units = list(BatchOptions(str(tmp_path), "out", WORKER, limit=4, shards=2).units())
    assert [unit["count"] for unit in units] == [2, 2]
    listed = tmp_path / "t.parquet"
    table.arrow().parquet.write_table(table.arrow().table({"a": ["1.png"], "b": ["2.png"]}), listed)
    chosen = list(BatchOptions(str(listed), "out", WORKER, column="b").units())
    assert [unit["count"] for unit in chosen] == [1]
    with pytest.raises((SettingError, DataError)):
        list(BatchOptions(str(listed), "out", WORKER, column="c").units())


# ---- begin and resume


@pytest.fixture
def options(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"x")
    return BatchOptions(str(tmp_path / "in"), str(tmp_path / "out"), WORKER, shards=3)


SETTINGS = {"mode": "semantic", "limit": None}


def test_a_batch_begins_and_is_resumed(storage, options):
    assert len(begin(storage, options, SETTINGS)) == 3
    assert json.loads(storage.read(NAME)) == SETTINGS
    assert b'\n "mode": "semantic"' in storage.read(NAME)
    write_shard(storage, 1, 1)
    plan = begin(storage, options, SETTINGS)
    assert plan.unfinished().tolist() == [0, 2]
    with pytest.raises(SettingError, match=f"{options.output}.* other settings"):
        begin(storage, options, {**SETTINGS, "mode": "instance"})
    assert storage.read(part_name(1)) is not None
    plan = begin(storage, replace(options, overwrite=True), {**SETTINGS, "mode": "instance"})
    assert plan.unfinished().tolist() == [0, 1, 2]
    assert json.loads(storage.read(NAME))["mode"] == "instance"


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"7"])
def test_damaged_settings_are_named(storage, options, content):
    storage.write(NAME, content)
    with pytest.raises(DataError, match=f"out/{NAME} is damaged: add --overwrite to start again"):
        begin(storage, options, SETTINGS)
    assert len(begin(storage, replace(options, overwrite=True), SETTINGS)) == 3


def test_a_damaged_plan_is_named(storage, options):
    begin(storage, options, SETTINGS)
    storage.write(INDEX, b"x")
    with pytest.raises(DataError, match=INDEX):
        begin(storage, options, SETTINGS)


def test_files_without_settings_are_not_deleted_unless_asked(storage, options):
    for name in (part_name(4), part_name(5), "manifest.json", "mine.txt"):
        storage.write(name, b"x")
    with pytest.raises(SettingError, match=rf"{options.output} has 2 files such as {part_name(4)}|{part_name(5)}"):
        begin(storage, options, SETTINGS)
    assert storage.read(NAME) is None
    begin(storage, replace(options, overwrite=True), SETTINGS)
    assert storage.read("mine.txt") == b"x"
    assert [storage.read(name) for name in (part_name(4), part_name(5), "manifest.json")] == [None] * 3


def test_input_that_cannot_be_listed_deletes_nothing(storage, options):
    begin(storage, options, SETTINGS)
    write_shard(storage, 0, 1)
    gone = replace(options, input=options.input + "-gone", overwrite=True)
    with pytest.raises(ImageError, match="does not exist"):
        begin(storage, gone, {**SETTINGS, "input": "other"})
    assert storage.read(part_name(0)) is not None
    assert json.loads(storage.read(NAME)) == SETTINGS


def test_a_batch_that_is_interrupted_while_it_replaces_another_has_not_begun(storage, options, monkeypatch):
    """The old settings go first: with them, the next run would take a half-written plan for that of the old batch."""
    begin(storage, options, SETTINGS)
    write_shard(storage, 0, 1)

    def interrupted(name, place):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "upload", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(storage, replace(options, overwrite=True), {**SETTINGS, "mode": "instance"})
    assert storage.read(NAME) is None
    assert begin(storage, options, SETTINGS).unfinished().tolist() == [0, 1, 2]


# ---- what is left to do, and the end


def test_failures_are_tried_again_only_when_asked(storage, options):
    plan = write_plan(storage, [{"count": 2, "ids": []} for _ in range(4)])
    write_shard(storage, 0, 2)
    write_shard(storage, 2, 2, failed=1)
    assert to_run(storage, plan, options).tolist() == [1, 3]
    assert to_run(storage, plan, replace(options, retry_failed=True)).tolist() == [1, 2, 3]
    empty = write_plan(storage, [])
    assert to_run(storage, empty, replace(options, retry_failed=True)).tolist() == []


def test_the_manifest_counts_files_of_this_run_and_of_earlier_ones(storage):
    plan = write_plan(storage, KNOWN)
    write_shard(storage, 0, 3, failed=2)
    written = {1: Statistics(2, Counter(OutOfMemory=1), 7.0, {"OutOfMemory": "too large"})}
    result = BatchResult(storage.place)
    finish(storage, plan, SETTINGS, result, written)
    manifest = json.loads(storage.read("manifest.json"))
    assert manifest == {
        "settings": hashlib.sha256(json.dumps(SETTINGS, sort_keys=True).encode()).hexdigest()[:16],
        "rows": 5, "failures": {"ImageError": 2, "OutOfMemory": 1}, "seconds": 8.5,
        "examples": {"ImageError": "bad 0.png", "OutOfMemory": "too large"},
        "files": [
            {"file": part_name(0), "rows": 3, "failures": {"ImageError": 2}, "seconds": 1.5,
             "examples": {"ImageError": "bad 0.png"}},
            {"file": part_name(1), "rows": 2, "failures": {"OutOfMemory": 1}, "seconds": 7.0,
             "examples": {"OutOfMemory": "too large"}},
        ],
    }  # fmt: skip
    assert b'\n "rows": 5' in storage.read("manifest.json")
    assert (result.statistics.rows, result.statistics.failed) == (5, 3)


@pytest.mark.parametrize(("units", "before", "total"), [(KNOWN, 3, 5), (UNITS, 0, None)])
def test_progress_is_counted(storage, units, before, total):
    plan, result, seen = write_plan(storage, units), BatchResult("out"), []
    tracker = Tracker(plan, np.arange(1, len(plan)), result, lambda progress: seen.append(replace(progress)))
    count = len(plan)
    tracker.row()
    tracker.row(2)
    tracker.kept()
    tracker.kept(3)
    numbers = Statistics(2)
    tracker.shard(1, numbers)
    assert seen == [
        Progress(before, total, 1, count), Progress(before + 1, total, 1, count), Progress(before + 3, total, 1, count),
        Progress(before + 4, total, 1, count), Progress(before + 7, total, 1, count),
        Progress(before + 7, total, 2, count),
    ]  # fmt: skip
    assert result.photos == 3  # the others were answered by an earlier run
    assert tracker.written == {1: numbers}
    assert tracker.restarts == 0


def test_threads_and_temporary_folders_say_whose_they_are(storage, options, monkeypatch):
    """As a stack dump, or a full disk, shows them."""
    read, upload, names = job.read_statistics, storage.upload, []

    def recorded(address):
        names.append(threading.current_thread().name)
        return read(address)

    def uploaded(name, place):
        names.append(place.parent.name)
        upload(name, place)

    monkeypatch.setattr(job, "read_statistics", recorded)
    monkeypatch.setattr(storage, "upload", uploaded)
    plan = write_plan(storage, [{"count": 1, "ids": []}])
    write_shard(storage, 0, 1)
    to_run(storage, plan, replace(options, retry_failed=True))
    finish(storage, plan, SETTINGS, BatchResult(storage.place), {})
    for name, start in zip(names, ("deop-plan-", "deop-failures", "deop-manifest"), strict=True):
        assert name.startswith(start)


# ---- workers


def test_visible_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(job, "GPUS", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == []
    for name in ("a", "b", "c"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert visible_gpus() == ["0", "1", "2"]
    for value, expected in (("", []), ("1", ["1"]), (" 2, GPU-x ,,", ["2", "GPU-x"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus() == expected


def test_workers_take_turns_on_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    on_gpu = BatchOptions("in", "out", WorkerOptions(load={"device": "cuda"}))
    devices = [worker_environment(on_gpu, number)["CUDA_VISIBLE_DEVICES"] for number in range(4)]
    assert devices == ["4", "7", "4", "7"]
    assert worker_environment(on_gpu, 0)["PATH"] == os.environ["PATH"]
    assert worker_environment(BatchOptions("in", "out", WORKER), 0) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert worker_environment(on_gpu, 0) is None


@pytest.mark.parametrize(
    ("device", "workers", "gpus", "expected"),
    [
        (None, None, "0,1", 3), ("cpu", None, "0,1", 3), ("auto", None, "", 3), ("cuda", None, "0,1", 2),
        ("cuda", None, "", 1), ("cuda:1", None, "0,1", 1), ("mps", None, "", 1), ("cuda", 5, "0,1", 5),
        (None, 1, "", 1), ("cpu:0", None, "0,1", 3), ("cuda", None, "4,5,6,7", 4),
    ],
)  # fmt: skip
def test_number_of_workers(device, workers, gpus, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 3}, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    options = BatchOptions("in", "out", WorkerOptions(load={"device": device} if device else {}), workers=workers)
    assert worker_count(options) == expected


@pytest.mark.parametrize(("cores", "expected"), [(6, 6), (1, 1), (None, 1)])
def test_number_of_workers_where_the_affinity_is_not_known(cores, expected, monkeypatch):
    """As on macOS and Windows."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert worker_count(BatchOptions("in", "out", WORKER)) == expected


def test_threads_are_divided_among_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    options = BatchOptions("in", "out", WorkerOptions(load={"device": "cpu"}), workers=3)
    assert with_threads(options).load == {"device": "cpu", "threads": 2}
    assert with_threads(options, 5).load == {"device": "cpu", "threads": 5}
    assert with_threads(replace(options, workers=20)).load["threads"] == 1
    given = replace(options, worker=WorkerOptions(load={"threads": 7}))
    assert with_threads(given, 5) is given.worker
    other = replace(options, worker=WorkerOptions(factory="module:load"))
    assert with_threads(other, 5) is other.worker

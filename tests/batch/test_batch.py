"""Batches of photos into Parquet files: each input once, whatever ends the processes."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.batch import BatchOptions, job, run_batch, table
from deop.batch.plan import number_of
from deop.batch.worker import WorkerOptions
from deop.errors import DataError, ImageError, OutputError, SettingError
from deop.images.rle import decode_rle
from tests.tiles.colour_model import blobs, colours, names

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

COUNT = 4
FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
WORKER = WorkerOptions(factory="tests.batch.fake_worker:load", names=names(COUNT), masks="both")


def labels_of(number):
    return blobs((24 + number % 3, 32), COUNT, seed=number, size=12)


def png(number):
    buffer = BytesIO()
    Image.fromarray(picture_of(number)).save(buffer, "PNG")
    return buffer.getvalue()


def picture_of(number):
    table_of_colours = np.concatenate([colours(COUNT), [[255, 255, 255]]]).astype(np.uint8)
    return table_of_colours[labels_of(number)]


def write_photos(folder, count):
    for number in range(count):
        place = folder / f"{number // 10:02d}" / f"{number:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(number))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 40)


@pytest.fixture
def batch(photos, tmp_path):
    """``batch(input, **options)`` runs a batch and returns its result and the rows of its files."""

    def run(source=photos, output=tmp_path / "out", **options):
        options = {"worker": WORKER, "command": FAKE, "workers": 1, "timeout": 30.0, **options}
        result = run_batch(BatchOptions(str(source), str(output), **options))
        return result, rows_of(output)

    return run


def rows_of(output):
    return [row for file in sorted(Path(output).glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]


def without_times(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def label_map(row):
    labels = np.full((row["height"], row["width"]), -1, np.int32)
    for segment in row["segments"]:
        labels[decode_rle({"size": [row["height"], row["width"]], "counts": segment["rle"]})] = segment["class_id"]
    return labels


def test_each_photo_of_a_directory_is_a_row_with_its_labels(batch, photos):
    result, rows = batch()
    assert [row["id"] for row in rows] == [f"{number // 10:02d}/{number:03d}.png" for number in range(40)]
    assert result.statistics.rows == result.photos == 40
    assert not result.statistics.failures
    for number, row in enumerate(rows):
        assert row["path"] == str(photos / row["id"])
        assert row["error"] is None
        assert np.array_equal(label_map(row), labels_of(number))
        png_labels = np.asarray(Image.open(BytesIO(row["labels"]))).astype(np.int32) - 1
        assert np.array_equal(png_labels, labels_of(number))
        assert row["unnamed"] == pytest.approx((labels_of(number) < 0).mean())
        for segment in row["segments"]:
            assert segment["name"] == f"name {segment['class_id']}"
            assert segment["area"] == (labels_of(number) == segment["class_id"]).sum()


def test_the_manifest_lists_the_files(batch, tmp_path):
    result, _ = batch()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == 40
    assert [file["rows"] for file in manifest["files"]] == [16, 16, 8]
    assert all((tmp_path / "out" / file["file"]).exists() for file in manifest["files"])
    assert result.shards == 3


def test_a_finished_batch_has_nothing_left_to_do_and_missing_files_are_written_again(batch, tmp_path):
    _, rows = batch()
    again, _ = batch()
    assert (again.photos, again.finished_before, again.statistics.rows) == (0, 3, 40)
    (tmp_path / "out" / "part-000001.parquet").unlink()
    again, repeated = batch()
    assert (again.photos, again.finished_before) == (16, 2)
    assert without_times(repeated) == without_times(rows)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"limit": 3}, "limit: null, now 3"),
        ({"worker": replace(WORKER, masks="rle")}, 'masks: "both", now "rle"'),
        ({"worker": replace(WORKER, threshold=0.9)}, "threshold: 0.4, now 0.9"),
        ({"worker": replace(WORKER, names=["a", "b", "c", "d"])}, 'names: [["name 0"]'),
        (
            {"worker": replace(WORKER, settings={"partition": "score"})},
            'partition (of the model): "none", now "score"\nRepeat',
        ),
        ({"worker": replace(WORKER, settings={"windows": (64, 32)})}, "windows (of the model): null, now [64, 32]"),
    ],
)
def test_other_settings_are_refused_by_name_unless_overwritten(batch, change, text):
    batch()
    with pytest.raises(SettingError, match="other settings") as caught:
        batch(**change)
    assert text in str(caught.value)
    _, rows = batch(**change, overwrite=True)
    assert len(rows) == change.get("limit", 40)


@pytest.mark.parametrize("name", ["settings.json", "plan.index"])
@pytest.mark.parametrize("content", [b"", b"[1", b"null"])
def test_a_damaged_record_is_an_error_and_can_be_deleted(batch, tmp_path, name, content):
    folder = write_photos(tmp_path / "some", 2)
    _, expected = batch(folder)
    (tmp_path / "out" / "_deop" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is .*damaged: add --overwrite"):
        batch(folder)
    assert len(rows_of(tmp_path / "out")) == 2
    _, rows = batch(folder, overwrite=True)
    assert without_times(rows) == without_times(expected)


def test_failed_inputs_are_tried_again_when_asked_and_others_are_not(batch, tmp_path, monkeypatch):
    folder = write_photos(tmp_path / "some", 40)
    paths = [str(path) for path in sorted(folder.rglob("*.png"))]
    late = [Path(paths[3]), Path(paths[39])]  # of the first and the last shard
    for path in late:
        path.rename(path.with_suffix(".away"))
    (tmp_path / "list.txt").write_text("\n".join(paths))
    result, rows = batch(tmp_path / "list.txt")
    assert result.statistics.failed == 2
    late[0].with_suffix(".away").rename(late[0])
    tries = tmp_path / "tries"
    tries.mkdir()
    monkeypatch.setenv("DEOP_TEST_TRIES", str(tries))
    seen = []
    options = {"worker": WORKER, "command": FAKE, "workers": 1, "retry_failed": True}
    result = run_batch(
        BatchOptions(str(tmp_path / "list.txt"), str(tmp_path / "out"), **options),
        lambda progress: seen.append((progress.inputs, progress.shards)),
    )
    assert (result.photos, result.statistics.rows, result.statistics.failed) == (2, 40, 1)
    assert seen[0] == (16, 1)
    assert seen[-1] == (40, 3)
    assert {place.name.split(".png")[0] for place in tries.iterdir()} == {"003", "039"}
    again = rows_of(tmp_path / "out")
    assert [row["id"] for row in again] == paths
    assert again[3]["error"] is None
    assert again[39] == {**rows[39], "seconds": again[39]["seconds"]}
    assert [row for row in again if row["id"] != paths[3]] == [row for row in rows if row["id"] != paths[3]]
    assert batch(tmp_path / "list.txt")[0].photos == 0  # only when asked


def test_a_shard_that_does_not_fit_in_memory_is_refused(tmp_path):
    from deop.batch.sources import list_units

    (tmp_path / "list.txt").write_text("a.jpg\n" * 50_001)
    with pytest.raises(SettingError, match="files of 25,001 photos, which must fit in memory: give at least 3"):
        list(list_units(str(tmp_path / "list.txt"), column=None, limit=None, shards=2))
    assert len(list(list_units(str(tmp_path / "list.txt"), column=None, limit=None, shards=3))) == 3


def test_a_directory_in_a_store_is_listed_as_on_disk(tmp_path):
    """Object stores list files in other orders, list directories as empty files, and hide nothing."""
    import fsspec

    from deop.batch.sources import list_units

    names = [
        "b.jpg",
        "a/2.png",
        "a/10.png",
        "a/deep/x.JPG",
        "b/1.jpg",
        ".hidden/1.jpg",
        "a/.x.jpg",
        "text.txt",
        "a.jpg",
    ]
    system, root = fsspec.core.url_to_fs(f"memory://{tmp_path.name}")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        system.pipe_file(f"{root}/{name}", b"")

    def ids(place):
        return [name for unit in list_units(place, column=None, limit=None, shards=None) for name in unit["ids"]]

    assert ids(f"memory://{tmp_path.name}") == ids(str(tmp_path))
    assert ids(f"file://{tmp_path}") == ids(str(tmp_path))
    system.rm(root, recursive=True)


def test_limit_and_number_of_shards(batch, tmp_path):
    result, rows = batch(limit=10, shards=5, workers=2)
    assert len(rows) == 10
    assert result.shards == 5


def test_a_list_a_pattern_and_a_column_of_paths_give_the_same_rows(batch, photos, tmp_path):
    _, expected = batch()
    paths = sorted(str(path) for path in photos.glob("*/*.png"))
    (tmp_path / "list.txt").write_text("\n".join(paths) + "\n")
    pq.write_table(pa.table({"number": range(40), "path": paths}), tmp_path / "list.parquet", row_group_size=25)
    for kind, source in enumerate((tmp_path / "list.txt", photos / "*" / "*.png", tmp_path / "list.parquet")):
        _, rows = batch(source, tmp_path / f"out{kind}")
        assert [row["path"] for row in rows] == paths
        assert [row["segments"] for row in rows] == [row["segments"] for row in expected]


def test_images_in_parquet_files_and_in_tar_files(batch, tmp_path):
    images = [png(number) for number in range(20)]
    column = pa.array([{"bytes": image, "path": None} for image in images])  # as Hugging Face stores images
    pq.write_table(pa.table({"image": column, "raw": images}), tmp_path / "images.parquet")
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard:02d}.tar", "w") as archive:
            for number in range(shard * 10, shard * 10 + 10):
                for suffix, content in ((".png", images[number]), (".json", b"{}")):
                    info = tarfile.TarInfo(f"{number:04d}{suffix}")
                    info.size = len(content)
                    archive.addfile(info, BytesIO(content))
    sources = {"images.parquet": None, "shard-{00..01}.tar": None, "shard-*.tar": None, "./images.parquet": "raw"}
    for index, (source, column) in enumerate(sources.items()):
        _, rows = batch(tmp_path / source, tmp_path / f"out{index}", column=column)
        assert len({row["id"] for row in rows}) == 20
        for number, row in enumerate(rows):
            assert np.array_equal(label_map(row), labels_of(number)), source
    _, rows = batch(tmp_path / "shard-*.tar", tmp_path / "limited", limit=13)
    assert len(rows) == 13


def test_errors_are_rows(batch, photos, tmp_path):
    folder = write_photos(tmp_path / "some", 5)
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image")
    result, rows = batch(folder)
    assert result.statistics.rows == 7
    assert result.statistics.failures == {"ImageError": 2}
    assert [row["id"] for row in rows if row["error"]] == ["empty.jpg", "text.png"]
    assert all(row["segments"] is None for row in rows if row["error"])
    (tmp_path / "list.txt").write_text(f"{folder}/00/000.png\nmissing.png\n")
    _, rows = batch(tmp_path / "list.txt", tmp_path / "listed")
    assert rows[0]["error"] is None
    assert str(tmp_path / "missing.png") in rows[1]["error"]


def test_a_directory_of_empty_files_is_a_table_of_errors(batch, tmp_path):
    for number in range(10_000):
        place = tmp_path / "some" / f"{number // 500:02d}" / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    result, rows = batch(tmp_path / "some")
    assert result.statistics.failures == {"ImageError": 10_000}
    assert result.shards == 64
    assert len({row["id"] for row in rows}) == 10_000


def test_a_tar_file_that_is_cut_keeps_what_is_before(batch, tmp_path):
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(6):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(png(number))
            archive.addfile(info, BytesIO(png(number)))
    cut = whole.getvalue()[: 512 * 7 + 100]
    packed = gzip.compress(whole.getvalue())
    damaged = packed[: len(packed) // 2] + bytes(reversed(packed[len(packed) // 2 :]))
    for name, content in {"cut": cut, "packed": packed[: len(packed) * 2 // 3], "damaged": damaged}.items():
        (tmp_path / f"{name}.tar").write_bytes(content)
        result, rows = batch(tmp_path / f"{name}.tar", tmp_path / f"out {name}")
        assert 0 < result.statistics.rows - result.statistics.failed < 6
        assert "incomplete or damaged" in rows[-1]["error"]
    for content in (b"", b"no archive at all"):
        (tmp_path / "none.tar").write_bytes(content)
        result, rows = batch(tmp_path / "none.tar", tmp_path / "out none", overwrite=True)
        assert "incomplete or damaged" in rows[-1]["error"]


def test_bad_inputs_are_refused_before_anything_is_written(batch, photos, tmp_path):
    (tmp_path / "nothing").mkdir()
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "other.parquet")
    for source, kind, text in (
        (tmp_path / "nothing", ImageError, "no photos in"),
        (tmp_path / "absent", ImageError, "does not exist"),
        (tmp_path / "*.jpg", ImageError, "no photos match"),
        (tmp_path / "other.parquet", DataError, "give --column with one of caption"),
    ):
        with pytest.raises(kind, match=text):
            batch(source)
        assert not (tmp_path / "out").exists()
    with pytest.raises(SettingError, match="--column applies to Parquet"):
        batch(photos, column="image")


@pytest.mark.parametrize(("name", "kind"), [("crash", "Crash"), ("hang", "Timeout")])
def test_a_poisonous_photo_costs_itself_only_after_two_tries(batch, tmp_path, monkeypatch, name, kind):
    folder = write_photos(tmp_path / "some", 12)
    for number in (3, 9):
        (folder / f"{number:02d}-{name}.png").write_bytes(png(number))
    tries = tmp_path / "tries"
    tries.mkdir()
    monkeypatch.setenv("DEOP_TEST_TRIES", str(tries))
    result, rows = batch(folder, timeout=3.0)
    assert len(rows) == 14
    assert result.statistics.failures == {kind: 2}
    assert [row["id"] for row in rows if row["error"]] == [f"03-{name}.png", f"09-{name}.png"]
    for number in (3, 9):
        assert len(list(tries.glob(f"{number:02d}-{name}.png.*"))) == 2
    assert result.restarts in (3, 4)  # each alone, and together or one after the other with others


def test_workers_that_are_replaced_lose_nothing(batch):
    _, expected = batch()
    result, rows = batch(overwrite=True, recycle=7)
    assert without_times(rows) == without_times(expected)
    assert result.restarts == 0


def test_an_output_that_cannot_be_written_is_an_error_and_the_batch_resumes(batch, tmp_path, monkeypatch):
    from deop.batch.storage import Storage

    write, calls = Storage.write, []

    def full(self, name, content):
        calls.append(name)
        if len(calls) == 4:  # the index, the settings, one shard
            raise self._unwritable(name, OSError(28, "No space left on device"))
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", full)
    with pytest.raises(OutputError, match="No space left on device; free some space and repeat"):
        batch()
    assert len(list((tmp_path / "out").glob("part-*"))) == 1
    monkeypatch.undo()
    result, rows = batch()
    assert result.finished_before == 1
    assert len(rows) == 40


def test_a_disk_that_is_really_full_loses_nothing(batch, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        return  # mounts are refused here; the test above covers the same with a store that says so
    try:
        free = shutil.disk_usage(disk).free
        (disk / "filling").write_bytes(bytes(free - 28 * 1024))
        with pytest.raises(OutputError, match="free some space and repeat the command"):
            batch(output=disk / "out")
        assert not list((disk / "out").glob(".*"))
        kept = len(list((disk / "out").glob("part-*")))
        assert all(pq.read_table(file).num_rows for file in (disk / "out").glob("part-*"))
        (disk / "filling").unlink()
        result, rows = batch(output=disk / "out")
        assert result.finished_before == kept
        assert [row["id"] for row in rows] == [f"{number // 10:02d}/{number:03d}.png" for number in range(40)]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


DRIVER = """
import sys
sys.path[:0] = [{root!r} + "/src", {root!r}]
from tests.batch.test_batch import FAKE, WORKER
from dataclasses import replace
from deop.batch import BatchOptions, run_batch
worker = replace(WORKER, load={{"seconds": float(sys.argv[4])}})
run_batch(BatchOptions(sys.argv[1], sys.argv[2], worker=worker, command=FAKE, workers=2, engine=sys.argv[3]))
"""


def kill_often(photos, output, engine, kills, longest, seconds=0.02, seed=0):
    """Run a batch in a process that is killed, or one that it has started is, at random moments; then to its end."""
    random = np.random.default_rng(seed)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", DRIVER.format(root=root), str(photos), str(output), engine, str(seconds)]
    for number in range(kills):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0.1, longest))
        victims = [process.pid]
        if number % 3 == 2 and (children := descendants_of(process.pid)):
            victims = [int(random.choice(children))]
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if victims != [process.pid]:
            time.sleep(random.uniform(0.1, longest))
            process.kill()
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def descendants_of(number):
    """The processes that a process has started, and those that these have started."""
    try:
        files = list(Path(f"/proc/{number}/task").glob("*/children"))
        children = [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []
    return children + [other for child in children for other in descendants_of(child)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("count", "kills"), [(40, 3), pytest.param(200, int(os.environ.get("DEOP_KILLS", "25")), marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_each_input_is_there_once(batch, tmp_path, count, kills):
    folder = write_photos(tmp_path / "some", count)
    _, expected = batch(folder, tmp_path / "whole")
    kill_often(folder, tmp_path / "killed", "local", kills, longest=1.6)
    assert without_times(rows_of(tmp_path / "killed")) == without_times(expected)
    assert not list((tmp_path / "killed").glob(".*.part"))


def test_an_interrupted_batch_ends_its_workers_and_resumes(batch, tmp_path):
    folder = write_photos(tmp_path / "some", 100)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", DRIVER.format(root=root), str(folder), str(tmp_path / "out"), "local", "0.1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "_deop" / "settings.json").exists() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(0.5)
    workers = descendants_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT, errors
    assert errors.count("Traceback") <= 1
    assert workers
    assert not any(Path(f"/proc/{number}").exists() for number in workers)
    _, rows = batch(folder, tmp_path / "out", worker=WORKER)
    assert len(rows) == 100


def test_two_processes_cannot_write_one_output(batch, tmp_path):
    from deop.batch.storage import Storage

    storage = Storage(str(tmp_path / "out"))
    storage.lock()
    try:
        with pytest.raises(SettingError, match="another process is writing"):
            batch()
    finally:
        storage.unlock()


def test_rows_with_names_that_are_not_unicode(tmp_path):
    row = {"id": "caf\udce9.png", "path": "/p/caf\udce9.png", "model": "m", "settings": "s", "error": None}
    content, _ = table.encode([row])
    assert pq.read_table(BytesIO(content)).to_pylist()[0]["id"] == "caf\\udce9.png"


def test_workers_take_turns_on_the_gpus_of_a_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    on_gpu = BatchOptions("in", "out", replace(WORKER, load={"device": "cuda"}))
    assert job.worker_environment(on_gpu, 0) is None
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert job.worker_count(on_gpu) == 2
    turns = [job.worker_environment(on_gpu, number)["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert turns == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert job.worker_environment(on_gpu, 1)["CUDA_VISIBLE_DEVICES"] == "5"
    assert job.worker_environment(BatchOptions("in", "out", WORKER), 1) is None


def test_names_of_files():
    assert number_of("part-000012.parquet") == 12
    assert number_of("part-000012.parquet.part") is None
    assert number_of("manifest.json") is None

"""Batches in an object store (moto's server), also one that fails for a while; and readers of the results."""

import http.client
import itertools
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from deop.batch import BatchOptions, lease, run_batch, storage, stores
from deop.errors import DataError, OutputError, SettingError
from tests.batch.test_batch import FAKE, WORKER, png, rows_of, without_times, write_photos


@pytest.fixture(scope="module")
def moto():
    """The port of an S3 server."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def store(moto, monkeypatch):
    """``store(port)`` makes a server the one of ``s3://`` and returns its file system; by default moto's."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setattr(lease, "SETTLING", 0.0)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)

    def use(port=moto):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        return s3fs.S3FileSystem()

    yield use
    s3fs.S3FileSystem.clear_instance_cache()


def run(source, output, **options):
    return run_batch(BatchOptions(str(source), str(output), worker=WORKER, command=FAKE, workers=1, **options))


def rows_in(system, output):
    files = sorted(system.glob(f"{output}/part-*.parquet"))
    return [row for file in files for row in pq.read_table(BytesIO(system.cat_file(file))).to_pylist()]


def test_photos_lists_and_tables_in_a_store(store, tmp_path):
    system = store()
    system.mkdir("one")
    folder = write_photos(tmp_path / "some", 20)
    run(folder, tmp_path / "local")
    expected = [row["segments"] for row in rows_of(tmp_path / "local")]
    for number in range(20):
        system.pipe_file(f"one/photos/{number // 10:02d}/{number:03d}.png", png(number))
    result = run("s3://one/photos", "s3://one/results")
    rows = rows_in(system, "one/results")
    assert result.statistics.rows == 20
    assert [row["id"] for row in rows] == [f"{number // 10:02d}/{number:03d}.png" for number in range(20)]
    assert rows[3]["path"] == "s3://one/photos/00/003.png"
    assert [row["segments"] for row in rows] == expected
    assert run("s3://one/photos", "s3://one/results").photos == 0
    system.rm_file("one/results/part-000000.parquet")
    assert run("s3://one/photos", "s3://one/results").photos == 16
    assert without_times(rows_in(system, "one/results")) == without_times(rows)

    table = BytesIO()
    pq.write_table(pa.table({"url": [f"s3://one/photos/00/{number:03d}.png" for number in range(5)]}), table)
    system.pipe_file("one/list.parquet", table.getvalue())
    system.pipe_file("one/list.txt", b"photos/00/000.png\nphotos/00/missing.png\n")
    run("s3://one/list.parquet", tmp_path / "column")
    assert [row["segments"] for row in rows_of(tmp_path / "column")] == expected[:5]
    run("s3://one/photos/*/*.png", tmp_path / "pattern")
    assert [row["segments"] for row in rows_of(tmp_path / "pattern")] == expected
    run("s3://one/list.txt", tmp_path / "list")
    first, second = rows_of(tmp_path / "list")
    assert first["segments"] == expected[0]
    assert second["error"] == "s3://one/photos/00/missing.png does not exist"


@contextmanager
def flaky_server(target, is_broken):
    """A server in front of another one, which fails while ``is_broken(method, path)`` says how: "500" or "drop"."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            failure = is_broken(self.command, self.path)
            if failure == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if failure == "500":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection("127.0.0.1", target)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["500", "drop"])
def test_a_store_that_fails_for_a_while_loses_nothing(store, moto, failure):
    system = store()
    system.mkdir(f"two{failure}")
    for number in range(4):
        system.pipe_file(f"two{failure}/photos/{number}.png", png(number))
    seen = {}

    def broken(method, path):
        seen[path] = seen.get(path, 0) + 1  # requests of any kind: some versions of s3fs ask for the size first
        return failure if ("photos/1.png" in path or "part-" in path) and seen[path] <= 2 else ""

    def broken_for_one(method, path):
        return failure if "photos/1.png" in path else ""

    with flaky_server(moto, broken) as port:
        store(port)
        result = run(f"s3://two{failure}/photos", f"s3://two{failure}/results")
        assert result.statistics.as_json()["failures"] == {}
    with flaky_server(moto, broken_for_one) as port:
        store(port)
        result = run(f"s3://two{failure}/photos", f"s3://two{failure}/others")
    assert result.statistics.failures == {"OSError": 1}
    rows = rows_in(store(), f"two{failure}/others")
    assert [row["error"] is None for row in rows] == [True, False, True, True]


def test_a_store_that_cannot_be_written_is_an_error(store, moto, tmp_path, monkeypatch):
    store().mkdir("three")
    monkeypatch.setattr(stores, "PAUSES", (0.0,))
    folder = write_photos(tmp_path / "some", 2)
    with flaky_server(moto, lambda method, path: "500" if "part-" in path else "") as port:
        store(port)
        with pytest.raises(OutputError, match="repeat the command when the store can be reached"):
            run(folder, "s3://three/results")
    store()
    assert run(folder, "s3://three/results").photos == 2


def test_two_batches_cannot_write_one_output(store, tmp_path, monkeypatch):
    store().mkdir("four")
    monkeypatch.setattr(lease, "RENEWAL", 0.1)
    monkeypatch.setattr(lease, "_WATCH", 0.1)
    folder = write_photos(tmp_path / "some", 2)
    first = storage.Storage("s3://four/results")
    first.lock()
    with pytest.raises(SettingError, match="another batch is writing s3://four/results: process"), pytest.warns():
        run(folder, "s3://four/results")
    first.unlock()
    assert run(folder, "s3://four/results").photos == 2


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["500", "drop"])
def test_a_store_that_cannot_be_listed_or_read_is_an_error(store, moto, tmp_path, monkeypatch, failure):
    """A folder that cannot be listed is never left out, and what cannot be read names the place and the remedy."""
    system = store()
    name = f"five{failure}"
    system.mkdir(name)
    monkeypatch.setattr(stores, "PAUSES", (0.0,))
    table = BytesIO()
    pq.write_table(pa.table({"image": [png(0)]}), table)
    for path, content in {
        "photos/a/0.png": png(0), "photos/b/1.png": png(1), "list.txt": b"x.png", "one.parquet": table.getvalue()
    }.items():  # fmt: skip
        system.pipe_file(f"{name}/{path}", content)
    broken = {
        "photos": lambda method, path: "prefix=photos%2Fb" in path,
        "list.txt": lambda method, path: "list.txt" in path,
        "one.parquet": lambda method, path: "one.parquet" in path,
        "photos/*/*.png": lambda method, path: "list-type" in path,
    }
    for source, fails in broken.items():
        with flaky_server(moto, lambda method, path, fails=fails: failure if fails(method, path) else "") as port:
            store(port)
            with pytest.raises(DataError, match=f"s3://{name}/{source.split('*')[0]}"):
                run(f"s3://{name}/{source}", tmp_path / "out")
            assert not (tmp_path / "out").exists()
    with flaky_server(moto, lambda method, path: failure if "_deop" in path else "") as port:
        store(port)
        with pytest.raises(OutputError, match="repeat the command when the store can be reached"):
            run(f"s3://{name}/photos", f"s3://{name}/results")


def test_a_tar_file_and_a_table_whose_connection_is_lost_are_read_on(store, moto, tmp_path, monkeypatch):
    system = store()
    system.mkdir("six")
    monkeypatch.setattr(stores, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr("s3fs.core.S3FileSystem.default_block_size", 2048)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    whole, table = BytesIO(), BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(20):
            info = tarfile.TarInfo(f"{number:02d}.png")
            info.size = len(png(number))
            archive.addfile(info, BytesIO(png(number)))
    pq.write_table(pa.table({"image": [png(number) for number in range(20)]}), table, data_page_size=1024)
    system.pipe_file("six/photos.tar", whole.getvalue())
    system.pipe_file("six/photos.parquet", table.getvalue())
    for file in ("photos.tar", "photos.parquet"):
        run(f"s3://six/{file}", tmp_path / f"whole {file}")
        gets = itertools.count()

        def three_times(method, path, file=file, gets=gets):
            return "drop" if method == "GET" and file in path and next(gets) in (1, 2, 5) else ""

        with flaky_server(moto, three_times) as port:
            store(port)
            result = run(f"s3://six/{file}", tmp_path / file)
        store()
        assert next(gets) > 3
        assert result.statistics.failures == {}
        assert without_times(rows_of(tmp_path / file)) == without_times(rows_of(tmp_path / f"whole {file}"))
        assert len(rows_of(tmp_path / file)) == 20


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_photos(folder / "photos", 20)
    (folder / "photos" / "empty.jpg").touch()
    run(folder / "photos", folder / "out")
    return folder / "out"


def areas(rows):
    total: dict[str, int] = {}
    for row in rows:
        for segment in row["segments"] or ():
            total[segment["name"]] = total.get(segment["name"], 0) + segment["area"]
    return total


def test_pandas_reads_the_results(results):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(sorted(results.glob("part-*.parquet")))
    assert frame["error"].notna().sum() == 1
    segments = pandas.json_normalize(frame["segments"].dropna().explode().dropna().tolist())
    assert segments.groupby("name")["area"].sum().to_dict() == areas(rows_of(results))


def test_polars_reads_the_results(results):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(results / "part-*.parquet")
    assert frame["error"].null_count() == 20
    segments = frame.select("segments").explode("segments").drop_nulls().unnest("segments")
    assert dict(segments.group_by("name").agg(polars.col("area").sum()).iter_rows()) == areas(rows_of(results))


def test_duckdb_reads_the_results(results):
    duckdb = pytest.importorskip("duckdb")
    query = "select s.name, sum(s.area)::bigint from (select unnest(segments) as s from '{}/part-*.parquet') group by 1"
    assert dict(duckdb.sql(query.format(results)).fetchall()) == areas(rows_of(results))


def test_hugging_face_datasets_reads_the_results(results, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = [str(file) for file in sorted(results.glob("part-*.parquet"))]
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(rows) == 21
    assert areas(rows) == areas(rows_of(results))
    assert np.isfinite(rows[0]["seconds"])

"""Photos of the table (bad_input.ROWS) on every surface: read as documented, or refused with the documented reason."""

import json
import os
import re
import subprocess
import sys
import warnings
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import deop
from deop.errors import DeopError, ImageError
from deop.images.reading import count_pixels, read_photo
from deop.text.vocabulary import Vocabulary
from deop.tiles.segmenting import segment_tiles
from tests.trust.bad_input import CONTROL, HOSTILE, ROWS, SCRIPTS, Row, control_characters, write_quick_model

ALL = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
REFUSED = pytest.mark.parametrize("row", [row for row in ROWS if row.shape is None], ids=lambda row: row.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All rows as files."""
    folder = tmp_path_factory.mktemp("rows")
    for row in ROWS:
        row.write(folder / row.name)
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    return write_quick_model(tmp_path_factory.mktemp("models") / "quick")


@pytest.fixture(scope="module", params=["onnx", "torch"])
def model(request, quick):
    loaded = deop.load(quick, engine=request.param, device="cpu", threads=1)
    loaded.cache = None
    return loaded


def check_message(row: Row, message: str, place: str) -> None:
    assert re.search(row.reason, message), message
    assert place in message
    assert "Traceback" not in message
    assert len(message) < 600


@ALL
def test_read_photo(row, folder):
    path = folder / row.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if row.shape is None:
            with pytest.raises(ImageError) as caught:
                read_photo(path)
            check_message(row, str(caught.value), str(path))
            return
        pixels = read_photo(path)
    assert pixels.shape == (*row.shape, 3)
    assert pixels.dtype == np.uint8
    if row.colour:
        assert np.abs(pixels[0, 0].astype(int) - row.colour).max() <= 12


@ALL
def test_counting_pixels_never_fails_or_waits(row, folder):
    count = count_pixels(folder / row.name)
    assert count >= 0
    if row.shape:
        assert count == row.shape[0] * row.shape[1]


@ALL
@pytest.mark.filterwarnings("ignore")
def test_python(row, folder, model):
    path = folder / row.name
    if row.shape is None:
        with pytest.raises(DeopError) as caught:
            model.segment(path, ["cat", "wall"])
        check_message(row, str(caught.value), str(path))
    else:
        result = model.segment(path, ["cat", "wall"])
        assert result.label_map.shape == row.shape
        assert result.label_map.min() >= -1
        assert result.label_map.max() <= 1


@REFUSED
@pytest.mark.filterwarnings("ignore")
def test_tiles(row, folder, model, tmp_path):
    """In tiles, values of any range are scaled, and a size alone is no reason to refuse."""
    path = folder / row.name
    if row.name in ("nan.tif", "infinite.tif", "negative.tif", "hdr.tif"):
        segment_tiles(model, path, ["cat", "wall"], tmp_path / "out.tif", tiles=64)
        return
    with pytest.raises(DeopError) as caught:
        segment_tiles(model, path, ["cat", "wall"], tmp_path / "out.tif", tiles=64)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_command_line(folder, quick, tmp_path, capfd, monkeypatch):
    """One command for all: each row has its line, and none ends the others."""
    from deop.cli import main

    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)
    rows = [row for row in ROWS if row.name != "directory.jpg"]  # a directory stands for the photos in it
    photos = [str(folder / row.name) for row in rows]
    options = ["-c", "cat, wall", "-o", "out", "--json", "lines.jsonl", "--model", str(quick), "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["segment", *photos, *options])
    out, err = capfd.readouterr()
    assert ended.value.code == 1, err
    assert "Traceback" not in err + out
    assert "unexpected" not in err
    lines = [json.loads(line) for line in Path("lines.jsonl").read_text().splitlines()]
    by_photo = {Path(line["photo"]).name: line for line in lines}
    assert by_photo.keys() == {row.name for row in rows}
    for row in rows:
        line = by_photo[row.name]
        if row.shape is None:
            assert re.search(row.reason, line["error"]), line
        else:
            assert "error" not in line, line
    assert not Path("pwned").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_directory_of_everything(folder, quick, tmp_path, capfd, monkeypatch):
    """Given as a directory: pipes and devices are not opened, and other files are left out or have their line."""
    from deop.cli import main

    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)
    options = ["-c", "cat, wall", "-o", "out", "--json", "lines.jsonl", "--model", str(quick), "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(folder), *options])
    _, err = capfd.readouterr()
    assert ended.value.code == 1, err
    assert "Traceback" not in err
    lines = [json.loads(line) for line in Path("lines.jsonl").read_text().splitlines()]
    done = {Path(line["photo"]).name for line in lines if "error" not in line}
    assert done == {row.name for row in ROWS if row.shape is not None}


def test_batches(folder, quick, tmp_path):
    """Each row of the table is a row of the result."""
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from deop.batch import BatchOptions, run_batch
    from deop.batch.worker import WorkerOptions

    listed = tmp_path / "photos.txt"
    listed.write_text("".join(f"{folder / row.name}\n" for row in ROWS))
    worker = WorkerOptions(model=str(quick), names="cat, wall", load={"device": "cpu", "threads": 1})
    run_batch(BatchOptions(str(listed), str(tmp_path / "out"), worker=worker, workers=1, timeout=120.0))
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    results = {Path(line["path"]).name: line for part in parts for line in pq.read_table(part).to_pylist()}
    assert results.keys() == {row.name for row in ROWS}
    for row in ROWS:
        result = results[row.name]
        if row.shape is None:
            assert result["error_kind"] == "ImageError", result["error"]
            check_message(row, result["error"], row.name)
        else:
            assert result["error"] is None
            assert (result["height"], result["width"]) == row.shape


@pytest.fixture(scope="module")
def client(quick):
    pytest.importorskip("fastapi")
    import io

    from starlette.testclient import TestClient

    from deop.serving.app import create_app
    from deop.serving.limits import Limits
    from deop.serving.request_log import RequestLog
    from deop.serving.work import Worker
    from tests.serving.conftest import ThreadLane

    loaded = deop.load(quick, engine="onnx", device="cpu", threads=1)
    loaded.cache = None
    worker = Worker(loaded, Limits(), "0-")
    app = create_app([ThreadLane(worker)], worker.describe(), limits=Limits(), log=RequestLog(io.StringIO()))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


class TestServer:
    """The bytes of each row in a request."""

    SENT = pytest.mark.parametrize("row", [row for row in ROWS if row.status], ids=lambda row: row.name)

    @SENT
    @pytest.mark.filterwarnings("ignore")
    def test_answers(self, row, folder, client):
        answer = client.post(
            "/v1/segment", params={"names": "cat, wall"}, content=(folder / row.name).read_bytes(),
            headers={"content-type": "application/octet-stream"},
        )  # fmt: skip
        assert answer.status_code == row.status, answer.text
        if row.shape is None:
            assert answer.headers["content-type"] == "application/problem+json"
            assert "Traceback" not in answer.text
            assert "/deop/" not in answer.text
        else:
            assert tuple(answer.json()["size"]) == row.shape[::-1]

    @pytest.mark.parametrize("name", [*SCRIPTS, *HOSTILE, *CONTROL, "x" * 5000], ids=lambda name: ascii(name[:30]))
    def test_names(self, name, folder, client):
        """A name is returned as it is, in JSON, or refused with a reason that controls no terminal."""
        content = {"photo": b64encode((folder / "plain.png").read_bytes()).decode(), "names": [name, "cat"]}
        answer = client.post("/v1/segment", json=content)
        assert answer.status_code in (200, 422), answer.text
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        if answer.status_code == 200:
            assert answer.json()["names"] == list(Vocabulary.parse([name, "cat"]).names)
        else:
            assert not control_characters(answer.json()["detail"])
            assert len(answer.json()["detail"]) < 400
        assert not any(name in value for value in answer.headers.values() if len(name) > 3)


@pytest.mark.parametrize("name", ["damaged-exif.jpg", "profile.png"])
def test_damaged_metadata_is_ignored_also_where_warnings_are_errors(name, folder):
    code = "import sys; from deop.images.reading import read_photo; read_photo(sys.argv[1])"
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def without_privileges():
    """As a user who may not read everything: root may, whatever the permissions are."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_that_may_not_be_read(tmp_path):
    from deop.images.masks import read_masks
    from deop.text.names_file import read_class_names

    path = tmp_path / "photo.png"
    path.write_bytes((Path(__file__).parents[2] / "examples" / "chelsea.png").read_bytes())
    path.chmod(0)
    for function in (read_photo, read_masks, read_class_names):
        with without_privileges(), pytest.raises(DeopError) as caught:
            function(path)
        assert str(path) in str(caught.value)

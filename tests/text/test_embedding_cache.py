"""The cache of text embeddings: what is stored comes back, and nothing that befalls the file is an error."""

import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from deop.text.embedding_cache import CacheWarning, EmbeddingCache, default_cache_folder

TEMPLATES = ("a photo of a {}.",)


def unit_rows(texts, width=8, seed=0):
    rows = np.random.default_rng(seed).normal(size=(len(texts), width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return dict(zip(texts, rows.astype(np.float32), strict=True))


@pytest.fixture(autouse=True)
def _no_silent_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def filled(folder):
    cache = EmbeddingCache(folder)
    rows = unit_rows(["cat", "dog", "ŝofo ☃"])
    cache.store("a", TEMPLATES, rows)
    return cache, rows


def same(found, rows):
    return found.keys() == rows.keys() and all(np.array_equal(found[text], rows[text]) for text in rows)


def test_what_is_stored_comes_back(tmp_path):
    cache, rows = filled(tmp_path)
    assert same(EmbeddingCache(tmp_path).load("a", TEMPLATES, [*rows, "mouse"], 8), rows)
    cache.store("a", TEMPLATES, unit_rows(["cat"], seed=1))
    assert same(cache.load("a", TEMPLATES, ["cat"], 8), unit_rows(["cat"], seed=1))


def test_keys_are_encoder_templates_and_text(tmp_path):
    cache, rows = filled(tmp_path)
    assert cache.load("b", TEMPLATES, rows, 8) == {}
    assert cache.load("a", ("{}",), rows, 8) == {}
    assert cache.load("a", TEMPLATES, ["Cat"], 8) == {}
    assert not cache.path("b").exists()


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("DEOP_CACHE", str(tmp_path / "own"))
    assert default_cache_folder() == tmp_path / "own"
    monkeypatch.delenv("DEOP_CACHE")
    assert EmbeddingCache().folder == tmp_path / "xdg" / "deop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "deop"


@pytest.mark.parametrize("value", ["off", "0", ""])
def test_it_can_be_switched_off(monkeypatch, tmp_path, value):
    monkeypatch.setenv("DEOP_CACHE", value)
    monkeypatch.chdir(tmp_path)
    cache, rows = filled(None)
    assert cache.load("a", TEMPLATES, rows, 8) == {}
    assert not list(tmp_path.iterdir())


def spoil_header(path):
    path.write_bytes(b"this is no database" * 400)


def spoil_end(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_pages(path):
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes([255]) * (len(content) - 4096))


def spoil_everything(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_header, spoil_end, spoil_pages])
def test_a_damaged_file_is_built_again(tmp_path, spoil):
    cache, rows = filled(tmp_path)
    spoil(cache.path("a"))
    with pytest.warns(CacheWarning, match="built again"):
        assert cache.load("a", TEMPLATES, rows, 8) == {}
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


@pytest.mark.parametrize("spoil", [spoil_header, spoil_end, spoil_pages])
def test_a_damaged_file_is_built_again_by_writing(tmp_path, spoil):
    cache, rows = filled(tmp_path)
    spoil(cache.path("a"))
    with pytest.warns(CacheWarning, match="built again"):
        cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


def test_an_emptied_file_is_as_good_as_none(tmp_path):
    cache, rows = filled(tmp_path)
    spoil_everything(cache.path("a"))
    assert cache.load("a", TEMPLATES, rows, 8) == {}
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


@pytest.mark.parametrize(
    "row", [b"short", "text", None, np.full(8, np.nan, "<f4").tobytes(), np.ones(8, "<f4").tobytes()]
)
def test_a_damaged_row_is_left_out(tmp_path, row):
    cache, rows = filled(tmp_path)
    with sqlite3.connect(cache.path("a")) as connection:
        connection.execute("UPDATE texts SET row = ? WHERE text = 'dog'", [row])
    connection.close()
    with pytest.warns(CacheWarning, match="1 damaged rows"):
        assert cache.load("a", TEMPLATES, rows, 8).keys() == rows.keys() - {"dog"}
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


def test_a_foreign_database_is_left_alone(tmp_path):
    cache, rows = filled(tmp_path)
    path = cache.path("a")
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE texts (precious TEXT)")
    connection.close()
    content = path.read_bytes()
    for use in (lambda: cache.load("a", TEMPLATES, rows, 8), lambda: cache.store("a", TEMPLATES, rows)):
        with pytest.warns(CacheWarning, match="cannot use the cache"):
            assert not use()
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(CacheWarning, match="DEOP_CACHE=off goes without"):
        EmbeddingCache(tmp_path / "file").store("a", TEMPLATES, unit_rows(["cat"]))


def test_a_folder_that_cannot_be_looked_into_is_no_error(tmp_path, monkeypatch):
    cache, rows = filled(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.warns(CacheWarning, match="Permission denied"):
        assert cache.load("a", TEMPLATES, rows, 8) == {}


def test_ten_thousand_names_come_back_quickly(tmp_path):
    cache, rows = EmbeddingCache(tmp_path), unit_rows([f"name {index}" for index in range(10_000)], 512)
    cache.store("a", TEMPLATES, rows)
    fastest = min(timed(lambda: cache.load("a", TEMPLATES, rows, 512)) for _ in range(3))
    assert same(cache.load("a", TEMPLATES, rows, 512), rows)
    assert fastest < 1.0  # about 0.05 s on an idle machine


def timed(do):
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


WRITER = """
import sys
import numpy as np
from deop.text.embedding_cache import EmbeddingCache
folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
cache = EmbeddingCache(folder)
print("ready", flush=True)
for index in range(count):
    row = np.zeros(512, np.float32)
    row[index % 512] = 1
    cache.store("a", ("{}",), {f"{name} {index} {part}": row for part in range(50)})
    cache.load("a", ("{}",), [f"other {index}"], 512)
"""


def write_elsewhere(folder, name, count):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, str(folder), name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_write_at_once(tmp_path):
    writers = [write_elsewhere(tmp_path, name, 20) for name in ("one", "two", "three")]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    texts = [f"{name} {index} {part}" for name in ("one", "two", "three") for index in range(20) for part in range(50)]
    assert len(EmbeddingCache(tmp_path).load("a", ("{}",), texts, 512)) == len(texts)


def test_a_killed_writer_leaves_whole_steps(tmp_path):
    cache = EmbeddingCache(tmp_path)
    for attempt in range(4):
        writer = write_elsewhere(tmp_path, f"run{attempt}", 100_000)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.15 + 0.05 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        texts = [f"run{attempt} {index} {part}" for index in range(500) for part in range(50)]
        found = cache.load("a", ("{}",), texts, 512)
        assert found
        assert len(found) % 50 == 0
        assert {f"run{attempt} {index} 0" for index in range(len(found) // 50)} <= found.keys()
    cache.store("a", ("{}",), unit_rows(["cat"], 512))
    assert same(cache.load("a", ("{}",), ["cat"], 512), unit_rows(["cat"], 512))

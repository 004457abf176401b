"""The cache of text embeddings: stored rows can be loaded, and no problem with the file is an error."""

import os
import sqlite3
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from deop.text import embedding_cache
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


def same(loaded, rows):
    return loaded.keys() == rows.keys() and all(np.array_equal(loaded[text], rows[text]) for text in rows)


def test_stored_rows_can_be_loaded(tmp_path):
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


def test_the_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("DEOP_CACHE", str(tmp_path / "deop"))
    assert default_cache_folder() == tmp_path / "deop"
    monkeypatch.delenv("DEOP_CACHE")
    assert EmbeddingCache().folder == tmp_path / "xdg" / "deop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "deop"


@pytest.mark.parametrize("value", ["off", "0", ""])
def test_the_cache_can_be_switched_off(monkeypatch, tmp_path, value):
    monkeypatch.setenv("DEOP_CACHE", value)
    monkeypatch.chdir(tmp_path)
    cache, rows = filled(None)
    assert cache.load("a", TEMPLATES, rows, 8) == {}
    assert not list(tmp_path.iterdir())


def damage_header(path):
    path.write_bytes(b"this is not a database" * 400)


def damage_end(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_pages(path):
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes([255]) * (len(content) - 4096))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_header, damage_end, damage_pages])
def test_a_damaged_file_is_rebuilt_on_load(tmp_path, damage):
    cache, rows = filled(tmp_path)
    damage(cache.path("a"))
    with pytest.warns(CacheWarning, match="rebuilt"):
        assert cache.load("a", TEMPLATES, rows, 8) == {}
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


@pytest.mark.parametrize("damage", [damage_header, damage_end, damage_pages])
def test_a_damaged_file_is_rebuilt_on_store(tmp_path, damage):
    cache, rows = filled(tmp_path)
    damage(cache.path("a"))
    with pytest.warns(CacheWarning, match="rebuilt"):
        cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


def test_an_empty_file_is_like_a_missing_one(tmp_path):
    cache, rows = filled(tmp_path)
    empty(cache.path("a"))
    assert cache.load("a", TEMPLATES, rows, 8) == {}
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


@pytest.mark.parametrize(
    "row", [b"short", "text", None, np.full(8, np.nan, "<f4").tobytes(), np.ones(8, "<f4").tobytes()]
)
def test_a_damaged_row_is_skipped(tmp_path, row):
    cache, rows = filled(tmp_path)
    with sqlite3.connect(cache.path("a")) as connection:
        connection.execute("UPDATE texts SET row = ? WHERE text = 'dog'", [row])
    connection.close()
    with pytest.warns(CacheWarning, match="1 damaged rows"):
        assert cache.load("a", TEMPLATES, rows, 8).keys() == rows.keys() - {"dog"}
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


def test_a_database_of_another_program_is_kept(tmp_path):
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


def test_a_folder_that_cannot_be_created_is_not_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(CacheWarning, match="DEOP_CACHE=off to work without"):
        EmbeddingCache(tmp_path / "file").store("a", TEMPLATES, unit_rows(["cat"]))


def test_a_folder_without_permission_is_not_an_error(tmp_path, monkeypatch):
    cache, rows = filled(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.warns(CacheWarning, match="Permission denied"):
        assert cache.load("a", TEMPLATES, rows, 8) == {}


def test_ten_thousand_names_are_loaded_with_few_queries(tmp_path, monkeypatch):
    cache, rows = EmbeddingCache(tmp_path), unit_rows([f"name {index}" for index in range(10_000)], 512)
    cache.store("a", TEMPLATES, rows)
    statements = []

    def connect(*arguments, **options):
        connection = sqlite3_connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    sqlite3_connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    assert same(cache.load("a", TEMPLATES, rows, 512), rows)
    assert len(statements) <= 20
    plan = sqlite3_connect(cache.path("a")).execute(
        "EXPLAIN QUERY PLAN SELECT row FROM texts WHERE templates = ? AND text IN (?)", ["", ""]
    )
    assert "USING INDEX" in plan.fetchone()[-1]  # no scan of all rows


HOLDER = """
import sys
from pathlib import Path
from deop.text.embedding_cache import EmbeddingCache

def hold(connection):
    print("holding", flush=True)
    sys.stdin.readline()

EmbeddingCache(sys.argv[1])._with_file(Path(sys.argv[2]), hold)
print("released", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows itself does not remove open files")
@pytest.mark.parametrize("method", ["load", "store"])
def test_a_damaged_file_is_not_removed_while_another_process_uses_it(tmp_path, method):
    cache, rows = filled(tmp_path)
    path = cache.path("a")
    use = {
        "load": lambda: cache.load("a", TEMPLATES, rows, 8),
        "store": lambda: cache.store("a", TEMPLATES, rows),
    }[method]
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "holding\n"
        damage_header(path)
        inode, content = path.stat().st_ino, path.read_bytes()
        with pytest.warns(CacheWarning, match="another process uses it"):
            assert not use()
        assert (path.stat().st_ino, path.read_bytes()) == (inode, content)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "released\n"
    with pytest.warns(CacheWarning, match="rebuilt"):
        use()
    cache.store("a", TEMPLATES, rows)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


def test_a_file_that_another_process_has_rebuilt_is_used(tmp_path, monkeypatch):
    cache, rows = filled(tmp_path)
    path, lock = cache.path("a"), embedding_cache._lock
    intact = path.read_bytes()
    damage_header(path)

    @contextmanager
    def rebuilt_before(path, *, alone):
        if alone:
            path.write_bytes(intact)
        with lock(path, alone=alone) as locked:
            yield locked

    monkeypatch.setattr(embedding_cache, "_lock", rebuilt_before)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)


def test_a_cache_in_a_read_only_folder_can_be_read(tmp_path, monkeypatch):
    cache, rows = filled(tmp_path)
    (cache.path("a").parent / "a.sqlite.lock").unlink(missing_ok=True)
    opened = os.open

    def refuse(path, flags, *rest, **options):
        if str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert same(cache.load("a", TEMPLATES, rows, 8), rows)
    damage_header(cache.path("a"))
    with pytest.warns(CacheWarning, match="its folder is read-only"):
        assert cache.load("a", TEMPLATES, rows, 8) == {}
    assert cache.path("a").exists()


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
    print("stored", flush=True)
"""


def start_writer(folder, name, count):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, str(folder), name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_can_write(tmp_path):
    writers = [start_writer(tmp_path, name, 20) for name in ("one", "two", "three")]
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors
    texts = [f"{name} {index} {part}" for name in ("one", "two", "three") for index in range(20) for part in range(50)]
    assert len(EmbeddingCache(tmp_path).load("a", ("{}",), texts, 512)) == len(texts)


def test_a_killed_writer_leaves_complete_steps(tmp_path):
    cache = EmbeddingCache(tmp_path)
    for attempt in range(4):
        writer = start_writer(tmp_path, f"run{attempt}", 100_000)
        assert writer.stdout.readline() == "ready\n"
        for _ in range(5 + attempt):
            assert writer.stdout.readline() == "stored\n"
        writer.kill()
        more = writer.communicate()[0].count("stored\n")
        texts = [f"run{attempt} {index} {part}" for index in range(5 + attempt + more + 2) for part in range(50)]
        loaded = cache.load("a", ("{}",), texts, 512)
        assert len(loaded) >= 50 * (5 + attempt)
        assert len(loaded) % 50 == 0
        assert {f"run{attempt} {index} 0" for index in range(len(loaded) // 50)} <= loaded.keys()
    cache.store("a", ("{}",), unit_rows(["cat"], 512))
    assert same(cache.load("a", ("{}",), ["cat"], 512), unit_rows(["cat"], 512))

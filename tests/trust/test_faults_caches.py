"""The cache of text embeddings, and the lease of a batch: a full disk, a read-only folder, clocks that jump."""

import json
import os
import shutil
import subprocess
import warnings
from datetime import datetime

import numpy as np
import pytest

from deop.text.embedding_cache import CacheWarning, EmbeddingCache

TEMPLATES = ("a photo of a {}.",)


@pytest.fixture
def disk(tmp_path):
    """A file system in memory, of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def rows(count, start=0):
    random = np.random.default_rng(start)
    values = random.normal(size=(count, 512)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return {f"name {start + number}": value for number, value in enumerate(values)}


def test_a_full_disk_costs_the_cache_alone(disk):
    """What was stored is kept, what does not fit is not there in part, and the cache works again with room."""
    cache, few, many = EmbeddingCache(disk / "cache"), rows(100), rows(5000, start=1000)
    cache.store("a", TEMPLATES, few)
    with pytest.warns(CacheWarning, match="disk is full"):
        cache.store("a", TEMPLATES, many)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.load("a", TEMPLATES, [*few, *many], 512).keys() == few.keys()
    (disk / "filling").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - 4096)))
    with pytest.warns(CacheWarning, match="disk is full"):
        cache.store("a", TEMPLATES, rows(50, start=500))
    with pytest.warns(CacheWarning):
        EmbeddingCache(disk / "other").store("a", TEMPLATES, few)
    (disk / "filling").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store("a", TEMPLATES, rows(50, start=500))
        assert len(cache.load("a", TEMPLATES, [*few, *rows(50, start=500)], 512)) == 150


def test_a_read_only_folder_can_be_read(disk):
    cache, few = EmbeddingCache(disk / "cache"), rows(10)
    cache.store("a", TEMPLATES, few)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    loaded = cache.load("a", TEMPLATES, few, 512)
    assert all(np.array_equal(loaded[name], row) for name, row in few.items())
    with pytest.warns(CacheWarning, match="cannot use the cache"):
        cache.store("a", TEMPLATES, rows(1, start=50))
    with pytest.warns(CacheWarning, match="Read-only file system"):
        EmbeddingCache(disk / "other").store("a", TEMPLATES, few)


@pytest.mark.parametrize("moment", [0, 4_000_000_000])
def test_files_of_another_time_are_used(tmp_path, moment):
    cache, few = EmbeddingCache(tmp_path), rows(10)
    cache.store("a", TEMPLATES, few)
    os.utime(cache.path("a"), (moment, moment))
    assert cache.load("a", TEMPLATES, few, 512).keys() == few.keys()


@pytest.mark.parametrize("renewed", ["1970-01-01T00:00:00.000+00:00", "2999-01-01T00:00:00.000+00:00", "", None])
def test_a_lease_does_not_depend_on_the_time_of_day(monkeypatch, renewed):
    """Whether another batch runs is seen from its renewals and not from the times that it writes."""
    lease = pytest.importorskip("deop.batch.lease")
    monkeypatch.setattr(lease, "RENEWAL", 0.1)
    monkeypatch.setattr(lease, "PATIENCE", 0.6)
    monkeypatch.setattr(lease, "SETTLING", 0.05)
    monkeypatch.setattr(lease, "_WATCH", 0.05)
    from deop.errors import SettingError

    content = {}

    def write(value):
        content["lease"] = value

    def new():
        return lease.Lease("the output", read=lambda: content.get("lease"), write=write, remove=content.clear)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(renewed) if renewed else cls.max

    dead = {"key": "a", "host": "elsewhere", "process": 1, "machine": "another", "renewed": renewed}
    write(json.dumps(dead).encode())
    first = new()
    with pytest.warns(UserWarning, match="process 1 on elsewhere"):
        first.take()
    monkeypatch.setattr(lease, "datetime", Clock)
    second = new()
    with pytest.raises(SettingError, match="is writing"), pytest.warns(UserWarning, match="waiting up to"):
        second.take()
    first.check()
    first.give_back()
    assert "lease" not in content

"""``deop batch``: options, messages and exit codes. tests/batch tests what it does."""

import json

import pytest

from tests.cli.conftest import write_photo

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq


@pytest.fixture
def photos(here):
    for number in range(3):
        write_photo(here / "photos" / f"{number}.png", seed=number)
    return here / "photos"


def test_photos_become_rows_and_failures_are_counted_by_kind(deop, here, photos):
    (photos / "empty.jpg").touch()
    result = deop("batch", photos, here / "out", "-c", "cat, wall", "--workers", 1, "--masks", "both")
    assert result.code == 1
    assert "4 photos in 1 file: " in result.err
    assert "failed: 1 with ImageError\n  " in result.err
    assert f"{photos / 'empty.jpg'}" in result.err
    assert "--retry-failed tries them again" in result.err
    rows = pq.read_table(here / "out" / "part-000000.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png", "empty.jpg"]
    assert rows[0]["model"] == "nano"
    assert rows[0]["labels"].startswith(b"\x89PNG")
    again = deop("batch", photos, here / "out", "-c", "cat, wall", "--masks", "both")
    assert "1 file finished before" in again.err
    other = deop("batch", photos, here / "out", "-c", "dog", "--masks", "both")
    assert other.code == 2
    assert '\n  names: [["cat"], ["wall"]], now [["dog"]]\nRepeat' in other.err
    (photos / "empty.jpg").unlink()
    write_photo(photos / "empty.jpg")
    retried = deop("batch", photos, here / "out", "-c", "cat, wall", "--masks", "both", "--retry-failed")
    assert retried.code == 0
    assert "4 photos in 1 file: " in retried.err
    assert "; 1 now" in retried.err


def test_dry_run_writes_nothing(deop, here, photos):
    result = deop("batch", photos, here / "out", "-c", "cat", "--dry-run", "--limit", 2, "--workers", 2)
    assert result.code == 0
    assert result.out.splitlines() == [
        str(photos / "0.png"), str(photos / "1.png"), "2 photos in 1 shard, 2 workers",
        f"nothing is written to {here / 'out'}",
    ]  # fmt: skip
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "no class names"),
        (("-c", "cat, cat"), "cat"),
        (("-c", "cat", "--threshold", "2"), "threshold"),
        (("-c", "cat", "--classes-file", "-"), "must be repeatable"),
        (("-c", "cat", "--workers", "0"), "--workers"),
        (("-c", "cat", "--windows", "336"), "SIZE:STRIDE"),
        (("-c", "cat", "--prior", "2"), "--prior"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(deop, here, photos, arguments, text):
    result = deop("batch", photos, here / "out", *arguments)
    assert result.code == 2
    assert text in result.err
    assert not (here / "out").exists()


def test_a_model_that_does_not_exist_is_an_error(deop, here, photos):
    result = deop("batch", photos, here / "out", "-c", "cat", "--model", "nothing-like-it", "--workers", 1)
    assert result.code == 4
    assert "nothing-like-it" in result.err
    assert not (here / "out").exists()


def test_input_that_does_not_exist_is_an_error(deop, here):
    result = deop("batch", here / "absent", here / "out", "-c", "cat", "--workers", 1)
    assert result.code == 1
    assert "absent does not exist" in result.err
    assert not (here / "out").exists()


@pytest.mark.slow
def test_settings_of_the_method_reach_the_workers(deop, here, photos):
    """The rows are those of `deop segment` with the same options."""
    pytest.importorskip("torch")
    options = ("-c", "cat, wall", "--partition", "score", "--smallest-region", 0.2)
    assert deop("batch", photos, here / "out", *options, "--workers", 1).code == 0
    rows = pq.read_table(here / "out" / "part-000000.parquet").to_pylist()
    for row in rows:
        shown = deop("segment", row["path"], *options, "--json", "-")
        segments = json.loads(shown.out)["segments"]
        assert [(one["name"], one["area"]) for one in segments] == [(s["name"], s["area"]) for s in row["segments"]]
    refused = deop("batch", photos, here / "out", "-c", "cat, wall", "--smallest-region", 0.2, "--runtime", "torch")
    assert 'partition (of the model): "score", now "none"' in refused.err
    refused = deop("batch", photos, here / "new", *options, "--runtime", "onnx", "--workers", 1)
    assert "exported with partition 'none'" in refused.err
    refused = deop("batch", photos, here / "new", "-c", "cat, wall", "--prior", 0.5, "--workers", 1)
    assert refused.code == 2
    assert "prior" in refused.err

"""``deop batch``: options, messages and exit codes. tests/batch tests what it does."""

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

"""The command ``deop bench``."""

import json

import pytest


@pytest.mark.slow
def test_the_command(deop, tmp_path):
    done = deop("bench", "start", "--quick", "--repeats", 3, "--json", tmp_path / "results.json")
    assert done.code == 0, done.err
    results = json.loads(done.out.splitlines()[-1])
    assert results == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row for row in results["parts"]["start"]["rows"]}
    assert all(rows[label]["p50"] > rows["python"]["p50"] for label in rows if label != "python")


def test_wrong_usage(deop):
    assert deop("bench", "everything").code == 2
    wrong = deop("bench", "machine", "--dtype", "float8")
    assert wrong.code == 2
    assert "unknown dtype" in wrong.err

"""The command ``deop bench``."""

import json

import pytest

from deop.bench import SHORT, Topic


@pytest.mark.slow
def test_the_command(deop, tmp_path):
    done = deop("bench", "start", "--quick", "--repeats", 3, "--json", tmp_path / "results.json")
    assert done.code == 0, done.err
    results = json.loads(done.out.splitlines()[-1])
    assert results == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row for row in results["parts"]["start"]["rows"]}
    assert all(rows[label]["p50"] > rows["python"]["p50"] for label in rows if label != "python")


def test_topics_that_are_measured(deop, monkeypatch):
    """Without topics the short form with B/16; topics and --all are measured in full."""
    requests = []

    def run(options, topics):
        requests.append((options.short, options.towers, len(topics)))
        return "{}"

    monkeypatch.setattr("deop.bench.run.run", run)
    for arguments in ((), ("--all",), ("machine", "stages"), ("--tower", "L/14")):
        done = deop("bench", *arguments)
        assert (done.code, done.out.splitlines()[-1]) == (0, "{}")
    both = ("B/16", "L/14")
    assert requests == [
        (True, ("B/16",), len(SHORT)), (False, both, len(Topic)), (False, both, 2), (True, ("L/14",), len(SHORT)),
    ]  # fmt: skip


def test_wrong_usage(deop):
    assert "omit the list" in deop("bench", "machine", "--all").err
    assert deop("bench", "everything").code == 2
    wrong = deop("bench", "machine", "--dtype", "float8")
    assert wrong.code == 2
    assert "unknown dtype" in wrong.err

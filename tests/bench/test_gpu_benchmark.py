"""The GPU benchmark runs on a CPU with tiny models; its figures are not checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
PARTS = ("encoder", "pass", "waits", "two-stream", "kernels", "transfers", "package", "large", "nano", "proposer")


def run(*arguments):
    command = [sys.executable, FILE, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)


@pytest.mark.slow
def test_every_part_but_the_compiled_one(tmp_path):
    result = run(*PARTS, "--tiny", "--device", "cpu", "--dtype", "float32", "--json", tmp_path / "gpu.json")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(report["parts"]) == ["peak", *PARTS]
    for key, part in report["parts"].items():
        assert part["rows"], key
        assert "error" not in part, part["trace"]
        assert all(row["cosine"] > 0.999 for row in part["rows"] if "cosine" in row), key
    assert not report["skipped"]
    assert report["environment"]["dtype"] == "float32"
    assert [goal["reached"] for goal in report["goals"]] == [None] * 5
    assert "NOT MEASURED  B/16 at batch 32, images per second: at least 250" in result.stdout


@pytest.mark.slow
def test_unknown_parts_are_rejected():
    result = run("passes", "--tiny", "--device", "cpu")
    assert result.returncode == 2
    assert "unknown parts passes: choose from peak, encoder, pass" in result.stderr

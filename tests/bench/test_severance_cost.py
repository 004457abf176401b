"""The benchmark of severances, and the bound of their memory."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "severance_cost.py"


def run(*arguments):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("cases", ["severances", "windows"])
def test_every_case_has_a_line(cases):
    printed = run("time", "--repeats", 1, "--sizes", "64,96", "--masks", 3, "--cases", cases)
    lines = [line for line in printed.splitlines() if line]
    assert [line.split(",")[0] for line in lines if "turns" in line] == ["64 x 64", "96 x 96"]
    assert len(lines) == 2 * (len(lines) // 2) > 12
    assert all("1.000 (1.000 to 1.000)" in line for line in lines if line.startswith("none"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="units of the peak memory differ")
def test_memory_at_1024_pixels_and_patches_of_14():
    """Attention weights of all 5,476 x 5,476 pairs in 16 heads would take 1,830 MiB; 2^24 numbers take 64."""
    severances = ("none", "region:similarity=k:residual=0:mlp=no", "region:similarity=qk:residual=0:mlp=no", "naclip")
    none, *others = (int(run("peak", "severances", name, 1024, 100, "l14")) / 1024 for name in severances)
    assert max(others) - none < 256

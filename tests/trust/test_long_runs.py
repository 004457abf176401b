"""Many photos of mixed size, one after the other: memory, open files and threads stay flat, and the answer is the same.

DEOP_LONG_RUN=2000 runs as many photos as the figures in docs/promises.md.
"""

import json
import os
import subprocess
import sys

import pytest
from benchmarks.process_watch import Sample, growth

from tests.trust.forked import ROOT

PHOTOS = int(os.environ.get("DEOP_LONG_RUN", "100"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no GPU")  # /proc
@pytest.mark.parametrize("way", ["stream", "server", "batch"])
def test_memory_files_and_threads_are_flat(tmp_path, way):
    pytest.importorskip({"stream": "onnxruntime", "server": "fastapi", "batch": "pyarrow"}[way])
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.long_runs", way, "--photos", str(PHOTOS), "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1", "DEOP_CACHE": "off"}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    report = json.loads(file.read_text())[way]
    assert report["last_answer_equals_the_first"]
    assert abs(report["files"]["change"]) <= 3
    assert abs(report["threads"]["change"]) <= 1
    # The arena of ONNX Runtime grows with the largest photos of a run; a leak of one photo each would be far more.
    assert report["megabytes"]["change"] < max(40, 0.1 * report["megabytes"]["most"])


def test_growth_is_found():
    """A line of 3 MB and one file per photo, and a flat one."""
    rising = [Sample(second, 2 * second, 100 + 6 * second, 10 + 2 * second, 4, 1) for second in range(40)]
    report = growth(rising, per="done", unit=1000)
    assert report["megabytes"]["slope"] == pytest.approx(3000)
    assert report["files"]["slope"] == pytest.approx(1000)
    assert report["files"]["change"] == 40
    assert report["threads"]["slope"] == pytest.approx(0)
    per_hour = growth(rising, per="seconds", unit=3600)
    assert per_hour["megabytes"]["slope"] == pytest.approx(6 * 3600)

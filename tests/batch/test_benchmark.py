"""The benchmark of batches ends with an error when one of its processes does."""

import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from benchmarks.batch import pure_rate

from deop.errors import ImageError

pytestmark = pytest.mark.slow


def test_an_error_of_a_process_is_raised(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        pure_rate([str(tmp_path / "missing.jpg")], 2)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_process_that_is_killed_is_an_error(tmp_path):
    """The photo is a pipe that nobody writes, so that the processes wait for it."""
    os.mkfifo(tmp_path / "photo.jpg")

    def kill_one():
        while True:
            for name in Path("/proc").glob("[0-9]*/stat"):
                fields = name.read_text().rpartition(")")[2].split() if name.exists() else []
                command = name.with_name("cmdline").read_bytes() if name.exists() else b""
                if len(fields) > 1 and int(fields[1]) == os.getpid() and b"spawn_main" in command:
                    os.kill(int(name.parent.name), signal.SIGKILL)
                    return
            time.sleep(0.1)

    threading.Thread(target=kill_one, daemon=True).start()
    with pytest.raises(BrokenProcessPool):
        pure_rate([str(tmp_path / "photo.jpg")], 2)

"""A worker process with a model of known answers, and photos that crash it or hang, by their names.

A folder in DEOP_TEST_TRIES counts how often each photo was read.
"""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from deop.batch import worker  # noqa: E402
from tests.tiles.colour_model import ColourModel  # noqa: E402

_read = worker.read


class Model(ColourModel):
    engine, precision, needs_masks = "fake", "float32", False


def load(name, count=4, seconds=0.0):
    return Model(count, seconds=seconds)


def read(path, data):
    if folder := os.environ.get("DEOP_TEST_TRIES"):
        (Path(folder) / f"{Path(path).name}.{uuid.uuid4().hex}").touch()
    if "crash" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in path:
        time.sleep(1000)
    return _read(path, data)


worker.read = read

if __name__ == "__main__":
    worker.main()

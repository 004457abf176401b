"""Reading photos, names, results and the surface of ``deop.batch`` work where torch is not installed."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["torch"] = None  # every import of torch raises ImportError

import pkgutil
import numpy as np
import deop.batch, deop.errors, deop.images, deop.results, deop.text
from importlib import import_module

for package in (deop.batch, deop.images, deop.results):
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
for module in ("calibration", "embedding_cache", "templates", "things", "vocabulary"):
    import_module(f"deop.text.{module}")

photo = deop.images.read_photo(np.zeros((20, 30), np.uint8))
vocabulary = deop.text.Vocabulary.parse("cat, sky")
result = deop.Segmentation.from_semantic(photo, vocabulary.names, np.zeros((20, 30), int), isthing=vocabulary.things)
assert result.save(sys.argv[1] + "/a.png", alpha=0.5).exists()
assert deop.Segmentation.load(result.save(sys.argv[1] + "/a.npz")).names == ("cat", "sky")
result.save_labels(sys.argv[1] + "/b.png")
assert deop.results.read_labels(sys.argv[1] + "/b.png")[1] == ["cat", "sky"]
assert list(deop.batch.write_behind(iter([result]), lambda number, result: None)) == [result]
"""


def test_without_torch(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr

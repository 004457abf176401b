"""Same photo, same names, same answer: in another process, with other threads, batches, engines and precisions.

``benchmarks/same_answer.py`` prints the table of all example photos; the tolerances are those of docs/promises.md.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import deop
from tests.golden.cases import photo

ENGINES = pytest.mark.parametrize("engine", ["onnx", "torch"])
IMAGES = [photo(name, side) for name, side in (("coffee.jpg", 192), ("pagoda.jpg", 192), ("coffee.jpg", 160))]
NAMES = "cup, table, sky, tree, lake"

SCRIPT = """
import hashlib, sys
from tests.trust.test_numbers import answers
print(hashlib.sha256(b"".join(array.tobytes() for array in answers(sys.argv[1]))).hexdigest())
"""


def answers(engine, dtype="float32", threads=1, together=False):
    """For each image its label map, and then its scores (N, K + 1)."""
    model = deop.load("nano", engine=engine, device="cpu", dtype=dtype, threads=threads)
    model.cache = None
    parts = [IMAGES] if together else [[image] for image in IMAGES]
    encoded = [one for part in parts for one in model.encode(part)]
    labels = [model.label(one, NAMES).label_map for one in encoded]
    return labels + [np.asarray(model.class_probabilities(one, NAMES)) for one in encoded]


@pytest.fixture(scope="module")
def reference():
    """The answers of both engines in float32, with one thread, photo by photo."""
    threads = torch.get_num_threads()
    yield {engine: answers(engine) for engine in ("onnx", "torch")}
    torch.set_num_threads(threads)


def check(actual, expected, share, scores):
    """Compare labels, and scores where both have the same masks."""
    count = len(IMAGES)
    equal = [one == other for one, other in zip(actual[:count], expected[:count], strict=True)]
    assert sum(part.sum() for part in equal) >= share * sum(part.size for part in equal)
    for one, other in zip(actual[count:], expected[count:], strict=True):
        if one.shape == other.shape:
            assert np.abs(one - other).mean() <= scores


@ENGINES
def test_another_process_gives_the_same_bytes(engine):
    digests = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, engine], env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        digests.add(run.stdout)
    assert len(digests) == 1
    assert len(digests.pop()) == 65


@ENGINES
@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_does_not_matter(engine, threads, reference):
    check(answers(engine, threads=threads), reference[engine], 0.999, 1e-4)


@ENGINES
def test_the_size_of_the_batch_does_not_matter(engine, reference):
    """Three photos, two of which have one size."""
    check(answers(engine, together=True), reference[engine], 1 if engine == "onnx" else 0.999, 1e-4)


def test_the_engine_does_not_matter(reference):
    check(reference["onnx"], reference["torch"], 0.999, 1e-4)


@pytest.mark.parametrize(
    ("engine", "dtype", "share"),
    [("onnx", "int8", 0.98), ("torch", "int8", 0.98), ("torch", "float16", 0.99), ("torch", "bfloat16", 0.96)],
)
@pytest.mark.filterwarnings("ignore")
def test_other_precisions_agree_in_labels(engine, dtype, share, reference):
    check(answers(engine, dtype=dtype), reference["torch"], share, 0.02)

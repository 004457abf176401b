"""Every model answers as it did when its golden file was written, here and with the kernels of other processors."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.golden import cases as golden
from tests.golden.cases import ROOT, Answer, cases
from tests.golden.files import FOLDER, compare, file_of, read, to_json
from tests.golden.tolerances import fits, tolerance

CASES = cases()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_the_answer_is_the_stored_one(name):
    difference = compare(read(name), CASES[name]())
    assert fits(name, difference), (
        f"{difference}, allowed {tolerance(name)}: if a change should change answers, "
        'python -m tests.golden --write "which change, and why"'
    )


def test_every_case_has_a_file_and_every_file_a_case():
    assert {path.stem for path in FOLDER.iterdir()} == cases().keys()


def test_the_files_are_small_and_say_why_they_were_written():
    files = list(FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) < 100_000
    for path in files:
        assert path.stat().st_size < 8_000, path.name
        assert len(json.loads(path.read_text(encoding="utf-8"))["reason"].split()) >= 3


@pytest.mark.slow
def test_kernels_of_older_processors():
    """As on a processor with SSE 4.1 alone, as far as the libraries let one choose."""
    pytest.importorskip("torch")
    kernels = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.golden"], cwd=ROOT, env=os.environ | kernels, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]


class TestComparison:
    """What the comparison notices."""

    STORED = Answer({"a": np.array([[0, 1], [2, -1]])}, {"x": np.array([0.5, -2.0]), "y": np.array([[1e-7]])})

    def write(self, tmp_path, monkeypatch, answer):
        monkeypatch.setattr("tests.golden.files.FOLDER", tmp_path)
        file_of("case").write_text(to_json(answer, "a reason in words"), encoding="utf-8")
        return read("case")

    def test_a_file_gives_its_answer_back(self, tmp_path, monkeypatch):
        stored = self.write(tmp_path, monkeypatch, self.STORED)
        difference = compare(stored, self.STORED)
        assert (difference.equal, difference.largest, difference.form) == (1, 0, "")

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"labels": {"a": np.array([[0, 1], [2, 2]])}}, "equal=0.75"),
            ({"values": {**STORED.values, "x": np.array([0.5, -2.1])}}, "where='x'"),
            ({"values": {**STORED.values, "x": np.array([0.5, np.nan])}}, "not finite"),
            ({"values": {**STORED.values, "x": np.array([0.5])}}, "stored"),
            ({"values": {"x": STORED.values["x"]}}, "stored"),
            ({"labels": {}}, "stored"),
        ],
        ids=str,
    )
    def test_a_change_is_noticed(self, change, expected, tmp_path, monkeypatch):
        stored = self.write(tmp_path, monkeypatch, self.STORED)
        difference = compare(stored, replace(self.STORED, **change))
        assert expected in str(difference)
        assert not fits("case", difference)


def test_a_change_of_the_weights_is_noticed(monkeypatch):
    """One percent of one kind of parameters: smaller than any change of a method, larger than any tolerance."""
    pytest.importorskip("torch")
    original = golden.weights

    def changed(key, shape):
        return original(key, shape) * np.float32(1.01 if "layers.1" in key and len(shape) == 2 else 1)

    monkeypatch.setattr(golden, "weights", changed)
    assert not fits("clip", compare(read("clip"), CASES["clip"]()))

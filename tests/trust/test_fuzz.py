"""The targets of the package fuzz: their seeds keep the contract, and what breaks it is found, kept and repeatable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import __main__ as command
from fuzz import target, targets
from fuzz.target import LONGEST_INPUT, BrokenContract, Target, check, place_of, save

ROOT = Path(__file__).parents[2]
pytest.importorskip("fastapi")
pytest.importorskip("onnx")


@pytest.mark.parametrize("name", targets.NAMES)
@pytest.mark.filterwarnings("ignore")
def test_seeds_keep_the_contract(name, tmp_path):
    """Every tenth seed here, all of them whenever the target is fuzzed."""
    chosen = targets.load(name)
    seeds = [seed for seed in chosen.seeds() if len(seed) <= LONGEST_INPUT]
    assert len(set(seeds)) > 1
    for seed in seeds[:: max(1, len(seeds) // 10)]:
        error = check(chosen, seed, tmp_path)
        assert error is None, (seed[:200], error)


def test_every_target_is_listed_once():
    assert len(set(targets.NAMES)) == len(targets.NAMES)
    assert all(targets.load(name).name == name for name in targets.NAMES)


def broken(data, folder):
    """A target with a mistake of each kind."""
    if data == b"error":
        raise ValueError("not one of deop")
    if data == b"message":
        raise BrokenContract("x" * 5000)
    if data == b"slow":
        target.time.process_time()  # the test makes the clock jump


@pytest.mark.parametrize("data", [b"error", b"message", b"slow", b"good"])
def test_each_kind_of_mistake_is_noticed(data, tmp_path, monkeypatch):
    times = iter([0.0, 50.0, 100.0])
    monkeypatch.setattr(target.time, "process_time", lambda: next(times) if data == b"slow" else 0.0)
    error = check(Target("broken", broken, list, (BrokenContract,)), data, tmp_path)
    assert (error is None) == (data == b"good")
    if data == b"error":
        assert "ValueError in test_fuzz.py" in place_of(error)
    if data == b"slow":
        assert "it took 100 seconds" in str(error)


def test_an_input_that_breaks_the_contract_can_be_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "load", lambda name: Target(name, broken, list))
    error = check(Target("broken", broken, list), b"error", tmp_path)
    path = save(b"error", error, tmp_path / "broken")
    assert path.read_bytes() == b"error"
    assert "not one of deop" in path.with_suffix(".txt").read_text()
    assert command.repeat(path) == 1
    assert "not one of deop" in capsys.readouterr().err
    path.write_bytes(b"good")
    assert command.repeat(path) == 0


@pytest.mark.slow
def test_the_command(tmp_path):
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--seconds", "3", "--target", "classes-json", "--folder", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inputs of 1 targets; 0 broke the contract" in done.stdout
    assert int(done.stdout.split("classes-json: ")[1].split(" ")[0].replace(",", "")) > 50

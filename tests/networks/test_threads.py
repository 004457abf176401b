"""The number of threads, and the environment variable that keeps waiting threads from spinning."""

import os
import subprocess
import sys

import pytest
import torch

from deop.errors import SettingError
from deop.networks.threads import limit_spinning, set_threads, threads_for_sessions


def without_settings_of_threads():
    prefixes = ("OMP_", "GOMP_", "KMP_", "OPENBLAS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_variables_of_the_user_are_respected(variable):
    environment = {variable: "1"}
    limit_spinning(environment)
    assert environment == {variable: "1"}


def test_the_command_limits_spinning_before_torch_is_imported():
    """OpenMP reads it when its library is loaded. A stand-in for torch records what it would see."""
    code = (
        "import os, sys, types\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            print('numpy sees', os.environ.get('OPENBLAS_NUM_THREADS'), flush=True)\n"
        "        if name == 'torch':\n"
        "            print('torch sees', os.environ.get('GOMP_SPINCOUNT'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['deop', 'segment', sys.argv[1], '--classes', 'cat', '--engine', 'torch']\n"
        "from deop.__main__ import main\n"
        "main()\n"
    )
    for own, blas, openmp in [
        ({}, "1", "20000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "1", "None"),
        ({"GOMP_SPINCOUNT": "9", "OPENBLAS_NUM_THREADS": "2"}, "2", "9"),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code, "tests/fixtures/photos/images"],
            env=without_settings_of_threads() | own, capture_output=True, encoding="utf-8",
        )  # fmt: skip
        assert done.stdout == f"numpy sees {blas}\ntorch sees {openmp}\n", done.stderr


def test_importing_the_package_leaves_the_environment_alone():
    variables = ["GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS"]
    code = f"import os, deop, deop.zoo, deop.runtime.model; print(*map(os.environ.get, {variables}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_settings_of_threads(),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == "None None\n"


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("2,1", 2), ("0", None), ("many", None), ("", None)])
def test_sessions_use_as_many_threads_as_torch_would(value, expected):
    count = threads_for_sessions({"OMP_NUM_THREADS": value})
    assert count == expected if expected else count in range(os.cpu_count())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux limits a process to some cores")
def test_sessions_use_only_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7})
    assert threads_for_sessions({}) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert threads_for_sessions({}) == 0


def test_set_threads():
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
        set_threads(3)
        assert torch.get_num_threads() == 3
        set_threads(None)
        assert torch.get_num_threads() == 3
        for count in (0, -2):
            with pytest.raises(SettingError, match=f"at least 1 and at most 4096, not {count}"):
                set_threads(count)
    finally:
        torch.set_num_threads(before)


def test_threads_of_a_session_spin_for_a_short_time_only(monkeypatch):
    """ONNX Runtime's own default is a millisecond or more."""
    from deop.runtime.session import session_options

    def entry(name):
        return session_options(2).get_session_config_entry(f"session.intra_op.{name}")

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr("onnxruntime.__version__", "1.32.0")
    assert (entry("allow_spinning"), entry("spin_duration_us")) == ("1", "50")
    monkeypatch.setattr("onnxruntime.__version__", "1.23.2")  # has no limit
    assert entry("allow_spinning") == "0"
    monkeypatch.setattr("onnxruntime.__version__", "1.32.0")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert entry("allow_spinning") == "0"

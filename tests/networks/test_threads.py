"""The number of threads, and the environment variable that keeps waiting threads from spinning."""

import os
import subprocess
import sys

import pytest
import torch

from deop.errors import SettingError
from deop.networks.threads import limit_spinning, set_threads


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
        "        if name == 'torch':\n"
        "            print('torch sees', os.environ.get('GOMP_SPINCOUNT'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['deop', 'segment', sys.argv[1], '--classes', 'cat']\n"
        "from deop.__main__ import main\n"
        "main()\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    for own, expected in [
        ({}, "20000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"GOMP_SPINCOUNT": "9"}, "9"),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code, "tests/fixtures/photos/images"],
            env=environment | own, capture_output=True, encoding="utf-8",
        )  # fmt: skip
        assert done.stdout == f"torch sees {expected}\n", done.stderr


def test_importing_the_package_leaves_the_environment_alone():
    code = "import os, deop, deop.zoo; print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "None\n"


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
            with pytest.raises(SettingError, match=f"at least 1, not {count}"):
                set_threads(count)
    finally:
        torch.set_num_threads(before)

"""What the shell offers after TAB, and how quickly."""

import os
import re
import subprocess
import sys

import pytest

from deop.cli import completion
from deop.zoo import ZOO


def complete(words, cwd, code="from deop.cli import main; main()"):
    """What bash is offered for the last of the words, and the large libraries that were imported."""
    program = (
        f"import atexit, sys\nheavy = ('torch', 'transformers', 'numpy', 'PIL', 'scipy')\n"
        f"atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))\n{code}"
    )
    environment = os.environ | {
        "_DEOP_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=cwd, check=False
    )
    return done.stdout.split(), done.stderr.strip()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["deop", "seg"], {"segment"}),
        (["deop", "segment", "--vocab"], {"--vocabulary"}),
        (["deop", "segment", "a.jpg", "--mode", ""], {"semantic", "panoptic", "instance"}),
        (["deop", "segment", "--style", "o"], {"overlay", "outline"}),
        (["deop", "segment", "--vocabulary", ""], {"coco", "ade20k", "cityscapes", "everyday"}),
        (["deop", "segment", "--severance", "gate"], {"gate", "gate-normalized"}),
        (["deop", "evaluate", "data", "--model", ""], {"nano", *ZOO}),
        (["deop", "segment", "--dtype", "f"], {"float32", "float16"}),
    ],
)
def test_values_are_completed_without_large_libraries(tmp_path, words, offered):
    (tmp_path / "deop.toml").write_text("[broken")  # a mistake in the file does not disturb the shell
    found, messages = complete(words, tmp_path)
    assert set(found) == offered
    assert messages == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(tmp_path, shell):
    command = [sys.executable, "-m", "deop", "--show-completion"]
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([*command, shell], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"_DEOP_COMPLETE", done.stdout)


def test_the_values_are_those_that_the_options_take():
    from deop.encoders.severance import Severance
    from deop.networks.devices import choose_dtype
    from deop.text.templates import parse_templates

    for kind in completion.severances():
        Severance.parse(kind, Severance())
    for name in completion.templates():
        parse_templates(name)
    for name in completion.dtypes():
        if name != "int8":
            choose_dtype(name)

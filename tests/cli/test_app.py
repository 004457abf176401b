import os
import subprocess
import sys
import time

import pytest

from deop import __version__
from deop.errors import ImageError, SettingError


def python(code, cwd):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HELP = """
import sys, time
from deop.cli import main
try:
    main({arguments})
except SystemExit:
    pass
heavy = [name for name in ("torch", "transformers", "numpy", "PIL", "scipy", "huggingface_hub") if name in sys.modules]
print("loaded:", heavy)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["segment", "--help"], ["nonsense"]])
def test_help_imports_nothing_heavy(tmp_path, arguments):
    assert python(HELP.format(arguments=arguments), tmp_path).splitlines()[-1] == "loaded: []"


def test_help_answers_in_half_a_second(tmp_path):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "deop", "--help"], check=True, capture_output=True, cwd=tmp_path)
        times.append(time.perf_counter() - started)
    # The best of five: what is measured is the imports, not what else this machine does.
    assert min(times) < 0.5


def test_import_deop_imports_nothing_heavy(tmp_path):
    code = "import deop, sys; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert python(code, tmp_path).strip() == "[]"


def test_version(deop):
    assert deop("--version").out.strip() == f"deop {__version__}"


@pytest.mark.parametrize("command", [[], ["segment"], ["convert"]])
def test_without_arguments_help_is_shown(deop, command):
    assert "Usage: deop" in (shown := deop(*command)).out + shown.err


def test_an_unknown_option_is_a_usage_error(deop):
    answer = deop("models", "--jsn")
    assert answer.code == 2
    assert "--jsn" in answer.err


@pytest.mark.parametrize(
    ("error", "code"), [(ImageError("cannot read a [b]photo[/b].jpg"), 1), (SettingError("unknown mode 'x'"), 2)]
)
def test_our_errors_are_one_message_on_stderr(deop, monkeypatch, error, code):
    def fail(entry):
        raise error

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    answer = deop("models")
    assert (answer.code, answer.out) == (code, "")
    assert answer.err == f"error: {error}\n", "no traceback, no markup obeyed, no line broken"


def test_debug_shows_the_traceback(monkeypatch):
    from deop.cli import main

    def fail(entry):
        raise ImageError("broken")

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    with pytest.raises(ImageError, match="broken"):
        main(["models", "--debug"])


def test_an_interrupt_ends_without_a_traceback(deop, monkeypatch):
    def interrupt(entry):
        raise KeyboardInterrupt

    monkeypatch.setattr("deop.zoo.on_this_machine", interrupt)
    answer = deop("models")
    assert answer.code == 130
    assert "Traceback" not in answer.err


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "deop", "models", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(writer)
    assert done.stderr == ""


def test_warnings_are_one_line(deop, monkeypatch):
    import warnings

    def warn(entry):
        warnings.warn("a name is too long", stacklevel=1)
        return True, True

    monkeypatch.setattr("deop.zoo.on_this_machine", warn)
    assert deop("models").err.splitlines()[0] == "warning: a name is too long"

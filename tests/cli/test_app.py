"""The application: help, errors, warnings and exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deop import __version__
from deop import errors as deop_errors
from deop.errors import EXIT_CODES, DeopError, ImageError, SettingError


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


def test_help_takes_less_than_half_a_second(tmp_path):
    """Of processor time, which other processes hardly affect; the minimum of five runs."""
    resource = pytest.importorskip("resource")
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "deop", "--help"], check=True, capture_output=True, cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_import_deop_imports_nothing_heavy(tmp_path):
    code = "import deop, sys; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert python(code, tmp_path).strip() == "[]"


def test_version(deop):
    assert deop("--version").out.strip() == f"deop {__version__}"


@pytest.mark.parametrize("command", [[], ["segment"], ["convert"]])
def test_without_arguments_help_is_shown(deop, command):
    assert "Usage: deop" in (shown := deop(*command)).out + shown.err


def test_an_unknown_option_is_a_usage_error(deop):
    done = deop("models", "--jsn")
    assert done.code == 2
    assert "--jsn" in done.err


@pytest.mark.parametrize(
    ("error", "code"), [(ImageError("cannot read a [b]photo[/b].jpg"), 1), (SettingError("unknown mode 'x'"), 2)]
)
def test_our_errors_are_one_message_on_stderr(deop, monkeypatch, error, code):
    def fail(entry):
        raise error

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    done = deop("models")
    assert (done.code, done.out) == (code, "")
    assert done.err == f"error: {error}\n", "one line, without traceback, and markup is not interpreted"


ERRORS = [value for value in vars(deop_errors).values() if isinstance(value, type) and issubclass(value, DeopError)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_each_class_of_error_has_its_exit_code(deop, monkeypatch, error):
    def fail(entry):
        raise error("no luck")

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    done = deop("models")
    assert (done.code, done.err) == (error.exit_code, "error: no luck\n")
    assert error.exit_code in EXIT_CODES
    expected = {"VocabularyError": 2, "SettingError": 2, "OutputError": 3, "ModelNotFoundError": 4}
    expected |= {"CheckpointError": 4, "MissingDependencyError": 4}
    assert error.exit_code == expected.get(error.__name__, 1)


def test_help_lists_the_exit_codes(deop):
    shown = " ".join(deop("--help").out.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in shown


def test_the_docs_list_the_exit_codes():
    page = (Path(__file__).parents[2] / "docs" / "segmenting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page.split("## Exit codes")[1], re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_unexpected_errors_are_one_message_and_how_to_report_them(deop, monkeypatch):
    def fail(entry):
        raise KeyError("weight\nmap")

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    done = deop("models")
    assert done.code == 1
    assert done.err.splitlines()[0] == "error: unexpected KeyError: 'weight\\nmap'"
    assert "--debug" in done.err
    assert "Traceback" not in done.err


def test_out_of_memory_is_reported_without_a_traceback(deop, monkeypatch):
    def fail(entry):
        raise MemoryError

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    done = deop("models")
    assert done.code == 1
    assert "out of memory" in done.err
    assert "Traceback" not in done.err


def test_an_error_after_an_interrupt_is_the_interrupt(deop, monkeypatch):
    """A library may turn KeyboardInterrupt into an error of its own."""

    def fail(entry):
        monkeypatch.setattr("deop.cli.interrupts._State.received", True)
        raise RuntimeError("initialization failed")

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    done = deop("models")
    assert (done.code, done.err) == (130, "interrupted\n")


@pytest.mark.parametrize("error", [ImageError, RuntimeError])
def test_debug_shows_the_traceback(monkeypatch, error):
    from deop.cli import main

    def fail(entry):
        raise error("broken")

    monkeypatch.setattr("deop.zoo.on_this_machine", fail)
    with pytest.raises(error, match="broken"):
        main(["models", "--debug"])


def test_an_interrupt_ends_without_a_traceback(deop, monkeypatch):
    def interrupt(entry):
        raise KeyboardInterrupt

    monkeypatch.setattr("deop.zoo.on_this_machine", interrupt)
    done = deop("models")
    assert (done.code, done.err) == (130, "interrupted\n")


def test_a_reader_that_ends_early_is_not_an_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "deop", "models", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(writer)
    assert done.stderr == ""


def test_warnings_are_one_line_and_shown_once(deop, monkeypatch):
    import warnings

    def warn(entry):
        warnings.warn_explicit("a name is too long", UserWarning, "module.py", len(entry.name))
        return True, True

    monkeypatch.setattr("deop.zoo.on_this_machine", warn)
    assert deop("models").err == "warning: a name is too long\n", "once, although several lines of code warn"


def test_warnings_about_many_files_do_not_fill_the_terminal(deop, monkeypatch):
    import warnings

    from deop.images.file_types import FileWarning

    def warn(entry):
        for number in range(9):
            warnings.warn(f"{number}.tif is dark", FileWarning, stacklevel=1)
        return True, True

    monkeypatch.setattr("deop.zoo.on_this_machine", warn)
    lines = deop("models").err.splitlines()
    assert lines[:3] == [f"warning: {number}.tif is dark" for number in range(3)]
    assert lines[3:] == ["warning: further files have warnings of this kind, which are not shown"]


def commands():
    """Every command with its name, as typer builds them."""
    import typer.main

    from deop.cli.app import app

    def walk(command, name):
        yield name, command
        for key, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{name} {key}")

    return dict(walk(typer.main.get_command(app), "deop"))


@pytest.mark.parametrize("name", commands())
def test_every_option_has_a_help_sentence(name):
    command = commands()[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith((".", "...")), parameter.help


@pytest.mark.parametrize("name", commands())
def test_help_pages_leave_the_wrapping_to_the_terminal(name):
    """A line break inside a paragraph would appear in the middle of a line of the terminal."""
    for paragraph in commands()[name].help.split("\n\n"):
        assert "\n" not in paragraph.strip()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--flag", "a b"], "deop try --flag 'a b'"),
        (["--no-cache", "a"], "deop try --no-cache a"),
        (["--cache", "a"], "deop try a"),
        (["a", "--tower", "L/14", "--tower", "B/16"], "deop try a --tower L/14 --tower B/16"),
        (["a", "b|c", "--count", "3"], "deop try a 'b|c' --count 3"),
        (["a", "--count", "1", "--no-flag"], "deop try a"),
    ],
)
def test_a_printed_command_line_is_what_a_shell_takes(arguments, line):
    from typing import Annotated

    import typer
    from typer.testing import CliRunner

    from deop.cli.bench import TowerSize
    from deop.cli.options import command_line

    app = typer.Typer()

    @app.callback()
    def group() -> None:
        pass

    @app.command("try")
    def command(
        context: typer.Context,
        words: list[str],
        flag: bool = False,
        cache: Annotated[bool, typer.Option("--cache/--no-cache")] = True,
        tower: list[TowerSize] | None = None,
        count: int = 1,
    ) -> None:
        print(command_line(context))

    printed = CliRunner().invoke(app, ["try", *arguments], prog_name="deop").stdout.strip()
    # Options follow the order of the command's parameters.
    assert sorted(printed.split()) == sorted(line.split())

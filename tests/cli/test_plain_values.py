"""Values of options are the same with and without the conversion by typer, which is skipped where it is not needed."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from deop.cli.plain_values import PlainCommand, PlainGroup


def application(**options):
    """A command with options of all kinds, which prints their values."""
    app = typer.Typer()
    seen = []

    @app.callback(**({"cls": PlainGroup} if options else {}))
    def group() -> None:
        """Has commands."""

    @app.command("show", **options)
    def show(
        photos: list[str],
        output: Annotated[Path | None, typer.Option("--output")] = None,
        names: Annotated[str, typer.Option("--names")] = "",
        folders: Annotated[list[Path] | None, typer.Option("--folder")] = None,
        mode: Annotated[Literal["a", "b"], typer.Option("--mode")] = "a",
        count: Annotated[int | None, typer.Option("--count", min=1)] = None,
        share: Annotated[float, typer.Option("--share")] = 0.5,
        quiet: Annotated[bool, typer.Option("--quiet/--loud")] = False,
        checked: Annotated[str, typer.Option("--checked", callback=lambda value: value.upper())] = "x",
    ) -> None:
        seen.append((photos, output, names, folders, mode, count, share, quiet, checked))

    @app.command("other", **options)
    def other() -> None:
        """Makes the first a command of a group."""

    return app, seen


LINES = [
    ["a.jpg"],
    ["a.jpg", "b.jpg", "--output", "o", "--names", "cat, dog", "--mode", "b", "--count", "3", "--share", "1"],
    ["a.jpg", "--folder", "x", "--folder", "y/z", "--quiet", "--checked", "yes"],
    ["a.jpg", "--loud", "--share", "1e-3", "--names", ""],
    [],
    ["a.jpg", "--mode", "c"],
    ["a.jpg", "--count", "0"],
    ["a.jpg", "--count", "x"],
    ["a.jpg", "--share", "y"],
    ["a.jpg", "--unknown"],
    ["a.jpg", "--output"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_values_and_errors_are_those_of_typer(line):
    results = []
    for options in ({}, {"cls": PlainCommand}):
        app, seen = application(**options)
        done = CliRunner().invoke(app, ["show", *line])
        results.append((done.exit_code, done.output, seen, [[type(value) for value in values] for values in seen]))
    assert results[0] == results[1]


def test_the_usual_command_line_needs_no_converter(tmp_path):
    """That of recent typer is pydantic, whose import takes as long as all others of the command line."""
    code = (
        "import sys\n"
        "from deop.cli import app, main\n"
        "from deop.cli import segment\n"
        "segment.check_options = lambda *_: sys.exit('pydantic' in sys.modules)\n"
        "main(['segment', 'a.jpg', '--classes', 'cat', '--output', 'o.png', '--quiet'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

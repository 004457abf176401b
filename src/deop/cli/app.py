"""``deop``: the commands together, and how their errors reach the terminal."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from deop._version import __version__
from deop.cli.bench import bench
from deop.cli.console import say
from deop.cli.convert import convert
from deop.cli.evaluate import evaluate
from deop.cli.models import models
from deop.cli.prepare import prepare
from deop.cli.segment import segment
from deop.cli.train import train
from deop.errors import DeopError, SettingError, VocabularyError

USAGE_ERRORS = (SettingError, VocabularyError)
"""What the command line itself got wrong: exit code 2, as an unknown option. Everything else ends with 1."""

app = typer.Typer(
    name="deop",
    help="Name every pixel of a photo with words of your own, in one pass.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # an error that is not ours is a bug: its plain traceback belongs in a report
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (segment, evaluate, train, models, convert, bench):
    app.command(no_args_is_help=command not in (models, bench))(command)
app.add_typer(prepare, name="prepare")


@app.callback()
def deop(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=lambda value: _version(value)
        ),
    ] = False,
) -> None:
    """Name every pixel of a photo with words of your own, in one pass."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"deop {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and end the process: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice is for programmers
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", style="yellow")
        try:
            app(args=arguments, prog_name="deop")
        except DeopError as error:
            if "--debug" in arguments:
                raise
            say(f"error: {error}", style="red")
            sys.exit(2 if isinstance(error, USAGE_ERRORS) else 1)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
    sys.exit(0)

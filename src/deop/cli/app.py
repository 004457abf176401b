"""The ``deop`` application: its commands, and how errors reach the terminal."""

import inspect
import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from deop._version import __version__
from deop.cli.bench import bench
from deop.cli.console import say
from deop.cli.convert import convert
from deop.cli.evaluate import evaluate
from deop.cli.interrupts import EXIT_CODE, received
from deop.cli.models import models
from deop.cli.prepare import prepare
from deop.cli.segment import segment
from deop.cli.show_config import config
from deop.cli.signature import flat
from deop.cli.train import train
from deop.dependencies import explained
from deop.errors import EXIT_CODES, DeopError


def _help_text(command: Callable[..., Any]) -> str:
    """The docstring of a command with one line per paragraph, so that the terminal wraps it."""
    return "\n\n".join(
        " ".join(paragraph.split()) for paragraph in inspect.cleandoc(command.__doc__ or "").split("\n\n")
    )


app = typer.Typer(
    name="deop",
    help="Open-vocabulary image segmentation: label every pixel with class names of your choice.",
    epilog="Exit codes:\n\n" + "\n\n".join(f"{code}  {meaning}" for code, meaning in EXIT_CODES.items()),
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # ``run`` reports errors; with --debug as a plain traceback, ready to be copied
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (segment, evaluate, train, models, convert, bench, config):
    function = command if command in (models, convert, config) else flat(command)  # those that deop.toml can configure
    app.command(no_args_is_help=command not in (models, bench, config), help=_help_text(command))(function)
app.add_typer(prepare, name="prepare")


@app.callback()
def deop(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=lambda value: _print_version(value)
        ),
    ] = False,
) -> None:
    """Open-vocabulary image segmentation: label every pixel with class names of your choice."""


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"deop {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and end the process.

    Errors are printed as one line on stderr; with ``--debug`` among the arguments they are raised. Each warning is
    printed once, and of those about single files the first ones.

    Raises:
        SystemExit: with one of ``EXIT_CODES``.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its warnings address programmers
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows "?" instead of failing
    shown: set[str] = set()

    kinds: Counter[type] = Counter()

    def show_once(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) in shown:
            return
        shown.add(str(message))
        kinds[type(message)] += 1
        more = kinds[type(message)] - getattr(message, "limit", len(shown))  # limit: deop.images.file_types.FileWarning
        if more <= 0:
            say(f"warning: {message}", style="yellow")
        elif more == 1:
            say("warning: further files have warnings of this kind, which are not shown", style="yellow")

    with warnings.catch_warnings():
        warnings.showwarning = show_once
        try:
            app(args=arguments, prog_name="deop")
        except SystemExit as end:
            if end.code == EXIT_CODE:
                say("interrupted")
            raise
        except BrokenPipeError:  # the program that reads our output has ended, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if received():  # a library turned the interrupt into an error of its own
                say("interrupted")
                sys.exit(EXIT_CODE)
            if isinstance(error, ImportError):
                command = next((argument for argument in arguments if not argument.startswith("-")), "")
                error = explained(error, f"deop {command}".strip())
            if "--debug" in arguments:
                raise
            say(_describe(error), style="red")
            for note in getattr(error, "__notes__", ()):
                say(f"note: {note}")
            sys.exit(error.exit_code if isinstance(error, DeopError) else 1)
    sys.exit(0)


def _describe(error: Exception) -> str:
    if isinstance(error, DeopError):
        return f"error: {error}"
    if isinstance(error, MemoryError):
        return "error: out of memory. Try a smaller photo, a smaller --batch or a smaller model"
    text = " ".join(str(error).split())
    reason = type(error).__name__ + (f": {text}" if text else "")
    return f"error: unexpected {reason}\nThis may be a bug in deop. Please report it with the output of --debug."

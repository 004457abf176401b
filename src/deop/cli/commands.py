"""The commands of ``deop``. A command's module is imported when the command, or a list of all, is asked for."""

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Annotated, Any

import typer

from deop._version import __version__
from deop.cli.plain_values import PlainCommand, PlainGroup
from deop.errors import EXIT_CODES

COMMANDS = (
    "segment",
    "batch",
    "batch-export",
    "serve",
    "learn",
    "evaluate",
    "train",
    "models",
    "convert",
    "export",
    "bench",
    "config",
    "prepare",
)
"""Names of the commands, in the order of the help page: modules of ``deop.cli`` with a function of the same name."""

_MODULES = {"config": "show_config", "batch-export": "batch_export"}
_CONFIGURABLE = ("segment", "batch", "evaluate", "train", "bench")  # deop.toml can set their options
_RUN_WITHOUT_ARGUMENTS = ("serve", "models", "bench", "config")  # the others then show their help page


def build(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with some of its commands."""
    app = typer.Typer(
        name="deop",
        help="Open-vocabulary image segmentation: label every pixel with class names of your choice.",
        epilog="Exit codes:\n\n" + "\n\n".join(f"{code}  {meaning}" for code, meaning in EXIT_CODES.items()),
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # ``run`` reports errors; with --debug as a plain traceback, ready to be copied
        context_settings={"help_option_names": ["-h", "--help"], "obj": lambda: typer.main.get_command(build())},
    )
    app.callback(cls=PlainGroup)(deop)
    for name in names:
        command = getattr(import_module(f"deop.cli.{_MODULES.get(name, name)}"), name.replace("-", "_"))
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
            continue
        if name in _CONFIGURABLE:
            from deop.cli.signature import flat

            command, text = flat(command), _help_text(command)
        else:
            text = _help_text(command)
        app.command(name, cls=PlainCommand, no_args_is_help=name not in _RUN_WITHOUT_ARGUMENTS, help=text)(command)
    return app


def application(arguments: list[str]) -> typer.Typer:
    """The application for a command line: with its command alone if that is known, which takes a third of the time."""
    return build(arguments[:1]) if arguments and arguments[0] in COMMANDS else build()


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


def _help_text(command: Callable[..., Any]) -> str:
    """The docstring of a command with one line per paragraph, so that the terminal wraps it."""
    return "\n\n".join(
        " ".join(paragraph.split()) for paragraph in inspect.cleandoc(command.__doc__ or "").split("\n\n")
    )

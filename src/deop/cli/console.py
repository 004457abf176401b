"""The terminal: messages go to stderr, answers to stdout."""

from typing import Annotated

import typer
from rich.console import Console

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Machine")]


def say(message: str, style: str = "") -> None:
    """Print a message on stderr; no markup in it is obeyed.

    Lines are divided at words on a terminal, but never those that begin with blanks: commands and paths to copy.
    """
    console = Console(stderr=True)
    for line in message.splitlines():
        whole = line.startswith("  ") or not console.is_terminal
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=whole)

"""The terminal: messages go to stderr, answers to stdout."""

from typing import Annotated

import typer
from rich.console import Console

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Machine")]


def say(message: str, style: str = "") -> None:
    """Print a message on stderr, as it is: no markup in it is obeyed, and no path in it is broken in two lines."""
    Console(stderr=True).print(message, style=style, markup=False, highlight=False, soft_wrap=True)

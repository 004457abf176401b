"""The terminal: messages and progress bars go to stderr, results to stdout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from deop.cli.interrupts import raised_in_imports


def say(message: str, style: str = "") -> None:
    """Print a message on stderr, without interpreting markup in it.

    On a terminal, long lines are wrapped, except indented ones: those are commands and paths to copy.
    """
    console = Console(stderr=True)
    for line in message.splitlines():
        keep_whole = line.startswith("  ") or not console.is_terminal
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=keep_whole)


@contextmanager
def progress_bar(description: str = "photos", *, visible: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr where that is a terminal.

    Args:
        description: what is counted.
        visible: False for no bar.

    Yields:
        A function to call with the number of finished items and the total.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not visible or not console.is_terminal
    with raised_in_imports(), Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

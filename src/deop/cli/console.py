"""The terminal: messages and progress bars go to stderr, results to stdout."""

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from deop.cli.interrupts import raised_in_imports

if TYPE_CHECKING:
    from rich.progress import Task

_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text, and can make a terminal show it in another order."""


class PlainConsole(Console):
    """A console that shows names and paths as they are: square brackets and ":cat:" are not interpreted.

    Control characters are shown as escapes, since names and paths may come from other people's files, and a raw escape
    sequence could recolour or rewrite the terminal. What the encoding of the terminal lacks becomes "?".

    Args:
        stderr: print on stderr instead of stdout.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to rich's ``Text``; rich calls this for every string that it prints."""
        shown = printable(text).encode(self.encoding, "replace").decode(self.encoding)
        return super().render_str(shown, **options)


def printable(text: str) -> str:
    r"""A text without characters that control a terminal, which are replaced by escapes; line breaks are kept.

    >>> printable("cat\x1b[31m")
    'cat\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if (unicodedata.category(character) in ("Cc", "Zl", "Zp") and character != "\n") or character in _REORDERING
        else character
        for character in text
    )


def say(message: str, style: str = "") -> None:
    """Print a message on stderr, without interpreting markup in it.

    On a terminal, long lines are wrapped, except indented ones: those are commands and paths to copy.
    """
    console = PlainConsole(stderr=True)
    for line in message.split("\n"):
        keep_whole = line.startswith("  ") or not console.is_terminal
        console.print(line, style=style, soft_wrap=keep_whole)


def rate(speed: float | None) -> str:
    """The speed of a progress bar in words; empty if it is not known yet.

    Args:
        speed: items per second.

    >>> rate(12.5), rate(0.25), rate(None)
    ('12.5 per s', '4.0 s each', '')
    """
    if not speed:
        return ""
    return f"{speed:.1f} per s" if speed >= 1 else f"{1 / speed:.1f} s each"


@contextmanager
def progress_bar(description: str = "photos", *, visible: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with rate and remaining time on stderr where that is a terminal.

    Args:
        description: what is counted.
        visible: False for no bar.

    Yields:
        A function to call with the number of finished items and the total.
    """
    console = PlainConsole(stderr=True)
    if not visible or not console.is_terminal:
        with raised_in_imports():
            yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class RateColumn(ProgressColumn):
        def render(self, task: "Task") -> Text:
            return Text(rate(task.speed), style="progress.data.speed")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    )
    with raised_in_imports(), Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

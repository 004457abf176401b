"""Running a command line of ``deop``: how errors and warnings reach the terminal."""

import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from deop.cli.commands import application, build
from deop.cli.console import say
from deop.cli.interrupts import EXIT_CODE, received
from deop.dependencies import explained
from deop.errors import DeopError


def __getattr__(name: str) -> Any:
    # The application with all commands is built where it is asked for: for documentation and tests.
    if name == "app":
        return build()
    raise AttributeError(f"module 'deop.cli.app' has no attribute {name!r}")


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
            application(arguments)(args=arguments, prog_name="deop")
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
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
        return f"error: cannot use {name}: {error.strerror}; check the path and its permissions"
    text = " ".join(str(error).split())
    reason = type(error).__name__ + (f": {text}" if text else "")
    return f"error: unexpected {reason}\nThis may be a bug in deop. Please report it with the output of --debug."

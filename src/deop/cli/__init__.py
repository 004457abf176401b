"""The command line: one module per command. Commands import heavy libraries only when they run, so help is instant."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one ``deop`` command line.

    Args:
        arguments: without the program's name; None: those of the process.

    Raises:
        SystemExit: always, with 0 for success, 1 for a failure, 2 for wrong usage and 130 for an interrupt.
    """
    try:
        from deop.cli.app import run

        run(arguments)
    except KeyboardInterrupt:  # typer handles those that arrive inside a command
        sys.exit(130)

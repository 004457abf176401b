"""The commands: one small file each. Heavy imports happen inside them, so that help is instant."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``deop`` with the arguments of the process, or with these; ends the process."""
    try:
        from deop.cli.app import run

        run(arguments)
    except KeyboardInterrupt:  # also while libraries are being imported, where nothing else would catch it
        sys.exit(130)

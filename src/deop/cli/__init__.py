"""The commands: one small file each. Heavy imports happen inside them, so that help is instant."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``deop`` with the arguments of the process, or with these; ends the process."""
    from deop.cli.app import run

    run(arguments)

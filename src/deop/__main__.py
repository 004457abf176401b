"""The process of the command ``deop``, also started by ``python -m deop``. Importing this module is its first step."""

import os
import sys

try:
    from deop.cli import interrupts

    interrupts.install()
except KeyboardInterrupt:
    os._exit(130)


def main() -> None:
    """Run the command line of the process and end the process."""
    try:
        with interrupts.raised():
            from deop.networks.threads import limit_numpy_threads, limit_spinning

            limit_spinning()  # before torch is imported
            limit_numpy_threads()  # before numpy is imported
            from deop.cli import main as run_command_line

            run_command_line()
    except KeyboardInterrupt:
        sys.exit(interrupts.EXIT_CODE)


if __name__ == "__main__":
    main()

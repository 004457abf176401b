"""``python -m deop`` is ``deop``."""

from deop.cli import main

main()

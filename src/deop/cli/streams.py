"""Standard input and output as files: "-" on the command line."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from deop.errors import SettingError

STREAM = Path("-")
"""What stands for standard input or output on the command line."""


def check_outputs(places: Mapping[str, Path | None], binary: frozenset[str]) -> None:
    """Check that standard output can take what is written to it.

    Args:
        places: the option and its value, for each output.
        binary: the options whose output is not text.

    Raises:
        SettingError: two outputs, or binary data for a terminal.
    """
    streams = [flag for flag, place in places.items() if place == STREAM]
    if len(streams) > 1:
        raise SettingError(f"{' and '.join(streams)} both write to standard output: give one of them a file")
    if streams and streams[0] in binary and sys.stdout.isatty():
        raise SettingError(
            f"{streams[0]} - would write a picture to the terminal: redirect it, as in `deop ... > out.png`"
        )


def write_to_stdout(save: Callable[[Path], object], suffix: str) -> None:
    """Write to standard output what a function writes to a file.

    Args:
        save: called with the path of a temporary file.
        suffix: suffix of that file.
    """
    with TemporaryDirectory(prefix="deop-") as directory:
        path = Path(directory) / f"result{suffix}"
        save(path)
        sys.stdout.buffer.write(path.read_bytes())
    sys.stdout.buffer.flush()


def read_text_from_stdin(purpose: str) -> str:
    """Standard input as UTF-8 text, with or without a byte order mark.

    Raises:
        SettingError: it is a terminal, empty, or not UTF-8.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise SettingError(f"nothing is piped to standard input, which should hold {purpose}: give a file")
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(f"standard input is not UTF-8 ({error.reason}), and should hold {purpose}") from error
    if not text.strip():
        raise SettingError(f"standard input is empty, and should hold {purpose}")
    return text

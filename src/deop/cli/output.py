"""Results on stdout and in files: the table of one photo, JSON Lines, and single files."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.table import Table

from deop.cli.console import PlainConsole, say
from deop.cli.streams import STREAM

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

_MOST_NOT_FOUND = 12  # rows of the table


def print_table(result: "Segmentation", files: Sequence[str], seconds: float) -> None:
    """Print the result of one photo on stdout: each name with its share of the photo and its score.

    Args:
        result: what to print.
        files: paths of the files written.
        seconds: how long the photo took.
    """
    from deop.results.segments import grouped

    counts_segments = result.mode != "semantic"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", overflow="fold")
    if counts_segments:
        table.add_column("Segments", justify="right")
    table.add_column("Share of the photo", justify="right")
    table.add_column("Score", justify="right")

    def add_row(name: str, count: int | None, share: float, score: str = "", style: str = "") -> None:
        counts = ["" if count is None else str(count)] if counts_segments else []
        table.add_row(name, *counts, f"{share:.1%}", score, style=style)

    for name, indices in grouped(result.segments).items():
        segments = [result.segments[index] for index in indices]
        score = max(segment.score for segment in segments)
        add_row(name, len(segments), sum(segment.share for segment in segments), f"{score:.2f}")
    # Of a built-in vocabulary most names are not found in any photo.
    not_found = () if result.settings.get("vocabulary") else result.not_found
    for name in not_found[:_MOST_NOT_FOUND]:
        add_row(name, 0, 0, style="dim")
    if len(not_found) > _MOST_NOT_FOUND:
        table.add_row(f"+ {len(not_found) - _MOST_NOT_FOUND} more not found", style="dim")
    unnamed = float((result.label_map < 0).mean())
    if unnamed > 0:
        add_row("none of these", None, unnamed, style="dim")
    console = PlainConsole()
    console.print(table)
    written = f"wrote {', '.join(files)} in " if files else ""
    console.print(f"{written}{seconds:.1f} s", style="dim", soft_wrap=True)


@contextmanager
def write_json_lines(path: Path | None, kept: Iterable[bytes] = ()) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that writes one JSON object per line, at once.

    Args:
        path: a file, which appears once all lines are written; "-" for stdout; None to write nothing.
        kept: lines that come first.

    Raises:
        OutputError: the file cannot be written.
    """
    if path is None:
        yield lambda content: None
        return

    from deop.results.formats import encode_json

    def write_to(file: IO[Any], content: Mapping[str, Any]) -> None:
        file.write(encode_json(content))
        file.flush()

    if path == STREAM:
        yield partial(write_to, sys.stdout.buffer)
        return
    from deop.files import replacing

    with replacing(path) as file:
        for line in kept:
            file.write(line + b"\n")
        yield partial(write_to, file)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file and say so on stderr.

    Raises:
        OutputError: the file cannot be written.
    """
    from deop.files import replacing

    with replacing(path) as file:
        file.write(text.encode() + b"\n")
    say(f"wrote {path}")

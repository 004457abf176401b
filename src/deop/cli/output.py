"""Results on stdout and in files: the table of one photo, JSON Lines, and single files."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.table import Table

from deop.cli.console import PlainConsole, say

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


def print_table(result: "Segmentation", files: Mapping[str, str], seconds: float) -> None:
    """Print the result of one photo on stdout: each name with its share of the photo and its score.

    Args:
        result: what to print.
        files: paths of the files written, by kind.
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
    for name, indices in grouped(result.segments).items():
        segments = [result.segments[index] for index in indices]
        share = sum(segment.share for segment in segments)
        score = max(segment.score for segment in segments)
        count = [str(len(segments))] if counts_segments else []
        table.add_row(name, *count, f"{share:.1%}", f"{score:.2f}")
    unnamed = float((result.label_map < 0).mean())
    if unnamed > 0:
        table.add_row("none of these", *([""] if counts_segments else []), f"{unnamed:.1%}", "", style="dim")
    console = PlainConsole()
    console.print(table)
    written = f"wrote {', '.join(files.values())} in " if files else ""
    console.print(f"{written}{seconds:.1f} s", style="dim", soft_wrap=True)


@contextmanager
def write_json_lines(path: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that writes one JSON object per line.

    Args:
        path: a file, which appears once all lines are written; "-" for stdout, line by line; None to write nothing.

    Raises:
        OutputError: the file cannot be written.
    """
    if path is None:
        yield lambda content: None
        return

    def write_to(file: IO[Any], content: Mapping[str, Any]) -> None:
        file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
        file.flush()

    if path == "-":
        yield partial(write_to, sys.stdout.buffer)
        return
    from deop.files import replacing

    with replacing(Path(path)) as file:
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

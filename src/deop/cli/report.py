"""What was found, for people and for programs."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


def print_table(result: "Segmentation", places: Mapping[str, str], seconds: float) -> None:
    """Print what one photo shows on stdout: each name with its share of the photo and its score."""
    from deop.results.segments import grouped

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", overflow="fold")
    if result.mode != "semantic":
        table.add_column("Found", justify="right")
    table.add_column("Share of the photo", justify="right")
    table.add_column("Score", justify="right")
    for name, indices in grouped(result.segments).items():
        segments = [result.segments[index] for index in indices]
        share = sum(segment.share for segment in segments)
        score = max(segment.score for segment in segments)
        found = [] if result.mode == "semantic" else [str(len(segments))]
        table.add_row(name, *found, f"{share:.1%}", f"{score:.2f}")
    nothing = float((result.label_map < 0).mean())
    if nothing > 0:
        found = [] if result.mode == "semantic" else [""]
        table.add_row("none of these", *found, f"{nothing:.1%}", "", style="dim")
    console = Console(highlight=False)
    console.print(table)
    written = ", ".join(places.values())
    console.print(f"{'wrote ' + written + ' in ' if written else ''}{seconds:.1f} s", style="dim", soft_wrap=True)


@contextmanager
def write_lines(place: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that writes one JSON object a line.

    Args:
        place: a file, put in its place when all is written; "-" for stdout, line by line; None for nowhere.

    Raises:
        OutputError: the file cannot be written.
    """
    if place is None:
        yield lambda content: None
        return

    def write_to(file: IO[Any], content: Mapping[str, Any]) -> None:
        file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
        file.flush()

    if place == "-":
        yield partial(write_to, sys.stdout.buffer)
        return
    from deop.files import replacing

    with replacing(Path(place)) as file:
        yield partial(write_to, file)

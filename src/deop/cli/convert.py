"""``deop convert``: published and pickled weights into safetensors, once."""

from pathlib import Path
from typing import Annotated

import typer

from deop.cli.console import Debug, say


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint of DeOP's authors (stage 1, 2 or 3), a CLIP in OpenAI's own layout, or a hub folder "
            "whose weights are pickled.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Folder or hub repo with CLIP's tokenizer, which no checkpoint carries; by default OpenAI's.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Convert published or pickled weights to a folder that --model takes.

    The only command that reads a pickle; it lets none run code.
    """
    from deop.weights.conversion import convert as write

    folder = write(checkpoint, out, tokenizer=tokenizer)
    say(f'wrote {folder}\n  deop segment PHOTO --classes "cat, sofa, wall" --model {folder}')

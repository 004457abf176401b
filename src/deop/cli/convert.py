"""``deop convert``: published and pickled weights to safetensors."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from deop.cli.console import say
from deop.cli.options import Debug, option


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint of the DeOP authors (stage 1, 2 or 3), an OpenAI CLIP checkpoint, or a model directory "
            "with pickled weights.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.", show_default=False)],
    tokenizer: Annotated[
        str | None,
        option(
            "--tokenizer", metavar="MODEL",
            help="A directory or hub repo with CLIP's tokenizer, which checkpoints do not contain. Default: OpenAI's.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Convert published or pickled weights to a model directory.

    This is the only command that reads pickle files, and it does not execute code in them.
    """
    from deop.weights.conversion import convert as write

    folder = write(checkpoint, out, tokenizer=tokenizer)
    example = shlex.join(["deop", "segment", "PHOTO", "--classes", "cat, sofa, wall", "--model", str(folder)])
    say(f"wrote {folder}. To use it, run:\n  {example}")

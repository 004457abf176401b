"""``deop convert``: published checkpoints into deop's own format, once."""

from pathlib import Path
from typing import Annotated

import typer

from deop.cli.console import Debug, say


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint of DeOP's authors (stage 1, 2 or 3).", show_default=False)
    ],
    out: Annotated[
        Path, typer.Argument(help="Folder to write: config.json and model.safetensors.", show_default=False)
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Folder or hub repo with CLIP's tokenizer.", metavar="FOLDER|ORG/NAME", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Convert a published checkpoint to deop's own format.

    The only command that reads pickled weights; it does so without running any code in them.
    """
    from deop.conversion import convert as convert_checkpoint

    convert_checkpoint(checkpoint, out, tokenizer=tokenizer)
    say(f'wrote {out}. Use it: deop segment PHOTO --classes "cat, sofa, wall" --model {out}')

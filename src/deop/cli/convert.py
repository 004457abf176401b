"""``deop convert``: published and pickled weights to safetensors."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from deop.cli.console import say
from deop.cli.options import Debug, option
from deop.dependencies import require


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint of the DeOP authors (stage 1, 2 or 3), a CLIP of OpenAI or open_clip, or a model "
            "directory with pickled weights.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.", show_default=False)],
    tokenizer: Annotated[
        str | None,
        option(
            "--tokenizer", metavar="MODEL",
            help="A directory or hub repo with CLIP's tokenizer, which checkpoints do not contain. Default: the one "
            "beside the checkpoint, or else OpenAI's.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        option(
            "--config", metavar="FILE",
            help="open_clip's configuration of a CLIP. Default: open_clip_config.json beside the checkpoint.",
        ),
    ] = None,
    activation: Annotated[
        Literal["quick_gelu", "gelu"] | None,
        option(
            "--activation", metavar="NAME",
            help="quick_gelu or gelu: the activation of a CLIP without a configuration, which its weights do not tell.",
        ),
    ] = None,
    license: Annotated[
        str | None,
        option(
            "--license", metavar="NAME",
            help="Licence of the weights, such as MIT. Default: that of README.md beside the checkpoint, or unknown.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Convert published or pickled weights to a model directory.

    This is the only command that reads pickle files, and it does not execute code in them.
    """
    require("deop convert", "torch", "safetensors", "transformers")
    from deop.weights.conversion import convert as write

    folder = write(checkpoint, out, tokenizer=tokenizer, config=config, activation=activation, license=license)
    example = shlex.join(["deop", "segment", "PHOTO", "--classes", "cat, sofa, wall", "--model", str(folder)])
    say(f"wrote {folder}. To use it, run:\n  {example}")

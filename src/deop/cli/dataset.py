"""The argument and the options that name labelled data."""

from pathlib import Path
from typing import Annotated

import typer

from deop.cli.options import option

PROTOCOL = "Data and protocol"

Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="A directory with images/, masks/ and classes.json; Parquet files; or tar files of WebDataset "
        "('shards/{0000..0009}.tar').",
        show_default=False,
    ),
]
ImageColumn = Annotated[
    str | None,
    option(
        "--image-column", metavar="NAME", panel=PROTOCOL,
        help="The column of Parquet files with the photos. Default: image, or another usual name.",
    ),
]  # fmt: skip
MaskColumn = Annotated[
    str | None,
    option(
        "--mask-column", metavar="NAME", panel=PROTOCOL,
        help="The column of Parquet files with the masks. Default: mask, label, annotation, or another usual name.",
    ),
]  # fmt: skip
ClassesJson = Annotated[
    Path | None,
    option(
        "--classes-json", metavar="FILE", panel=PROTOCOL,
        help="The list of classes. Default: classes.json beside the data.",
    ),
]  # fmt: skip

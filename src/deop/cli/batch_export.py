"""``deop batch-export``: the results of ``deop batch`` in the formats of annotation tools."""

from typing import Annotated, Literal

import typer

from deop.cli.console import progress_bar, say
from deop.cli.options import Debug, option, quiet_option, tolerance_option
from deop.errors import SettingError


def batch_export(
    results: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS",
            help="The output of deop batch; a directory, or an address such as s3://bucket/results.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="What to write: a .json file for COCO, else a new directory.", show_default=False
        ),
    ],
    to: Annotated[
        Literal["coco", "coco-panoptic", "label-studio", "labelme", "yolo"],
        option(
            "--to", metavar="FORMAT",
            help="coco, coco-panoptic (also writes OUT_panoptic.json and a folder of PNG files), label-studio (files "
            "of tasks with predictions, and the labeling configuration), labelme or yolo (a file per photo).",
        ),
    ],
    polygons: Annotated[
        bool, option("--polygons", help="coco, label-studio: write polygons instead of masks.")
    ] = False,
    tolerance: Annotated[float | None, tolerance_option(min=0)] = None,
    image: Annotated[
        str | None,
        option(
            "--image", metavar="ADDRESS",
            help="label-studio: the address under which it finds a photo, with {id}, {path} or {name} (the file name): "
            "'https://example.org/photos/{id}'. Default: local storage that serves the directory above the input; "
            "addresses such as s3:// are kept.",
        ),
    ] = None,
    tasks: Annotated[
        int, option("--tasks", metavar="N", min=1, help="label-studio: number of tasks in a file. Default: 1000.")
    ] = 1000,
    quiet: Annotated[bool, quiet_option()] = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Write the results of deop batch for COCO, Label Studio, labelme or YOLO.

    Memory does not depend on the number of photos. Photos that failed are left out.
    """
    from deop.batch.formats import FormatOptions, export_batch
    from deop.batch.results import BatchResults

    has_polygons = polygons or to in ("labelme", "yolo")
    if tolerance is not None and not has_polygons:
        raise SettingError("--tolerance applies to polygons: add --polygons, or omit it")
    options = FormatOptions(to, polygons, 1.0 if tolerance is None else tolerance, image, tasks)
    batch = BatchResults(results)
    if batch.missing:
        say(
            f"warning: {results} is not finished: {batch.missing:,} of its {batch.files:,} files are missing. Repeat "
            "the command of the batch to complete it",
            style="yellow",
        )
    with progress_bar("photos", visible=not quiet) as advance:
        exported = export_batch(batch, output, options, lambda rows: advance(rows, batch.total))  # type: ignore[arg-type]
    if not quiet:
        say(f"{exported.photos:,} photos with {exported.segments:,} segments: {output}")
        if exported.failed:
            say(f"left out: {exported.failed:,} photos that failed", style="yellow")

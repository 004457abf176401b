"""Options of ``deop segment`` that exclude each other, or would have no effect."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TypeVar

import typer

from deop.cli.config_file import typed
from deop.cli.output_options import FileOptions, PictureOptions
from deop.cli.segment_options import BatchOptions, MethodOptions, NameOptions, TileOptions
from deop.cli.streams import STREAM, check_outputs
from deop.errors import SettingError

G = TypeVar("G")


def prefer_typed(context: typer.Context, group: G, exclusive: Sequence[str]) -> G:
    """Options that exclude each other: one that is typed replaces those that a configuration file sets.

    Raises:
        SettingError: several of them are set in the same place.
    """
    defaults = {field.name: field.default for field in fields(group)}  # type: ignore[arg-type]
    chosen = [name for name in exclusive if getattr(group, name) != defaults[name]]
    if from_command_line := [name for name in chosen if typed(context, name)]:
        group = replace(group, **{name: defaults[name] for name in chosen if name not in from_command_line})  # type: ignore[type-var]
        chosen = from_command_line
    if len(chosen) > 1:
        flags = [f"--{name.replace('_', '-')}" for name in chosen]
        raise SettingError(f"{' and '.join(flags)} exclude each other: omit one of them")
    return group


def asks_for_picture(context: typer.Context) -> bool:
    """Whether an option that only a picture uses was typed."""
    return any(typed(context, name) for name in ("style", "cutout", "heatmap", "alpha", "no_legend"))


def check_options(
    context: typer.Context, names: NameOptions, picture: PictureOptions, files: FileOptions, many: BatchOptions
) -> None:
    """Refuse combinations that cannot work, and options that would have no effect, if they were typed.

    Raises:
        SettingError: naming the options and the remedy.
    """

    def refuse(name: str, condition: bool, reason: str) -> None:
        if condition and typed(context, name):
            raise SettingError(f"--{name.replace('_', '-')} has no effect: {reason}")

    style = picture.shown_style
    blended = style in ("overlay", "side-by-side", "heatmap")
    refuse("alpha", not blended, f"a picture of the style {style} is not blended with the photo")
    refuse("no_legend", style == "cutout", "a cut-out has no legend")
    refuse("things", names.mode == "semantic", "semantic mode separates no things; add --mode panoptic or instance")
    refuse("rle", files.json is None, "add --json FILE")
    refuse("coco_polygons", files.coco is None, "add --coco FILE")
    refuse("polygon_format", files.polygons is None, "add --polygons OUT")
    refuse("tolerance", files.polygons is None and not files.coco_polygons, "add --polygons OUT or --coco-polygons")
    if picture.alpha is not None and not 0 <= picture.alpha <= 1:
        raise SettingError(f"--alpha {picture.alpha} is not in [0, 1]")
    if files.tolerance < 0:
        raise SettingError(f"--tolerance {files.tolerance} is negative: give 0 or a number of pixels")
    if files.instances and names.mode == "semantic":
        raise SettingError("--instances needs segments of single things: add --mode panoptic or instance")
    places = {"--output": picture.output, **files.places}
    if files.coco == STREAM:
        raise SettingError("--coco - is not supported: give the name of a file")
    check_outputs(places, frozenset(("--output", "--labels", "--instances")))
    if many.skip_existing:
        if files.coco:
            raise SettingError(
                "--coco writes one file about all photos, so --skip-existing would lose those that it skips: omit one"
            )
        if STREAM in places.values():
            raise SettingError("--skip-existing looks for files, and standard output is none: omit one of them")


def check_tiling(
    context: typer.Context,
    names: NameOptions,
    picture: PictureOptions,
    files: FileOptions,
    many: BatchOptions,
    tiling: TileOptions,
    method: MethodOptions,
) -> None:
    """Refuse options that tiles do not support, and options of tiles without ``--tiles``.

    Raises:
        SettingError: naming the options and the remedy.
    """
    if tiling.tiles is None:
        for name in ("tile_context", "bands", "value_range", "min_area", "overwrite"):
            if typed(context, name):
                raise SettingError(f"--{name.replace('_', '-')} has no effect: add --tiles auto")
        return
    from deop.tiles.plan import parse_tiles

    if tiling.tile_context is not None and not 0 <= tiling.tile_context < 1:
        raise SettingError(f"--tile-context {tiling.tile_context} is not in [0, 1)")
    parse_tiles(tiling.tiles)  # mistakes are reported before anything is read
    parse_numbers("--bands", tiling.bands, int, (1, 3))
    parse_numbers("--value-range", tiling.value_range, float, (2,))
    if names.mode != "semantic":
        raise SettingError(
            f"--tiles supports semantic mode only, not {names.mode}, since things cannot be told apart across tiles: "
            "omit --mode; --polygons OUT.gpkg has each connected piece of a name with its area"
        )
    for flag, used in (
        ("--masks", method.masks), ("--instances", files.instances), ("--heatmap", picture.heatmap),
        ("--classifier", method.classifier != "one-pass"),
    ):  # fmt: skip
        if used:
            raise SettingError(f"--tiles does not support {flag}: omit one of them")
    if not streams_tiles(context, picture, files, tiling):
        for name in ("bands", "value_range", "min_area", "overwrite"):
            if typed(context, name):
                raise SettingError(
                    f"--{name.replace('_', '-')} applies to label maps as TIFF files: write --labels OUT.tif, and omit "
                    "--output"
                )
        return
    for name, used in (("rle", files.rle), ("coco", files.coco), ("skip_existing", many.skip_existing)):
        if used and (name != "rle" or typed(context, name)):
            raise SettingError(
                f"--{name.replace('_', '-')} does not apply to label maps as TIFF files: omit it, or write "
                "--labels OUT.png"
            )
    if STREAM in (files.labels, files.polygons):
        raise SettingError("label maps as TIFF files and their polygons cannot go to standard output: give a file")


def streams_tiles(context: typer.Context, picture: PictureOptions, files: FileOptions, tiling: TileOptions) -> bool:
    """Whether images of any size are written as TIFF files, rather than photos in memory as pictures and PNG files."""
    if tiling.tiles is None:
        return False
    labels = files.labels
    if labels is not None and not labels.is_dir() and (labels.suffix or labels == STREAM):
        return labels.suffix.lower() in (".tif", ".tiff")
    return picture.output is None and files.coco is None and not asks_for_picture(context)


def parse_numbers(flag: str, text: str | None, kind: type, counts: Sequence[int]) -> tuple[float, ...] | None:
    """The numbers of an option such as ``4,3,2``; None if it is not given.

    Raises:
        SettingError: other than numbers, or another count of them.
    """
    if text is None:
        return None
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        expected = " or ".join(str(count) for count in counts)
        raise SettingError(f"{flag} {text!r}: give {expected} numbers, separated by commas")
    return numbers

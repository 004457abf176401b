"""``deop segment --tiles``: images of any size as label maps and polygons, or photos in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deop.cli.console import PlainConsole, progress_bar, say
from deop.cli.examples import bank_options
from deop.cli.interrupts import raised_in_imports
from deop.cli.output_options import FileOptions
from deop.cli.photos import RESULTS_FOLDER, PhotoFile, find_photos, place_results
from deop.cli.segment_checks import parse_numbers
from deop.cli.segment_options import BatchOptions, MethodOptions, NameOptions, TileOptions
from deop.cli.streams import STREAM
from deop.errors import ImageError, OutputError, ResourceError, SettingError
from deop.files import check_writable, resolved

if TYPE_CHECKING:
    from deop.cli.jobs import Job
    from deop.surface import ModelSurface
    from deop.text.vocabulary import Vocabulary
    from deop.tiles import TiledResult

SUFFIX = ".deop.tif"
"""Suffix of a label map whose place is not given."""
LARGE = 4480
"""Shorter side in pixels from which tiles are suggested: ten times the network input of the built-in model."""
_GEOGRAPHY = (33550, 34264, 34735)  # TIFF tags: scale of a pixel, transformation, reference system
_LOOKED_AT = 20  # photos


def segment_huge(
    photos: Sequence[str],
    requested: Any,
    names: NameOptions,
    files: FileOptions,
    many: BatchOptions,
    tiling: TileOptions,
    method: MethodOptions,
    *,
    load: Callable[[], Any],
    inputs: Sequence[Path] = (),
) -> None:
    """Segment images of any size, one after the other, into label maps as TIFF files.

    Args:
        photos: the arguments of the command.
        requested: the class names, as typed.
        names: the options of names.
        files: the options of files.
        many: the options of many photos.
        tiling: the options of tiles.
        method: the options of the method.
        load: loads the model.
        inputs: other files that the command reads and that no result may replace.

    Raises:
        typer.Exit: an image failed; the others are done.
        DeopError: naming the option, the input or the output and the remedy.
    """
    from deop.cli.output import write_json_lines

    images, labels, shapes = _places(photos, files, inputs)
    if not tiling.overwrite:
        _refuse_existing([*labels, *(path for path in shapes if path)])
    check_writable([*labels, *(path for path in (*shapes, files.json) if path and path != STREAM)])
    network = load()
    vocabulary = network.vocabulary(
        requested, background=names.background, templates=method.templates,
        **bank_options(network, names.bank, names.bank_weight, names.example),
    )  # fmt: skip
    network.embed(vocabulary, progress=not many.quiet)
    options = _options(names, many, tiling, method) | {
        "tolerance": files.tolerance,
        "min_area": tiling.min_area,
        "bands": parse_numbers("--bands", tiling.bands, int, (1, 3)),
        "value_range": parse_numbers("--value-range", tiling.value_range, float, (2,)),
        "overwrite": tiling.overwrite,
    }
    failed = False
    with raised_in_imports(), write_json_lines(files.json) as write_line:
        for image, out, polygons in zip(images, labels, shapes, strict=True):
            try:
                result = _segment(network, vocabulary, image, out, polygons, options, quiet=many.quiet)
            except (ImageError, ResourceError) as error:
                if len(images) == 1:
                    raise
                failed = True
                say(f"failed: {error}", style="red")
                write_line({"photo": image.name, "error": str(error)})
                continue
            results = {"labels": str(out)} | ({"polygons": str(polygons)} if polygons else {})
            write_line({**result.summary(), "results": results, "seconds": round(result.seconds, 3)})
            if not many.quiet and files.json != STREAM:
                _report(result)
    if failed:
        raise typer.Exit(1)


def _segment(
    network: "ModelSurface",
    vocabulary: "Vocabulary",
    image: PhotoFile,
    out: Path,
    polygons: Path | None,
    options: Mapping[str, Any],
    *,
    quiet: bool,
) -> "TiledResult":
    from deop.tiles import segment_tiles

    try:
        with progress_bar(f"tiles of {image.path.name}", visible=not quiet) as advance:
            return segment_tiles(network, image.source, vocabulary, out, polygons=polygons, progress=advance, **options)
    except KeyboardInterrupt:
        say(f"the finished tiles of {image.path.name} are kept: repeat the command to resume", style="yellow")
        raise


def _places(
    photos: Sequence[str], files: FileOptions, inputs: Sequence[Path]
) -> tuple[Sequence[PhotoFile], list[Path], list[Path | None]]:
    """The images, the places of their label maps, and of their polygons."""
    given = [place for place in (files.labels, files.polygons) if place is not None]
    images = find_photos(photos, given).photos
    out = files.labels
    if out is None:
        single = len(images) == 1 and not RESULTS_FOLDER.is_dir()
        out = Path(f"{images[0].result.name}{SUFFIX}") if single else RESULTS_FOLDER
    labels = place_results(images, out, ".tif")
    if files.polygon_format not in (None, "geojson"):
        raise SettingError(f"--polygon-format {files.polygon_format} does not apply to tiles: use .geojson or .gpkg")
    shapes: list[Path | None] = [None] * len(images)
    if files.polygons is not None:
        shapes = list(place_results(images, files.polygons, ".geojson"))
    taken = {resolved(path) for path in inputs}
    for place in (*labels, *(path for path in shapes if path)):
        if resolved(place) in taken:
            raise SettingError(f"{place} would be written twice, or is read by this command: choose another path")
        taken.add(resolved(place))
    return images, labels, shapes


def _refuse_existing(places: Sequence[Path]) -> None:
    for place in places:
        if place.exists() and not any(out.with_name(f".{out.name}.tiles").exists() for out in places):
            raise OutputError(f"{place} exists: give another path, or add --overwrite")


def _options(names: NameOptions, many: BatchOptions, tiling: TileOptions, method: MethodOptions) -> dict[str, Any]:
    """The arguments that both ways to segment in tiles take."""
    options: dict[str, Any] = {"tiles": tiling.tiles, "threshold": names.threshold, "batch": many.batch or 1}
    if tiling.tile_context is not None:
        options["context"] = tiling.tile_context
    return options | {"severance": method.severance, "anchors": method.anchors}


def suggest_tiles(photos: Sequence[PhotoFile]) -> None:
    """Say once that tiles keep a georeference, or that they show the details of a large image."""
    from PIL import Image

    from deop.images.reading import no_pixel_limit

    for photo in photos[:_LOOKED_AT]:
        try:
            with no_pixel_limit(), Image.open(photo.path) as image:
                located = any(tag in getattr(image, "tag_v2", ()) for tag in _GEOGRAPHY)
                width, height = image.size
        except Exception:
            continue
        remedy = ""
        if located:
            remedy = "pictures and PNG files lose its georeference; --tiles auto writes a GeoTIFF"
        elif min(width, height) >= LARGE:
            remedy = f"the model sees its {width} x {height} px much reduced; --tiles auto shows it the details"
        if remedy:
            say(f"hint: {photo.name}: {remedy}", style="yellow")
            return


def tiled_results(
    network: "ModelSurface",
    jobs: Sequence["Job"],
    vocabulary: "Vocabulary",
    names: NameOptions,
    many: BatchOptions,
    tiling: TileOptions,
    method: MethodOptions,
) -> Iterator[Any]:
    """The results of photos that are segmented in tiles and kept in memory, or their errors."""
    from deop.tiles import segment_photo

    for job in jobs:
        try:
            yield segment_photo(network, job.photo.source, vocabulary, **_options(names, many, tiling, method))
        except (ImageError, ResourceError) as error:
            yield error


def _report(result: "TiledResult") -> None:
    """Print what became of an image."""
    from rich.table import Table

    table = Table("name", "share", "score", box=None, pad_edge=False)
    total = result.shape[0] * result.shape[1]
    order = sorted(range(len(result.names)), key=lambda k: -int(result.pixels[k]))
    shown = [k for k in order if result.pixels[k]]
    for k in shown:
        table.add_row(result.names[k], f"{result.pixels[k] / total:.1%}", f"{result.scores[k]:.2f}")
    rest = total - int(result.pixels.sum())
    if rest:
        table.add_row("none of these", f"{rest / total:.1%}", "", style="dim")
    console = PlainConsole()
    console.print(table)
    megapixels = total / 1e6
    places = ", ".join(str(place) for place in (result.out, result.polygons) if place)
    text = f"wrote {places}: {result.shape[1]} x {result.shape[0]} px in {result.tiles} tiles, {result.seconds:.1f} s"
    if result.encoded == result.tiles and result.seconds > 0:
        text += f" ({megapixels / result.seconds:.2f} megapixels a second)"
    elif result.encoded < result.tiles:
        text += f" ({result.tiles - result.encoded} tiles were finished before)"
    console.print(text, style="dim", soft_wrap=True)

"""The options of ``deop segment``, in groups: names, pictures, files, and how photos are processed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from deop.cli import completion
from deop.cli.examples import BankFile, BankWeight, Example
from deop.cli.options import (
    METHOD,
    RUNTIME,
    Anchors,
    InFile,
    Model,
    Partition,
    Prior,
    Proposer,
    Proxy,
    Scores,
    Severance,
    SmallestRegion,
    Windows,
    name_list,
    option,
)

NAMES, PICTURE, FILES, MANY, VIDEOS = "Names", "Picture", "Files for other programs", "Many photos", "Videos"
TILES = "Huge images"
"""Titles of panels."""

NameList = InFile(str | tuple[str, ...], name_list)

Style = Literal["overlay", "outline", "cutout", "labels", "side-by-side"]


@dataclass(frozen=True)
class NameOptions:
    """Which names pixels may get, and when."""

    classes: Annotated[
        str,
        NameList,
        option(
            "--classes",
            "-c",
            metavar="NAMES",
            panel=NAMES,
            help='Class names, separated by commas; synonyms are joined by a bar: "cat, sofa|couch, wall".',
        ),
    ] = ""
    classes_file: Annotated[
        Path | None,
        option(
            "--classes-file",
            metavar="FILE",
            panel=NAMES,
            help="Read the class names from a text file, one name per line; '-' reads standard input.",
        ),
    ] = None
    vocabulary: Annotated[
        Literal["coco", "ade20k", "cityscapes", "everyday"] | None,
        option(
            "--vocabulary",
            metavar="LIST",
            panel=NAMES,
            help="Ask for all names of a built-in list and keep those that the photo shows: coco, ade20k, cityscapes "
            "or everyday.",
        ),
    ] = None
    background: Annotated[
        str,
        NameList,
        option(
            "--background",
            metavar="NAMES",
            panel=NAMES,
            help='Names of what you are not looking for, such as "road, sky". Their pixels are left without a name.',
        ),
    ] = ""
    threshold: Annotated[
        str | None,
        InFile(float | str, lambda value, directory: str(value)),
        option(
            "--threshold",
            metavar="SCORE",
            panel=NAMES,
            help='Minimum score, 0 to 1; "0.3, dog=0.6" also sets it for one name. What scores lower gets no name. '
            "Default: the model's setting.",
        ),
    ] = None
    mode: Annotated[
        Literal["semantic", "panoptic", "instance"],
        option(
            "--mode",
            metavar="MODE",
            panel=NAMES,
            help="semantic: one name per pixel. panoptic: also separates things of the same name. instance: things "
            "only, each with its own mask; masks may overlap. Default: semantic.",
        ),
    ] = "semantic"
    things: Annotated[
        str | None,
        NameList,
        option(
            "--things",
            metavar="NAMES",
            panel=NAMES,
            help="Which of the names are countable things, for panoptic and instance mode. Default: all but common "
            "words for stuff, such as sky, wall or grass.",
        ),
    ] = None
    bank: BankFile = None
    bank_weight: BankWeight = None
    example: Example = None


@dataclass(frozen=True)
class PictureOptions:
    """The picture of each photo."""

    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            metavar="OUT",
            panel=PICTURE,
            help="The picture to write (.png, .jpg, .webp); for several photos, a directory; '-' is standard output. "
            "Default: PHOTO.deop.png, or deop-results/ for several photos; none if other files are requested.",
        ),
    ] = None
    style: Annotated[
        Style | None,
        option(
            "--style",
            metavar="STYLE",
            panel=PICTURE,
            help="overlay: regions in colour over the photo. outline: only their edges. labels: only their colours. "
            "side-by-side: photo and overlay. cutout: only what has a name, on a transparent background. Default: "
            "overlay.",
        ),
    ] = None
    cutout: Annotated[
        str | None,
        NameList,
        option(
            "--cutout",
            metavar="NAMES",
            panel=PICTURE,
            help="Cut these names out, on a transparent background. Without --classes, everything else competes "
            "with them.",
        ),
    ] = None
    heatmap: Annotated[
        str | None,
        option(
            "--heatmap",
            metavar="NAME",
            panel=PICTURE,
            help="Show how strongly each pixel suggests this name.",
        ),
    ] = None
    alpha: Annotated[
        float | None,
        option(
            "--alpha",
            metavar="NUMBER",
            panel=PICTURE,
            help="Opacity of the colours, 0 to 1. Default: 0.5; 0.7 for a heat map.",
        ),
    ] = None
    no_legend: Annotated[bool, option("--no-legend", panel=PICTURE, help="Draw no legend.")] = False

    @property
    def shown_style(self) -> str:
        """The style of the picture; "heatmap" with ``--heatmap``."""
        return "cutout" if self.cutout else "heatmap" if self.heatmap else self.style or "overlay"

    @property
    def overlay_options(self) -> dict[str, Any]:
        """The arguments of ``Segmentation.overlay``, but for the names of a cut-out or heat map."""
        style = self.shown_style
        options: dict[str, Any] = {"style": style}
        if style in ("overlay", "side-by-side", "heatmap") and self.alpha is not None:
            options["alpha"] = self.alpha
        if style != "cutout":
            options["legend"] = not self.no_legend
        return options


@dataclass(frozen=True)
class FileOptions:
    """Files for other programs."""

    labels: Annotated[
        Path | None,
        option(
            "--labels",
            metavar="OUT",
            panel=FILES,
            help="The label map, a PNG: 1 is the first name, 2 the second and so on, 0 no name. For several photos, a "
            "directory; '-' is standard output.",
        ),
    ] = None
    instances: Annotated[
        Path | None,
        option(
            "--instances",
            metavar="OUT",
            panel=FILES,
            help="The map of segments, a PNG: 1 is the first segment of --json, and so on. For panoptic and instance "
            "mode; OUT as for --labels.",
        ),
    ] = None
    json: Annotated[
        Path | None,
        option(
            "--json",
            metavar="FILE",
            panel=FILES,
            help="The results as JSON Lines, one object per photo; '-' is standard output.",
        ),
    ] = None
    rle: Annotated[
        bool,
        option("--rle", panel=FILES, help="With --json: include the mask of each segment (COCO's RLE)."),
    ] = False
    coco: Annotated[
        Path | None,
        option(
            "--coco",
            metavar="FILE",
            panel=FILES,
            help="One COCO file with the segments of all photos. With --mode panoptic, also FILE_panoptic.json and a "
            "directory with its PNGs.",
        ),
    ] = None
    coco_polygons: Annotated[
        bool,
        option("--coco-polygons", panel=FILES, help="With --coco: polygons instead of run lengths (RLE)."),
    ] = False
    polygons: Annotated[
        Path | None,
        option(
            "--polygons",
            metavar="OUT",
            panel=FILES,
            help="The outlines of the segments. For several photos, a directory; '-' is standard output.",
        ),
    ] = None
    polygon_format: Annotated[
        Literal["geojson", "yolo", "labelme"] | None,
        option(
            "--polygon-format",
            metavar="FORMAT",
            panel=FILES,
            help="With --polygons: geojson (.geojson), yolo (.txt) or labelme (.json). Default: yolo for OUT.txt, else "
            "geojson.",
        ),
    ] = None
    tolerance: Annotated[
        float,
        option(
            "--tolerance",
            metavar="PIXELS",
            panel=FILES,
            help="How far polygons may be from the exact outlines; 0 follows the edges of pixels. Default: 1.",
        ),
    ] = 1.0

    @property
    def places(self) -> dict[str, Path | None]:
        """What each option writes to, by its flag."""
        return {
            "--labels": self.labels, "--instances": self.instances, "--json": self.json, "--coco": self.coco,
            "--polygons": self.polygons,
        }  # fmt: skip


@dataclass(frozen=True)
class BatchOptions:
    """How many photos are processed."""

    skip_existing: Annotated[
        bool,
        option(
            "--skip-existing",
            panel=MANY,
            help="Skip photos whose requested files exist; lines of --json are kept.",
        ),
    ] = False
    batch: Annotated[
        int | None,
        option(
            "--batch",
            metavar="N",
            panel=MANY,
            min=1,
            help="Number of photos that are processed together. Default: 8 on a GPU, 1 on a CPU.",
        ),
    ] = None
    quiet: Annotated[bool, option("--quiet", "-q", panel=MANY, help="Print only warnings and errors.")] = False


@dataclass(frozen=True)
class VideoOptions:
    """How videos are processed."""

    smoothing: Annotated[
        float,
        option(
            "--smoothing",
            metavar="NUMBER",
            panel=VIDEOS,
            help="How much the labels of earlier frames count, from 0 (each frame by itself) to below 1; 0.8 removes "
            "most flicker. Semantic mode only. Default: 0.",
        ),
    ] = 0.0
    every: Annotated[
        int,
        option(
            "--every",
            metavar="N",
            panel=VIDEOS,
            min=1,
            help="Segment each N-th frame; the frames between show the labels of the last one. Default: 1.",
        ),
    ] = 1


@dataclass(frozen=True)
class TileOptions:
    """How images are processed that are too large for one pass."""

    tiles: Annotated[
        str | None,
        InFile(str | int, lambda value, directory: str(value)),
        option(
            "--tiles",
            metavar="SIZE",
            panel=TILES,
            help="Segment in overlapping tiles: auto, SIZE or SIZE,OVERLAP in pixels. With --labels OUT.tif, or "
            "without --output, images may have any size, and a killed command resumes.",
        ),
    ] = None
    tile_context: Annotated[
        float | None,
        option(
            "--tile-context",
            metavar="NUMBER",
            panel=TILES,
            help="With --tiles: how much a coarse view of the whole image counts, from 0 to below 1. Default: 0.15; 0 "
            "for maps and very large images.",
        ),
    ] = None
    bands: Annotated[
        str | None,
        option(
            "--bands",
            metavar="R,G,B",
            panel=TILES,
            help="With --tiles: the bands of a raster that are red, green and blue, counted from 1. Default: as the "
            "file says.",
        ),
    ] = None
    value_range: Annotated[
        str | None,
        option(
            "--value-range",
            metavar="LOW,HIGH",
            panel=TILES,
            help="With --tiles: the values of a raster that become black and white. Default: 0,255 for 8 bits, else "
            "the 2nd and the 98th percentile.",
        ),
    ] = None
    min_area: Annotated[
        int,
        option(
            "--min-area",
            metavar="PIXELS",
            panel=TILES,
            min=0,
            help="With --tiles and --polygons: leave out polygons of fewer pixels. Default: 0.",
        ),
    ] = 0
    overwrite: Annotated[
        bool,
        option(
            "--overwrite",
            panel=TILES,
            help="With --tiles: replace existing results, and discard unfinished work with other settings.",
        ),
    ] = False


@dataclass(frozen=True)
class MethodOptions:
    """The model and its method."""

    model: Model = "nano"
    masks: Annotated[
        Path | None,
        option(
            "--masks",
            metavar="PATH",
            panel=METHOD,
            help="Use these masks: a PNG of ids, an .npy or .npz file, or a directory of PNGs. For several photos: a "
            "directory with one of these per photo, named like the photo.",
        ),
    ] = None
    proposer: Proposer = None
    templates: Annotated[
        str | None,
        option(
            "--templates",
            metavar="SET",
            autocompletion=completion.templates,
            panel=METHOD,
            help="Prompt templates for the names: single, photo, vild, imagenet, none, or a sentence with {}. "
            "Default: the model's setting.",
        ),
    ] = None
    smallest_region: SmallestRegion = None
    severance: Severance = None
    proxy: Proxy = None
    windows: Windows = None
    partition: Partition = None
    prior: Prior = None
    scores: Scores = None
    anchors: Anchors = None
    classifier: Annotated[
        Literal["one-pass", "two-stream"],
        option(
            "--classifier",
            metavar="KIND",
            panel=METHOD,
            help="one-pass, or two-stream: the baseline, which crops and encodes every mask separately. Default: "
            "one-pass.",
        ),
    ] = "one-pass"


Cache = Annotated[
    bool,
    option(
        "--cache/--no-cache", panel=RUNTIME,
        help="Keep the embeddings of names on disk. Default: --cache.",
    ),
]  # fmt: skip

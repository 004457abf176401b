"""The options of ``deop segment`` about names, and how photos are processed, in groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deop.cli import completion
from deop.cli.examples import NAMES, BankFile, BankWeight, Example
from deop.cli.options import (
    METHOD,
    RUNTIME,
    Anchors,
    InFile,
    Model,
    NameList,
    Partition,
    Prior,
    Proposer,
    Proxy,
    Scores,
    Severance,
    SmallestRegion,
    Windows,
    batch_option,
    option,
    quiet_option,
)

MANY, VIDEOS, TILES = "Many photos", "Videos", "Huge images"
"""Titles of panels."""


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
    batch: Annotated[int | None, batch_option(MANY)] = None
    quiet: Annotated[bool, quiet_option(MANY)] = False


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

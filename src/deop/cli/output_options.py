"""The options of ``deop segment`` about what it writes, in groups: the picture, and files for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from deop.cli.options import NameList, option, tolerance_option

PICTURE, FILES = "Picture", "Files for other programs"
"""Titles of panels."""

Style = Literal["overlay", "outline", "cutout", "labels", "side-by-side"]


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
    tolerance: Annotated[float, tolerance_option(FILES)] = 1.0

    @property
    def places(self) -> dict[str, Path | None]:
        """What each option writes to, by its flag."""
        return {
            "--labels": self.labels, "--instances": self.instances, "--json": self.json, "--coco": self.coco,
            "--polygons": self.polygons,
        }  # fmt: skip

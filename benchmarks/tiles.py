"""Compares tiled and whole segmentation, and so chooses the default tile size, overlap and context.

    python benchmarks/tiles.py ../shared/data

There are no labelled photos of 2,000 pixels and more among the data, and enlarged ones have no detail. So there are two
experiments, both on training photos:

* **mosaics** of labelled photos at their own size, side by side: about 2,600 x 2,000 pixels of real detail, but scenes
  that end at straight lines, and no context beyond the photo. They show what tiles gain where things are small.
* **small input**: photos of 640 x 480 pixels with the network input reduced to 160 pixels, which corresponds to photos
  of about 1,800 x 1,340 pixels with the usual input of 448. The scenes are real, so they show what tiles lose because
  they do not see the scene, and what the coarse view gives back.

A third one measures **speed**, in processor time of one thread.

``whole`` is ordinary segmentation. ``agreement`` is the share of pixels with the same name as with ``whole``.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import deop
from deop.data.folder import open_folder
from deop.evaluation.metrics import Confusion, mean
from deop.files import replacing
from deop.images.reading import read_photo
from deop.surface import ModelSurface
from deop.text.builtin import builtin_vocabulary
from deop.text.vocabulary import Vocabulary
from deop.tiles import segment_tiles
from deop.tiles.blending import BLOCK, Blend
from deop.tiles.plan import OVERLAP, plan_tiles
from deop.tiles.request import rule_of
from deop.tiles.views import View, encode_views

MOSAICS = {"coco-mini/train": (4, 4, 480, 640), "msrc/train": (8, 8, 213, 320), "camvid-mini/train": (6, 6, 360, 480)}
"""For each data set: rows and columns of the mosaic, height and width of its photos."""
SIZES = (320, 448, 672, 896, 1344)
"""Tile sizes in a mosaic, pixels."""
SMALL_INPUT = 160
"""Shorter side of the network input in the second experiment."""
SHARES = (1 / 3, 1 / 2, 2 / 3)
"""Tile sizes in the second experiment, as a share of the shorter side of the photo."""
CONTEXTS = (0.0, 0.15, 0.3, 0.5)
"""Weights of the coarse view."""


@dataclass
class Row:
    """The counts of one way to segment.

    Attributes:
        experiment: where.
        way: "whole", or the tile size, overlap, window and context.
        confusion: pixel counts.
        same: pixels with the same label as with "whole".
        pixels: all pixels.
        seconds: time of the networks and of labelling.
    """

    experiment: str
    way: str
    confusion: Confusion
    same: int = 0
    pixels: int = 0
    seconds: float = 0.0

    def add(self, truth: np.ndarray, labels: np.ndarray, whole: np.ndarray, seconds: float) -> None:
        """Count an image."""
        self.confusion.add(truth, labels)
        self.same += int((labels == whole).sum())
        self.pixels += labels.size
        self.seconds += seconds

    def result(self) -> dict[str, float | str | None]:
        """The row as JSON."""
        return {
            "experiment": self.experiment,
            "way": self.way,
            "miou": round(float(mean(self.confusion.iou)), 4),
            "pixel_accuracy": self.confusion.pixel_accuracy,
            "agreement": round(self.same / max(1, self.pixels), 4),
            "megapixels_per_second": round(self.pixels / 1e6 / max(self.seconds, 1e-9), 3),
        }


class Tiled:
    """Segments one image with several settings; the networks see each tile once.

    Args:
        model: the model.
        photo: (H, W, 3) uint8.
        vocabulary: the names.
    """

    def __init__(self, model: ModelSurface, photo: np.ndarray, vocabulary: Vocabulary) -> None:
        self.model, self.photo, self.vocabulary = model, photo, vocabulary
        self.views: dict[tuple[int, int, int, int], View] = {}
        limits = (model.settings.threshold,) * len(vocabulary.names)
        self._rule = rule_of(model.settings, vocabulary, limits)
        self.seconds: dict[tuple[int, int, int, int], float] = {}

    def view(self, box: tuple[int, int, int, int]) -> View:
        """The view of a box (top, left, height, width)."""
        if box not in self.views:
            top, left, height, width = box
            started = time.perf_counter()
            part = np.ascontiguousarray(self.photo[top : top + height, left : left + width])
            self.views[box] = encode_views(self.model, [part], self.vocabulary, {})[0]
            self.seconds[box] = time.perf_counter() - started
        return self.views[box]

    def label(self, size: int, overlap: int, window: str, context: float) -> tuple[np.ndarray, float]:
        """The label map, and the seconds that it takes."""
        plan = plan_tiles(self.photo.shape[:2], size, overlap, window)
        boxes = {
            plan.box(row, column) for row in range(len(plan.rows.starts)) for column in range(len(plan.columns.starts))
        }
        whole = (0, 0, *self.photo.shape[:2])
        for box in boxes:
            self.view(box)
        started = time.perf_counter()
        coarse = self.view(whole) if context else None
        blend = Blend(plan, lambda row, column: self.view(plan.box(row, column)), coarse, context, self._rule)
        labels = np.empty(self.photo.shape[:2], np.int32)
        for top in range(0, len(labels), BLOCK):
            rows = slice(top, min(top + BLOCK, len(labels)))
            for columns, block, _ in blend.blocks(rows):
                labels[rows, columns] = block
        seconds = (
            time.perf_counter() - started + sum(self.seconds[box] for box in boxes | ({whole} if context else set()))
        )
        return labels, seconds


def mosaic(folder: Path, split: str, rows: int, columns: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A mosaic of the first photos of one size, without those that have no labelled pixel."""
    data = open_folder(folder, split, skip_unpaired=True)
    cells = []
    for pair in data.pairs:
        photo, labels = read_photo(pair.photo), data.labels(pair)
        if photo.shape[:2] == (height, width) and (labels >= 0).any():
            cells.append((photo, labels))
        if len(cells) == rows * columns:
            break
    picture = np.zeros((rows * height, columns * width, 3), np.uint8)
    truth = np.full(picture.shape[:2], -1, np.int32)
    for index, (photo, labels) in enumerate(cells):
        row, column = divmod(index, columns)
        part = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
        picture[part], truth[part] = photo, labels
    used = -(-len(cells) // columns)
    return picture[: used * height], truth[: used * height]


def compare(
    rows: dict[tuple[str, str], Row],
    experiment: str,
    model: ModelSurface,
    photo: np.ndarray,
    truth: np.ndarray,
    vocabulary: Vocabulary,
    settings: Sequence[tuple[int, int, str, float]],
    labels_of: Sequence[str],
) -> None:
    """Segment an image whole and with all settings, and count both."""
    tiled = Tiled(model, photo, vocabulary)
    started = time.perf_counter()
    whole = model.label(model.encode([photo])[0], vocabulary).label_map
    results = [("whole", whole, time.perf_counter() - started)]
    for setting, label in zip(settings, labels_of, strict=True):
        results.append((label, *tiled.label(*setting)))
    for way, labels, seconds in results:
        row = rows.setdefault((experiment, way), Row(experiment, way, Confusion(len(vocabulary.names))))
        row.add(truth, labels, whole, seconds)


def run_mosaics(root: Path, model: ModelSurface, rows: dict[tuple[str, str], Row]) -> Iterator[None]:
    """The first experiment."""
    for name, (down, across, height, width) in MOSAICS.items():
        folder, split = (root / name).parent, Path(name).name
        data = open_folder(folder, split, skip_unpaired=True)
        photo, truth = mosaic(folder, split, down, across, height, width)
        vocabulary = model.vocabulary(data.names)
        settings = [(size, round(size * OVERLAP), "hann", context) for size in SIZES for context in (0.0, 0.3)]
        settings += [
            (448, 112, "hann", 0.15),
            (448, 0, "hann", 0.0),
            (448, 224, "hann", 0.0),
            (448, 112, "gaussian", 0.0),
        ]
        title = f"mosaic of {name}, {photo.shape[1]} x {photo.shape[0]}"
        labels = [
            f"tiles {size}, overlap {overlap}, {window}, context {context}"
            for size, overlap, window, context in settings
        ]
        compare(rows, title, model, photo, truth, vocabulary, settings, labels)
        yield


def run_small_input(root: Path, model: ModelSurface, rows: dict[tuple[str, str], Row], limit: int) -> Iterator[None]:
    """The second experiment."""
    resize = model.settings.resize
    data = open_folder(root / "coco-mini", "train", skip_unpaired=True)
    vocabulary = model.vocabulary(data.names)
    title = f"network input {SMALL_INPUT}, coco-mini/train"
    try:
        model.settings = replace(model.settings, resize=replace(resize, short_side=SMALL_INPUT))
        count = 0
        for pair in data.pairs:
            photo, truth = read_photo(pair.photo), data.labels(pair)
            if min(photo.shape[:2]) < 400 or not (truth >= 0).any():
                continue
            sizes = [round(min(photo.shape[:2]) * share) for share in SHARES]
            settings = [(size, round(size * OVERLAP), "hann", context) for size in sizes for context in CONTEXTS]
            labels = [
                f"tiles {share:.2f} of the shorter side, context {context}" for share in SHARES for context in CONTEXTS
            ]
            compare(rows, title, model, photo, truth, vocabulary, settings, labels)
            count += 1
            yield
            if count == limit:
                break
    finally:
        model.settings = replace(model.settings, resize=resize)


def run_speed(root: Path, model: ModelSurface) -> list[dict[str, float | str | None]]:
    """Megapixels in a second of processor time, from a file to a label map, on a part of a mosaic."""
    photo, _ = mosaic(root / "camvid-mini", "train", 4, 4, 360, 480)
    common = open_folder(root / "camvid-mini", "train", skip_unpaired=True).names[:10]
    everyday = builtin_vocabulary("everyday").names
    many = tuple(f"{name} {number}" for number in range(2) for name in everyday)[:1000]
    results: list[dict[str, float | str | None]] = []
    for names, size in ((common, 448), (common, 896), (many, 448)):
        with TemporaryDirectory() as folder:
            started = time.process_time()
            segment_tiles(model, photo, names, Path(folder) / "out.tif", tiles=size)
            seconds = time.process_time() - started
        way = f"{len(names)} names, tiles {size}"
        results.append({
            "experiment": f"speed, {photo.shape[1]} x {photo.shape[0]}", "way": way, "miou": None,
            "pixel_accuracy": None, "agreement": None, "megapixels_per_second": round(photo.size / 3e6 / seconds, 3),
        })  # fmt: skip
    return results


def main(
    data: Annotated[Path, typer.Argument(help="Folder with the data sets coco-mini, msrc and camvid-mini.")],
    model: Annotated[str, typer.Option(help="The model.")] = "nano",
    limit: Annotated[int, typer.Option(help="Photos of the second experiment.")] = 40,
    only: Annotated[str, typer.Option(help='"mosaics", "small-input" or "speed"; other results are kept.')] = "",
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("benchmarks/results/tiles.json"),
) -> None:
    """Run both experiments and print a table."""
    network = deop.load(model)
    smallest_region = network.settings.smallest_region
    network.settings = replace(network.settings, smallest_region=0.0)  # tiles have none, so neither has "whole"
    rows: dict[tuple[str, str], Row] = {}
    before = json.loads(output.read_text(encoding="utf-8")) if only and output.exists() else []
    experiments = {
        "small-input": lambda: run_small_input(data, network, rows, limit),
        "mosaics": lambda: run_mosaics(data, network, rows),
    }
    results: list[dict[str, float | str | None]] = before
    for name, run in experiments.items():
        if only not in ("", name):
            continue
        for _ in run():
            new = [row.result() for row in rows.values()]
            done = {row["experiment"] for row in new}
            results = [row for row in before if row["experiment"] not in done] + new
            with replacing(output) as file:
                file.write(json.dumps(results, indent=1).encode() + b"\n")
    if only in ("", "speed"):
        network.settings = replace(network.settings, smallest_region=smallest_region)
        new = run_speed(data, network)
        results = [row for row in results if row["experiment"] != new[0]["experiment"]] + new
        with replacing(output) as file:
            file.write(json.dumps(results, indent=1).encode() + b"\n")
    table = Table("experiment", "way", "mIoU", "pixels", "agreement", "MP/s")
    for result in results:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in result.values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)

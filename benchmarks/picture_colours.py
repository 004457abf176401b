"""Measures whether the colours of a picture can be looked up in its legend.

    python benchmarks/picture_colours.py

Random vocabularies are drawn from the names of COCO-Stuff, ADE20K, Cityscapes and VOC, and given at random to the
regions of the sample photos, which are nano's masks. A region is recognised if its mean colour in the picture, with
outlines, is nearer in Oklab to the swatch of its own name than to the swatch of any other name of the vocabulary. For
colour-blind eyes, picture and swatches are transformed first. The mean is taken of linear light, as eyes blend it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import deop
from deop.images.reading import read_photo
from deop.regions.windows import mask_blocks
from deop.results.blending import swatches
from deop.results.oklab import VISIONS, decode, linear_to_lab

ROOT = Path(__file__).parents[1]
LISTS = ("coco-stuff", "ade20k-150", "cityscapes", "voc")
SIZES = (2, 5, 10, 20, 30, 40, 60)
LEAST_SHARE = 0.001  # of the photo; smaller regions are mostly outline


def main(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos; those in examples/ if omitted.")] = None,
    vocabularies: Annotated[int, typer.Option(min=1, help="Random vocabularies of each size and photo.")] = 10,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Opacity of the colours.")] = 0.5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the shares as JSON.")] = None,
) -> None:
    """Print the share of regions that are recognised, by the number of names and the kind of eyes."""
    paths = photos or sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".jpg", ".png"))
    samples = [partition(path) for path in paths]
    shares = {size: {vision: [0, 0] for vision in VISIONS} for size in SIZES}
    words, random = all_names(), np.random.default_rng(0)
    for size in SIZES:
        for photo, regions in samples:
            for _ in range(vocabularies):
                names = [words[index] for index in random.choice(len(words), size, replace=False)]
                given = random.permutation(np.arange(regions.max() + 1) % size).astype(np.int32)
                for vision, (right, total) in recognised(photo, names, given[regions], alpha):
                    shares[size][vision][0] += right
                    shares[size][vision][1] += total
    table = Table(
        "names", "regions", *VISIONS, title=f"regions recognised by their colour, alpha {alpha}, {len(paths)} photos"
    )
    for size, row in shares.items():
        table.add_row(
            str(size), str(row["normal"][1]), *(f"{100 * right / total:.1f} %" for right, total in row.values())
        )
    sums = {vision: [sum(row[vision][part] for row in shares.values()) for part in (0, 1)] for vision in VISIONS}
    table.add_row("all", str(sums["normal"][1]), *(f"{100 * right / total:.2f} %" for right, total in sums.values()))
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps({"all": sums, **shares}), encoding="utf-8")


def all_names() -> list[str]:
    """The names of the lists, without repetitions."""
    words = set()
    for name in LISTS:
        file = ROOT / "src/deop/text/classes" / f"{name}.json"
        words |= {entry["name"].casefold() for entry in json.loads(file.read_text(encoding="utf-8"))["classes"]}
    return sorted(words)


def partition(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photo (H, W, 3) uint8, and the mask (H, W) int32 that is the most probable at each pixel."""
    photo = read_photo(path)
    encoded = model().encode([photo])[0]
    regions = [masks.argmax(0).numpy() for _, _, masks in mask_blocks(encoded.proposals, encoded.canvas)]
    return photo, np.unique(np.concatenate(regions), return_inverse=True)[1].reshape(photo.shape[:2])


def recognised(
    photo: np.ndarray, names: list[str], labels: np.ndarray, alpha: float
) -> Iterator[tuple[str, tuple[int, int]]]:
    """For each kind of eyes, the number of regions that are recognised, and of all regions that are large enough."""
    result = deop.Segmentation.from_semantic(photo, names, labels)
    picture = decode(np.asarray(result.overlay(alpha, legend=False, labels=False)))
    legend = decode(swatches(result.colours, alpha))
    counts = np.bincount(labels.ravel(), minlength=len(names))
    sums = [
        np.bincount(labels.ravel(), channel.ravel(), minlength=len(names)) for channel in np.moveaxis(picture, -1, 0)
    ]
    shown = np.flatnonzero(counts >= LEAST_SHARE * labels.size)
    means = (np.stack(sums, axis=-1) / np.maximum(1, counts)[:, None])[shown]
    for vision, matrix in VISIONS.items():
        seen, known = (linear_to_lab(np.clip(colours @ matrix.T, 0, 1)) for colours in (means, legend))
        distance = np.linalg.norm(seen[:, None] - known[None], axis=-1)
        yield vision, (int((distance.argmin(axis=1) == shown).sum()), len(shown))


_MODEL: list[deop.DeOP] = []


def model() -> deop.DeOP:
    """nano, loaded once."""
    if not _MODEL:
        _MODEL.append(deop.load("nano", engine="torch"))
    return _MODEL[0]


if __name__ == "__main__":
    typer.run(main)

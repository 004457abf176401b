"""Measures what dropping the names that a photo does not show changes, for a built-in vocabulary and some limits.

    python benchmarks/builtin_vocabularies.py DATASET --split val
    python benchmarks/builtin_vocabularies.py DATASET --split train --candidates --limit 30

Every photo is segmented with all names of the vocabulary, which must contain the names of the data set, and then with
those that each pair of limits keeps (``deop.labelling.present_names``). ``LIMITS`` there was chosen with the second
command on coco-mini/train: it has the highest sum of the three scores.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import deop
from deop.data.folder import open_folder
from deop.errors import SettingError
from deop.labelling import assembly
from deop.labelling.present_names import LIMITS, Limits, keep_present
from deop.regions.encoding import EncodedPhoto
from deop.text.builtin import builtin_vocabulary

ALL: Limits = ((0.0, 0.0),)
CANDIDATES: tuple[Limits, ...] = (
    ALL,
    *(((share, score),) for score in (0.2, 0.3, 0.4, 0.5) for share in (0.005, 0.01, 0.02)),
    *(((0.02, score), (0.005, 0.7)) for score in (0.3, 0.4)),
)


class Scores(NamedTuple):
    """Sums over photos for one rule."""

    right: np.ndarray  # (K,) pixels
    truth: np.ndarray
    predicted: np.ndarray
    photo_miou: list[float]
    names: list[int]


def main(
    dataset: Annotated[Path, typer.Argument(help="A data set whose names are all in the vocabulary.")],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    vocabulary: Annotated[str, typer.Option(help="A built-in vocabulary.")] = "coco",
    candidates: Annotated[bool, typer.Option(help="Compare many rules; else only LIMITS with all names.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N photos.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
) -> None:
    """Print pixel accuracy, mIoU over all photos, mean mIoU of a photo, and names per photo, for each rule."""
    torch.set_num_threads(threads)
    model, names = deop.load("nano", engine="torch"), builtin_vocabulary(vocabulary)
    data = open_folder(dataset, split, skip_unpaired=True)
    index_of = {name: index for index, name in enumerate(names.names)}
    if unknown := [name for name in data.names if name not in index_of]:
        raise SettingError(f"names of {dataset} that {vocabulary} does not have: {', '.join(unknown)}")
    label_of = np.array([*(index_of[name] for name in data.names), -1], np.int32)
    rules = CANDIDATES if candidates else (ALL, LIMITS)
    count = len(names.names)
    sums = [Scores(*(np.zeros(count, np.int64) for _ in range(3)), photo_miou=[], names=[]) for _ in rules]
    pairs = data.pairs[:limit]
    for pair in track(pairs, "segmenting"):
        truth = label_of[data.labels(pair)]
        encoded = model.encode([pair.photo])[0]
        with torch.inference_mode():
            probabilities = model.class_probabilities(encoded, names).cpu().numpy()
            for rule, total in zip(rules, sums, strict=True):
                add(total, truth, label_map(model, encoded, probabilities, rule))
    table = Table("kept: (share, score)", "pixel accuracy", "mIoU", "mIoU per photo", "names per photo", "at most")
    for rule, total in zip(rules, sums, strict=True):
        listed = total.truth > 0
        iou = total.right[listed] / (total.truth + total.predicted - total.right)[listed]
        shares = total.right.sum() / total.truth.sum(), iou.mean(), np.mean(total.photo_miou)
        title = "all names" if rule == ALL else " or ".join(map(str, rule)) + (" *" if rule == LIMITS else "")
        row = [f"{100 * share:.2f}" for share in shares]
        table.add_row(title, *row, f"{np.mean(total.names):.1f}", str(max(total.names)))
    Console(width=120).print(table, f"{len(pairs)} photos of {data.root}, vocabulary {vocabulary}, nano")


def label_map(model: deop.DeOP, encoded: EncodedPhoto, probabilities: np.ndarray, limits: Limits) -> np.ndarray:
    """The semantic map (H, W) with the names that the limits keep."""
    settings = model.settings
    if limits != ALL:
        canvas = encoded.canvas
        probabilities = keep_present(probabilities, encoded.masks, canvas, claim=settings.claim, limits=limits)
    return assembly.semantic(
        probabilities,
        encoded.masks,
        encoded.canvas,
        threshold=settings.threshold,
        claim=settings.claim,
        smallest_region=settings.smallest_region,
    ).labels


def add(total: Scores, truth: np.ndarray, labels: np.ndarray) -> None:
    """Count the pixels of a photo."""
    known, count = truth >= 0, len(total.truth)
    true, predicted = truth[known], labels[known]
    right = np.bincount(true[true == predicted], minlength=count)
    parts = right, np.bincount(true, minlength=count), np.bincount(predicted[predicted >= 0], minlength=count)
    for counts, part in zip(total[:3], parts, strict=True):
        counts += part
    union = parts[1] + parts[2] - right
    total.photo_miou.append(float((right[union > 0] / union[union > 0]).mean()))
    total.names.append(len(np.unique(labels[labels >= 0])))


if __name__ == "__main__":
    typer.run(main)

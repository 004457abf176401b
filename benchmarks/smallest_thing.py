"""Chooses ``Settings.smallest_thing``: the least area of a thing in panoptic and instance mode.

    python benchmarks/smallest_thing.py ../shared/data/coco-things ../shared/data/coco-mini

For a proposer whose masks are not instances, things are the connected pieces of the semantic map, joined by its masks.
Every photo of the data sets is segmented once, with the names of all data sets, and its map is divided with each least
area. The best area has the highest mean of the panoptic quality (PQ) and the average precision (AP) of things. The
first row takes each mask for a thing instead. If a data set labels things only, its unlabelled pixels are taken for
stuff.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deop import load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData, Pair
from deop.errors import DeopError
from deop.evaluation.average_precision import DetectionTally, match_detections, precision_scores
from deop.evaluation.panoptic_quality import count_matches, panoptic_scores
from deop.evaluation.truth import PanopticTruth, TrueSegments
from deop.files import replacing
from deop.labelling.maps import divide_things
from deop.labelling.result import semantic_map
from deop.labelling.same_thing import mask_cells
from deop.labelling.segments import names_of_masks
from deop.model import DeOP
from deop.results.segmentation import Segmentation
from deop.results.segments import Segment
from deop.text.vocabulary import Vocabulary

AREAS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Shares of the photo: one, two and five of each power of ten."""


class Scores:
    """The counts of one way to find things.

    Args:
        things: (K,) bool, which names are countable things.
    """

    def __init__(self, things: np.ndarray) -> None:
        self.things = np.append(things, False)  # the last class: pixels that a data set does not label
        self.matches = np.zeros((4, len(self.things)))
        self.detections = DetectionTally()

    def add(
        self, truth: TrueSegments, panoptic: Segmentation, segments: Sequence[Segment], labelled: np.ndarray
    ) -> None:
        """Count a photo.

        Args:
            truth: its true segments.
            panoptic: its result in panoptic mode.
            segments: the segments in instance mode; those of stuff do not count.
            labelled: (K + 1,) bool, which names the data set of the photo labels.
        """
        classes = np.array([segment.class_id for segment in panoptic.segments], np.int64)
        self.matches += count_matches(truth, panoptic.segment_map, classes, len(self.things)) * labelled
        found = [segment for segment in segments if labelled[segment.class_id] and segment.isthing]
        self.detections.add(match_detections(truth, found, [segment.class_id for segment in found], self.things))

    def summary(self) -> dict[str, float]:
        """The scores in [0, 1]."""
        quality = panoptic_scores(self.matches, self.things)
        scores = {key: float(quality[key]) for key in ("pq", "pq_things", "pq_stuff")}
        return scores | {key: float(value) for key, value in precision_scores(self.detections.total()).items()}


def union(model: DeOP, folders: Sequence[LabelledData]) -> tuple[Vocabulary, list[np.ndarray]]:
    """The names of all data sets, and the index among them of each class of each data set."""
    flags: dict[str, bool] = {}
    for folder in folders:
        for entry in folder.classes:
            flags.setdefault(entry.name, bool(entry.isthing))
    vocabulary = replace(model.vocabulary(list(flags)), isthing=tuple(flags.values()))
    return vocabulary, [np.array([list(flags).index(entry.name) for entry in folder.classes]) for folder in folders]


def truth_of(reader: PanopticTruth, pair: Pair, shape: tuple[int, int], index: np.ndarray, rest: int) -> TrueSegments:
    """The true segments of a photo; with ``rest`` >= 0, unlabelled pixels form a segment of that class."""
    truth = reader.segments(pair, shape)
    classes, segments, crowd = index[truth.classes], truth.segment_map, truth.crowd
    if rest >= 0:
        segments = np.where(segments < 0, len(classes), segments)
        classes, crowd = np.append(classes, rest), np.append(crowd, False)
    return TrueSegments(segments, classes, crowd)


@torch.inference_mode()
def measure(model: DeOP, folders: Sequence[LabelledData], limit: int | None) -> dict[str, Any]:
    """The scores of each way to find things, over all photos."""
    vocabulary, indices = union(model, folders)
    count, things = len(vocabulary.names), np.array(vocabulary.things)
    thresholds = [model.settings.threshold] * count
    rows = {name: Scores(things) for name in ("masks", *AREAS)}
    with Progress(transient=True) as progress:
        for folder, index in zip(folders, indices, strict=True):
            reader = PanopticTruth(folder.root, [entry.id for entry in folder.classes])
            labelled = np.isin(np.arange(count + 1), index)
            rest = count if all(things[index]) else -1
            for pair in progress.track(folder.pairs[:limit], description=folder.root.parent.name):
                encoded = model.encode([pair.photo])[0]
                truth = truth_of(reader, pair, encoded.canvas.photo, index, rest)
                as_instances = replace(encoded, masks_are_instances=True)
                panoptic, instances = (
                    model.label(as_instances, vocabulary, mode=mode) for mode in ("panoptic", "instance")
                )
                rows["masks"].add(truth, panoptic, instances.segments, labelled)
                scores = model.class_probabilities(encoded, vocabulary).cpu().numpy()
                semantic = semantic_map(encoded, scores, vocabulary, model.settings, thresholds)
                cells = mask_cells(encoded.masks, encoded.canvas)
                stuff = names_of_masks(scores, encoded.masks, threshold=model.settings.threshold)
                for area in AREAS:
                    divided = divide_things(semantic, things, smallest_thing=area, stuff=stuff, cells=cells)
                    panoptic = Segmentation.from_panoptic(encoded.photo, vocabulary.names, *divided)
                    rows[area].add(truth, panoptic, panoptic.segments, labelled)
    return {str(name): row.summary() for name, row in rows.items()}


def best_area(scores: dict[str, Any]) -> float:
    """The area with the highest mean of the things' PQ and AP."""
    return max(AREAS, key=lambda area: scores[str(area)]["pq_things"] + scores[str(area)]["ap"])


def main(
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Data sets with panoptic files.")],
    split: Annotated[str, typer.Option(help="The split of each data set.")] = "train",
    model: Annotated[str, typer.Option(help="The model.")] = "nano",
    limit: Annotated[int | None, typer.Option(help="Only the first photos of each data set.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores as JSON.")] = None,
) -> None:
    """Choose the least area of a thing on training photos."""
    try:
        folders = [open_folder(path, split, skip_unpaired=True) for path in datasets]
        scores = measure(load(model, engine="torch"), folders, limit)
    except DeopError as error:
        raise typer.BadParameter(str(error)) from error
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    keys = {"pq": "PQ", "pq_things": "things", "pq_stuff": "stuff", "ap": "AP of things", "ap_50": "at IoU 0.5"}
    for heading in ("Things", *keys.values()):
        table.add_column(heading, justify="left" if heading == "Things" else "right")
    for name, row in scores.items():
        what = "masks" if name == "masks" else f"pieces of at least {100 * float(name):g} %"
        table.add_row(what, *(f"{100 * row[key]:.1f}" for key in keys))
    console = Console(highlight=False)
    console.print(table)
    photos = sum(len(folder.pairs[:limit]) for folder in folders)
    console.print(f"{photos} photos; best least area: {100 * best_area(scores):g} % of the photo")
    if json_file:
        with replacing(json_file) as file:
            file.write((json.dumps(scores, indent=2) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)

"""Compares engines and precisions on labelled photos: the labels of all pixels, and the scores of ``deop evaluate``.

    python benchmarks/engines_agree.py ../shared/data/coco-mini
    python benchmarks/engines_agree.py ../shared/data/coco-mini --model exported --torch-model clip-b16
    python benchmarks/engines_agree.py ../shared/data/coco-mini --engine torch --precision int8

Torch in float32 on the CPU is the reference. Every precision of the ONNX folder, or with --engine torch those that are
asked for, is compared with it, with the model's own masks and with the true masks as given ones, in semantic and in
panoptic mode. The maps of all photos are kept in memory, about 2 MB for a photo of 640 x 480 px.
``same_answer.py`` needs no labelled photos.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deop import load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.errors import DeopError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.evaluate import EvaluatedPhoto, evaluate
from deop.evaluation.protocol import Protocol

GOALS = {"float32": 0.999, "float16": 0.99, "bfloat16": 0.97, "int8": 0.99}
"""Share of equal pixels over all photos that each precision should reach."""

POINTS = 0.3
"""Difference of a score, in per cent, that should not be exceeded."""

MASKS = {"model": "own masks", "oracle": "given masks"}
SCORES = {
    "mIoU": "miou", "pixel accuracy": "pixel_accuracy", "mean accuracy": "mean_accuracy",
    "region accuracy": "region_accuracy", "panoptic quality": "panoptic_quality.pq",
    "average precision of things": "instance_quality.ap",
    "masks: average recall at 100": "proposal_quality.average_recall_100",
    "masks: mean best IoU": "proposal_quality.mean_best_iou",
}  # fmt: skip


@dataclass(frozen=True)
class Maps:
    """The predictions for a photo: label map (H, W) int16; panoptic map (H, W) int16 and its classes."""

    labels: np.ndarray
    segments: np.ndarray
    classes: tuple[int, ...]


@dataclass
class Run:
    """The scores of an evaluation, and the predictions for each photo by its key."""

    scores: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Maps] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How far two runs agree.

    Attributes:
        overall: share of equal pixels over all photos.
        worst: share of equal pixels in the photo where it is lowest.
        worst_photo: key of that photo.
        differing: number of photos with a different pixel.
    """

    overall: float
    worst: float
    worst_photo: str
    differing: int


class Recording:
    """A model that remembers the photo that it encoded last."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, *arguments: Any, **options: Any) -> list[Any]:
        """As that of the model."""
        encoded: list[Any] = self.model.encode(*arguments, **options)
        self.last = encoded[-1]
        return encoded


def run(model: Any, data: LabelledData, protocol: Protocol, progress: Callable[[int, int], None]) -> Run:
    """Evaluate a model, and keep its predictions."""
    recording, result = Recording(model), Run()

    def keep(photo: EvaluatedPhoto) -> None:
        panoptic = model.label(recording.last, photo.space.vocabulary, mode="panoptic")
        result.maps[photo.pair.key] = Maps(
            photo.label_map.astype(np.int16),
            panoptic.segment_map.astype(np.int16),
            tuple(segment.class_id for segment in panoptic.segments),
        )

    result.scores = evaluate(recording, data, protocol, progress, bootstrap=Bootstrap(1), watch=keep)
    return result


def equal_labels(one: Maps, other: Maps) -> int:
    """Number of pixels with the same name in semantic mode."""
    return int((one.labels == other.labels).sum())


def equal_segments(one: Maps, other: Maps) -> int:
    """Number of pixels that are in the same segment in panoptic mode, whatever its number.

    Two segments are the same if they have one name and each shares more pixels with the other than with any other one.
    """
    rows, columns = len(one.classes) + 1, len(other.classes) + 1  # the last row and column: no segment
    pairs = (one.segments.astype(np.int64) % rows) * columns + other.segments % columns
    shared = np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)
    same = np.array([*one.classes, -1])[:, None] == np.array([*other.classes, -1])
    overlap = np.where(same, shared, 0)
    mutual = (overlap == overlap.max(1, keepdims=True)) & (overlap == overlap.max(0))
    return int(overlap[mutual].sum())


def agreement(reference: Run, actual: Run, count: Callable[[Maps, Maps], int]) -> Agreement:
    """Compare the predictions for all photos."""
    equal = {key: count(maps, actual.maps[key]) for key, maps in reference.maps.items()}
    pixels = {key: maps.labels.size for key, maps in reference.maps.items()}
    shares = {key: equal[key] / pixels[key] for key in equal}
    worst = min(shares, key=shares.__getitem__)
    differing = sum(share < 1 for share in shares.values())
    return Agreement(sum(equal.values()) / sum(pixels.values()), shares[worst], worst, differing)


def score_of(scores: dict[str, Any], key: str) -> float | None:
    """A score by its key, which may be nested: "panoptic_quality.pq"."""
    group, _, name = key.rpartition(".")
    value: float | None = ((scores[group] or {}) if group else scores).get(name)
    return value


def comparisons(model: Any, precisions: list[str] | None) -> list[tuple[str, str]]:
    """The pairs of a kind of masks, a key of ``MASKS``, and a precision that the model has graphs of; torch has all."""
    if model.engine == "torch":
        return [(kind, precision) for kind in MASKS for precision in precisions or ("int8", "float16", "bfloat16")]
    parts = model.config.onnx
    chosen = precisions or list(parts.graphs)
    needed = {"model": "encode", "oracle": "regions"}
    return [
        (kind, precision) for kind in MASKS for precision in chosen if getattr(parts.graphs_of(precision), needed[kind])
    ]


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder.")],
    split: Annotated[str | None, typer.Option(help="Its split; default: val, if it has splits.")] = None,
    model: Annotated[str, typer.Option(help="The model with ONNX graphs.")] = "nano",
    torch_model: Annotated[str | None, typer.Option(help="The model that torch runs; default: the same.")] = None,
    engine: Annotated[str, typer.Option(help="onnx or torch: what is compared with torch in float32.")] = "onnx",
    device: Annotated[str, typer.Option(help="Where this engine computes, as in deop segment.")] = "cpu",
    precision: Annotated[list[str] | None, typer.Option(help="Only this precision; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N photos.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results as JSON.")] = None,
) -> None:
    """Compare the labels and scores of both engines."""
    data, references, written = open_folder(dataset, split), {}, []
    labels = Table("masks", "precision", "mode", "equal pixels", "in the worst photo", "photos that differ", "goal")
    table = Table("masks", "precision", "score", "torch, float32", "compared", "difference", "goal")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def measured(name: str, kind: str, **options: Any) -> Run:
            bar.update(task, description=f"{options['engine']} {options['dtype']}, {MASKS[kind]}", completed=0)
            network = load(name, proposer="given" if kind == "oracle" else None, **options)
            protocol = Protocol(proposals=kind, limit=limit)
            return run(network, data, protocol, lambda done, total: bar.update(task, completed=done, total=total))

        for kind, dtype in comparisons(load(model, engine=engine, device=device), precision):
            if kind not in references:
                references[kind] = measured(torch_model or model, kind, engine="torch", device="cpu", dtype="float32")
            reference = references[kind]
            actual = measured(model, kind, engine=engine, device=device, dtype=dtype)
            common = {"masks": MASKS[kind], "precision": dtype}
            for mode, count in (("semantic", equal_labels), ("panoptic", equal_segments)):
                result = agreement(reference, actual, count)
                written.append({**common, "mode": mode, **asdict(result)})
                labels.add_row(
                    *common.values(), mode, f"{100 * result.overall:.4f} %", f"{100 * result.worst:.3f} %",
                    f"{result.differing} of {len(reference.maps)}", _verdict(result.overall >= GOALS[dtype]),
                )  # fmt: skip
            for label, key in SCORES.items():
                expected, value = score_of(reference.scores, key), score_of(actual.scores, key)
                if expected is not None and value is not None:
                    written.append({**common, "score": key, "reference": expected, "value": value})
                    points = 100 * (value - expected)
                    table.add_row(
                        *common.values(), label, f"{100 * expected:.2f} %", f"{100 * value:.2f} %", f"{points:+.3f}",
                        _verdict(abs(points) <= POINTS),
                    )  # fmt: skip
    console = Console(highlight=False, width=120)
    for part in (labels, table):
        part.box = None
        console.print(part, "")
    if json_file:
        json_file.write_text(json.dumps(written, indent=1), encoding="utf-8")


def _verdict(reached: bool) -> str:
    return "reached" if reached else "[bold]missed[/bold]"


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error

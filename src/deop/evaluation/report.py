"""The report of an evaluation: one HTML page without external files, rendered from report.html beside this file."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop._version import __version__
from deop.dependencies import missing
from deop.evaluation.gallery import Gallery
from deop.evaluation.metrics import Confusion, accuracy
from deop.evaluation.score_calibration import calibration_error, reliability
from deop.evaluation.uncounted import describe_uncounted
from deop.files import replacing
from deop.results.colours import vocabulary_colours

if TYPE_CHECKING:
    from jinja2 import Template

_CONFUSED_CLASSES = 12  # with the lowest IoU
_NAMES_PER_BAR = 4  # besides the correct one

_CARDS = (
    ("mIoU", "miou", "mean over the classes in the truth"),
    ("Seen mIoU", "seen_miou", "names that training saw"),
    ("Unseen mIoU", "unseen_miou", "names that training did not see"),
    ("hIoU", "hiou", "harmonic mean of seen and unseen"),
    ("Pixel accuracy", "pixel_accuracy", "fraction of correct pixels"),
    ("Mean accuracy", "mean_accuracy", "mean over classes of pixel accuracy"),
    ("Region accuracy", "region_accuracy", "fraction of true masks with the correct name"),
)
_MORE = (
    ("mIoU of trained names", "trained_names_miou"),
    ("mIoU of new names", "new_names_miou"),
    ("mIoU, absent classes as 0", "miou_absent_as_zero"),
    ("Seen mIoU, absent classes as 0", "seen_miou_absent_as_zero"),
    ("Unseen mIoU, absent classes as 0", "unseen_miou_absent_as_zero"),
    ("hIoU, absent classes as 0", "hiou_absent_as_zero"),
    ("Panoptic quality (PQ)", "panoptic_quality.pq"),
    ("Segmentation quality (SQ)", "panoptic_quality.sq"),
    ("Recognition quality (RQ)", "panoptic_quality.rq"),
    ("PQ of things", "panoptic_quality.pq_things"),
    ("PQ of stuff", "panoptic_quality.pq_stuff"),
    ("Masks: average recall at 1", "proposal_quality.average_recall_1"),
    ("Masks: average recall at 10", "proposal_quality.average_recall_10"),
    ("Masks: average recall at 100", "proposal_quality.average_recall_100"),
    ("Masks: mean best IoU", "proposal_quality.mean_best_iou"),
    ("Masks: mean best IoU, by area", "proposal_quality.mean_best_iou_by_area"),
)


@dataclass(frozen=True)
class ScoreRow:
    """A score and its interval, all in [0, 1]."""

    label: str
    value: float
    low: float | None
    high: float | None
    note: str = ""


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes; ``share`` is the class's fraction of all known pixels."""

    name: str
    iou: float
    low: float | None
    high: float | None
    accuracy: float
    images: int
    share: float
    unseen: bool


@dataclass(frozen=True)
class BarPart:
    """A part of a bar. Its colour is "#rrggbb", "right" for correct pixels, or None for the rest."""

    label: str
    share: float
    colour: str | None


@dataclass(frozen=True)
class ClassConfusion:
    """What the pixels of a class are predicted as, and what the pixels that are predicted as it truly are."""

    name: str
    iou: float
    predicted: list[BarPart]
    truth: list[BarPart]


def write_report(
    folder: Path, scores: Mapping[str, Any], gallery: Gallery, command: str, *, device: str = "cpu"
) -> Path:
    """Write a report to ``index.html`` in a folder.

    Args:
        folder: the folder; created if missing.
        scores: the result of ``evaluate``.
        gallery: the gallery whose ``add`` was the ``watch`` of ``evaluate``.
        command: the command line that reproduces the evaluation, or another description.
        device: the device that the model ran on.

    Returns:
        The path of the page.

    Raises:
        OutputError: the folder cannot be written.
        MissingDependencyError: jinja2 is not installed.
    """
    template = load_template()
    confusion = gallery.confusion or Confusion(len(scores["per_class"]))
    rows = list(_class_rows(scores, confusion))
    absent = [name for name, value in scores["per_class"].items() if value is None]
    text = template.render(
        scores=scores,
        cards=[row for row in (_score_row(scores, *card) for card in _CARDS) if row],
        more=[row for row in (_score_row(scores, *line) for line in _MORE) if row],
        rows=sorted(rows, key=lambda row: (-row.iou, row.name)),
        rare=sum(row.images < 3 for row in rows),
        absent=absent,
        confusions=list(_confusions(list(scores["per_class"]), confusion, rows)),
        best=gallery.best,
        worst=[one for one in gallery.worst if one not in gallery.best],
        histogram=np.histogram(gallery.accuracies, 10, (0, 1))[0].tolist(),
        class_histogram=np.histogram([row.iou for row in rows], 10, (0, 1))[0].tolist(),
        calibration=_calibration(gallery),
        settings=_settings(scores),
        versions=_versions(scores["engine"], device),
        command=command,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    target = folder / "index.html"
    with replacing(target) as file:
        file.write(text.encode())
    return target


def load_template() -> "Template":
    """The template of the page.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise missing("a report (--report)", "jinja2") from error
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"percent": _percent, "short": _short}
    return page.get_template("report.html")


def _score_row(scores: Mapping[str, Any], label: str, key: str, note: str = "") -> ScoreRow | None:
    part, _, inner = key.rpartition(".")
    value = ((scores.get(part) or {}) if part else scores).get(inner)
    low, high = scores["intervals"].get(key, (None, None))
    return None if value is None else ScoreRow(label, value, low, high, note)


def _class_rows(scores: Mapping[str, Any], confusion: Confusion) -> Iterator[ClassRow]:
    counts = confusion.counts
    share = counts[1] / max(counts[1].sum(), 1)
    for index, (name, value) in enumerate(scores["per_class"].items()):
        if value is not None:
            low, high = scores["per_class_intervals"][name] or (None, None)
            recall, images = float(accuracy(counts)[index]), scores["per_class_images"][name]
            yield ClassRow(name, value, low, high, recall, images, float(share[index]), name in scores["unseen"])


def _confusions(names: list[str], confusion: Confusion, rows: list[ClassRow]) -> Iterator[ClassConfusion]:
    """The classes with the lowest IoU below 1; of two classes with the same IoU, the more frequent one is first."""
    worst = sorted((row for row in rows if row.iou < 1), key=lambda row: (row.iou, -row.share))[:_CONFUSED_CLASSES]
    matrix = confusion.matrix
    for row in worst:
        index = names.index(row.name)
        yield ClassConfusion(
            row.name, row.iou, _bar_parts(names, matrix[index], index), _bar_parts(names, matrix[:, index], index)
        )


def _bar_parts(names: list[str], counts: np.ndarray, correct: int) -> list[BarPart]:
    """The parts of a bar: correct pixels, the most frequent other classes, the rest, and pixels without a name."""
    total = counts.sum()
    if not total:
        return []
    others = [k for k in np.argsort(-counts[: len(names)], kind="stable").tolist() if k != correct and counts[k]]
    chosen = others[:_NAMES_PER_BAR]
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in vocabulary_colours(names)[chosen].tolist()]
    parts = [BarPart("correct", counts[correct] / total, "right")] if counts[correct] else []
    parts += [BarPart(names[k], counts[k] / total, colour) for k, colour in zip(chosen, colours, strict=True)]
    if rest := others[_NAMES_PER_BAR:]:
        parts.append(BarPart(f"{len(rest)} more", counts[rest].sum() / total, None))
    if len(counts) > len(names) and counts[-1]:
        parts.append(BarPart("no name", counts[-1] / total, None))
    return parts


def _calibration(gallery: Gallery) -> dict[str, Any] | None:
    """The reliability of the scores, and the expected calibration error; None for fewer than 20 segments."""
    if len(gallery.scores) < 20:
        return None
    points = reliability(gallery.scores, gallery.correct)
    return {"points": points, "error": calibration_error(points), "segments": len(gallery.scores)}


def _settings(scores: Mapping[str, Any]) -> dict[str, str]:
    names = {
        "Model": "model", "Data": "data", "Protocol": "protocol", "Masks": "proposals", "Engine": "engine",
        "Precision": "precision", "Severance": "severance",
        "Classifier": "classifier", "Anchors": "anchors", "Names": "names", "Threshold": "threshold",
        "Background names": "background", "Unseen names": "unseen",
    }  # fmt: skip
    lines = {}
    for label, key in names.items():
        value = scores[key]
        if value not in (None, []):
            lines[label] = ", ".join(value) if isinstance(value, list) else str(value)
    lines["Photos"] = f"{scores['images']}, {scores['seconds_per_image']:.2f} s each"
    if uncounted := describe_uncounted(scores):
        lines["Not counted"] = ". ".join(uncounted)
    lines["Intervals"] = (
        f"{100 * scores['confidence']:g} %, percentile bootstrap over photos, {scores['resamples']:,} resamples, "
        f"seed {scores['seed']}"
    )
    return lines


def _versions(engine: str, device: str) -> dict[str, str]:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    name = "onnxruntime" if engine == "onnx" else "torch"
    library = import_module(name)  # its packages have several names, such as onnxruntime-gpu
    if engine == "torch" and device.startswith("cuda"):
        machine += f", {library.cuda.get_device_name(device)}"
    return {
        "deop": __version__,
        name: library.__version__,
        "numpy": np.__version__,
        "Python": platform.python_version(),
        "Machine": machine,
        "Device": device,
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _short(value: float) -> str:
    """A share for a label: whole per cent, "<1 %" for small shares above 0."""
    return "<1 %" if 0 < value < 0.005 else f"{100 * value:.0f} %"

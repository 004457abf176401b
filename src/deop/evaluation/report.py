"""A page about an evaluation: one HTML file that needs nothing else, made from report.html beside this file."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deop._version import __version__
from deop.evaluation.gallery import Gallery
from deop.evaluation.metrics import Confusion, accuracy
from deop.evaluation.score_calibration import calibration_error, reliability
from deop.files import replacing
from deop.results.colours import name_colours

_WORST = 12  # classes whose confusions are shown
_NAMED = 4  # names that each of them is taken for, one by one

_CARDS = (
    ("mIoU", "miou", "mean over the classes of the truth"),
    ("Seen mIoU", "seen_miou", "names that training saw"),
    ("Unseen mIoU", "unseen_miou", "names that it did not"),
    ("hIoU", "hiou", "harmonic mean of the two"),
    ("Pixel accuracy", "pixel_accuracy", "pixels with the right name"),
    ("Mean accuracy", "mean_accuracy", "the same, mean over classes"),
    ("Region accuracy", "region_accuracy", "true masks named rightly"),
)
_MORE = (
    ("mIoU of names trained with", "trained_names_miou"),
    ("mIoU of new names", "new_names_miou"),
    ("mIoU, absent classes counted as 0", "miou_absent_as_zero"),
    ("Seen mIoU, the same way", "seen_miou_absent_as_zero"),
    ("Unseen mIoU, the same way", "unseen_miou_absent_as_zero"),
    ("hIoU, the same way", "hiou_absent_as_zero"),
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
class Score:
    """A number with its interval, all in [0, 1]."""

    label: str
    value: float
    low: float | None
    high: float | None
    note: str = ""


@dataclass(frozen=True)
class ClassRow:
    """A class of the table."""

    name: str
    iou: float
    low: float | None
    high: float | None
    accuracy: float
    images: int
    share: float  # of all known pixels
    unseen: bool


@dataclass(frozen=True)
class Part:
    """A stretch of a bar."""

    label: str
    share: float
    colour: str | None  # None: neither right nor a name of its own


@dataclass(frozen=True)
class Taken:
    """Where the pixels of a class went, and whose pixels got its name."""

    name: str
    iou: float
    named: list[Part]
    given: list[Part]


def write_report(
    folder: Path, found: Mapping[str, Any], gallery: Gallery, command: str, *, device: str = "cpu"
) -> Path:
    """Write ``index.html`` into a folder.

    Args:
        folder: made where it is missing.
        found: what ``evaluate`` returned.
        gallery: what ``watch=gallery.add`` collected meanwhile.
        command: the command line, or what else made it.
        device: that the model ran on.

    Returns:
        The path of the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"percent": _percent, "short": _short}
    confusion = gallery.confusion or Confusion(len(found["per_class"]))
    rows = list(_class_rows(found, confusion))
    absent = [name for name, value in found["per_class"].items() if value is None]
    text = page.get_template("report.html").render(
        found=found,
        cards=[score for score in (_score(found, *card) for card in _CARDS) if score],
        more=[score for score in (_score(found, *line) for line in _MORE) if score],
        rows=sorted(rows, key=lambda row: (-row.iou, row.name)),
        rare=sum(row.images < 3 for row in rows),
        absent=absent,
        taken=list(_confusions(list(found["per_class"]), confusion, rows)),
        best=gallery.best,
        worst=[one for one in gallery.worst if one not in gallery.best],
        histogram=np.histogram(gallery.accuracies, 10, (0, 1))[0].tolist(),
        class_histogram=np.histogram([row.iou for row in rows], 10, (0, 1))[0].tolist(),
        calibration=_calibration(gallery),
        settings=_settings(found),
        versions=_versions(device),
        command=command,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    target = folder / "index.html"
    with replacing(target) as file:
        file.write(text.encode())
    return target


def _score(found: Mapping[str, Any], label: str, key: str, note: str = "") -> Score | None:
    part, _, inner = key.rpartition(".")
    value = ((found.get(part) or {}) if part else found).get(inner)
    low, high = found["intervals"].get(key, (None, None))
    return None if value is None else Score(label, value, low, high, note)


def _class_rows(found: Mapping[str, Any], confusion: Confusion) -> Iterator[ClassRow]:
    counts = confusion.counts
    share = counts[1] / max(counts[1].sum(), 1)
    for index, (name, value) in enumerate(found["per_class"].items()):
        if value is not None:
            low, high = found["per_class_intervals"][name] or (None, None)
            recall, images = float(accuracy(counts)[index]), found["per_class_images"][name]
            yield ClassRow(name, value, low, high, recall, images, float(share[index]), name in found["unseen"])


def _confusions(names: list[str], confusion: Confusion, rows: list[ClassRow]) -> Iterator[Taken]:
    """The classes of the lowest IoU, of equal ones those with most pixels; none that is wholly right."""
    worst = sorted((row for row in rows if row.iou < 1), key=lambda row: (row.iou, -row.share))[:_WORST]
    matrix = confusion.matrix
    for row in worst:
        index = names.index(row.name)
        yield Taken(row.name, row.iou, _parts(names, matrix[index], index), _parts(names, matrix[:, index], index))


def _parts(names: list[str], counts: np.ndarray, own: int) -> list[Part]:
    """A bar: what is right, the most frequent others, the rest, and what has no name."""
    total = counts.sum()
    if not total:
        return []
    others = [k for k in np.argsort(-counts[: len(names)], kind="stable").tolist() if k != own and counts[k]]
    chosen = others[:_NAMED]
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in name_colours([names[k] for k in chosen]).tolist()]
    parts = [Part("right", counts[own] / total, "right")] if counts[own] else []
    parts += [Part(names[k], counts[k] / total, colour) for k, colour in zip(chosen, colours, strict=True)]
    if rest := others[_NAMED:]:
        parts.append(Part(f"{len(rest)} more", counts[rest].sum() / total, None))
    if len(counts) > len(names) and counts[-1]:
        parts.append(Part("no name", counts[-1] / total, None))
    return parts


def _calibration(gallery: Gallery) -> dict[str, Any] | None:
    """Score against share of right segments, and their mean distance weighted by number."""
    if len(gallery.scores) < 20:
        return None
    points = reliability(gallery.scores, gallery.right)
    return {"points": points, "error": calibration_error(points), "segments": len(gallery.scores)}


def _settings(found: Mapping[str, Any]) -> dict[str, str]:
    names = {
        "Model": "model", "Data": "data", "Protocol": "protocol", "Masks": "proposals", "Severance": "severance",
        "Classifier": "classifier", "Anchors": "anchors", "Names asked for": "names", "Threshold": "threshold",
        "Background names": "background", "Unseen names": "unseen",
    }  # fmt: skip
    lines = {}
    for label, key in names.items():
        value = found[key]
        if value not in (None, []):
            lines[label] = ", ".join(value) if isinstance(value, list) else str(value)
    lines["Photos"] = f"{found['images']}, {found['seconds_per_image']:.2f} s each"
    if found["images_without_truth"]:
        lines["Left out"] = f"{found['images_without_truth']} photos of which nothing is known"
    lines["Intervals"] = (
        f"{100 * found['confidence']:g} %, percentile bootstrap over photos, {found['resamples']:,} resamples, "
        f"seed {found['seed']}"
    )
    return lines


def _versions(device: str) -> dict[str, str]:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    if device.startswith("cuda"):
        machine += f", {torch.cuda.get_device_name(device)}"
    return {
        "deop": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "Python": platform.python_version(),
        "Machine": machine,
        "Device": device,
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _short(value: float) -> str:
    """A share for a label: whole per cent, and "<1" for what is there but less."""
    return "<1 %" if 0 < value < 0.005 else f"{100 * value:.0f} %"

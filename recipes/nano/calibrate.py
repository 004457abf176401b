"""Choose the score threshold of the small model, and measure the calibration of its scores.

    python -m recipes.nano.calibrate --model FOLDER --data FOLDER [--split SPLIT] [--plot FILE]

Choose the threshold with a model that held out photos (``tune``), on those photos (``split.py``); measure the shipped
model on coco-mini/val. The names requested of each photo are: those present, each of them alone, those present and five
absent ones, all names, and three absent names one at a time. Names that the model was not trained with are left out,
and their pixels do not count. The plot needs matplotlib.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deop import load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData, Pair
from deop.evaluation.score_calibration import calibration_error, reliability
from deop.labelling.assembly import semantic
from deop.model import DeOP

SEED = 0
ABSENT = 3
"""Absent names per photo that are requested alone."""
MIXED = 5
"""Absent names that are requested beside those present."""
STEP = 4
"""Every n-th pixel per axis is evaluated."""


@dataclass
class Predictions:
    """Predictions for many requests.

    Attributes:
        segment_scores: mean score of each predicted segment of which at least half is labelled.
        segment_correct: whether most of its labelled pixels are correct.
        present: per photo, (P, 2): score and correctness of each pixel if the names present are requested.
        alone: per present name, (P, 2): score of each pixel, and whether it shows the name, if that alone is requested.
        absent: per absent name, (P,): score of each pixel if that name alone is requested.
    """

    segment_scores: list[float] = field(default_factory=list)
    segment_correct: list[bool] = field(default_factory=list)
    present: list[np.ndarray] = field(default_factory=list)
    alone: list[np.ndarray] = field(default_factory=list)
    absent: list[np.ndarray] = field(default_factory=list)


def requests(present: list[str], names: list[str], rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Yield the kind of each request and its names, for a photo that shows the names ``present``."""
    absent = [name for name in names if name not in present]
    yield "present", present
    yield "mixed", [*present, *rng.sample(absent, MIXED)]
    yield "all", names
    for name in present:
        yield "alone", [name]
    for name in rng.sample(absent, ABSENT):
        yield "absent", [name]


def predict(model: DeOP, data: LabelledData, pairs: Sequence[Pair]) -> Predictions:
    """Run all requests on some photos."""
    trained = set(model.settings.calibration.trained_names)
    known = [index for index, name in enumerate(data.names) if trained & set(name.split("|"))]
    new_index = np.full(len(data.names) + 1, -1)  # the last entry is for unlabelled pixels, -1
    new_index[known] = np.arange(len(known))
    names, predictions, rng = [data.names[index] for index in known], Predictions(), random.Random(SEED)
    for pair in pairs:
        truth = new_index[data.labels(pair)]
        if not (truth >= 0).any():
            continue
        present = [names[index] for index in np.unique(truth[truth >= 0])]
        encoded = model.encode([pair.photo])[0]
        for kind, requested in requests(present, names, rng):
            probabilities = model.class_probabilities(encoded, requested).cpu().numpy()
            labels, scores = semantic(probabilities, encoded.masks, encoded.canvas)
            correct = np.array([*(names.index(name) for name in requested), -2])[labels] == truth
            if kind == "absent":
                predictions.absent.append(scores[::STEP, ::STEP].ravel())
            elif kind in ("present", "alone"):
                labelled = (truth >= 0)[::STEP, ::STEP]
                target = predictions.present if kind == "present" else predictions.alone
                target.append(np.stack([scores[::STEP, ::STEP][labelled], correct[::STEP, ::STEP][labelled]], 1))
            for index in range(len(requested)):
                segment = labels == index
                labelled = segment & (truth >= 0)
                if segment.any() and labelled.sum() >= 0.5 * segment.sum():
                    predictions.segment_scores.append(float(scores[segment].mean()))
                    predictions.segment_correct.append(bool(correct[labelled].mean() > 0.5))
    return predictions


def rates(predictions: Predictions, threshold: float) -> list[float]:
    """Evaluate a threshold.

    Returns:
        With the names present requested, the fraction of pixels that are correct, and that are labelled; the mean IoU
        of a present name requested alone; the fraction of pixels that are labelled if an absent name is requested.
    """
    present = np.concatenate(predictions.present)
    is_labelled = present[:, 0] >= threshold
    ious = []
    for scores, truth in (pixels.T for pixels in predictions.alone):
        predicted = scores >= threshold
        ious.append((predicted * truth).sum() / max((predicted | (truth > 0)).sum(), 1))
    absent = float(np.mean([(scores >= threshold).mean() for scores in predictions.absent]))
    return [float((present[:, 1] * is_labelled).mean()), float(is_labelled.mean()), float(np.mean(ious)), absent]


def plot(rows: list[tuple[float, float, int]], photos: int, file: Path) -> None:
    """Plot the reliability diagram."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.6, 4.4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect calibration")
    axes.plot([row[0] for row in rows], [row[1] for row in rows], "o-", color="tab:blue", label="nano", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score of a segment", ylabel="fraction that is correct", aspect="equal")
    axes.set_title(f"{sum(row[2] for row in rows)} segments of {photos} photos, ten bins of equal size", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Print the tables, and save the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model to evaluate")
    parser.add_argument("--data", type=Path, required=True, help="directory with labelled photos, such as coco-mini")
    parser.add_argument("--split", help="its split (default: val, if it has splits)")
    parser.add_argument("--plot", type=Path, help="save the reliability diagram to this file")
    parser.add_argument("--limit", type=int, help="only use the first photos")
    args = parser.parse_args()
    data = open_folder(args.data, args.split, skip_unpaired=True)
    model = load(args.model, engine="torch")
    pairs = data.pairs[: args.limit]
    predictions = predict(model, data, pairs)
    print("threshold  correct labelled  alone  absent  correct + alone")
    for threshold in (0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        correct, labelled, alone, absent = rates(predictions, threshold)
        print(f"{threshold:9.2f}  {correct:7.3f} {labelled:8.3f} {alone:6.3f}  {absent:6.3f}  {correct + alone:15.3f}")
    rows = reliability(predictions.segment_scores, predictions.segment_correct)
    print("segments in ten bins of equal size: mean score, fraction correct, number")
    for score, correct, count in rows:
        print(f"  {score:.3f} {correct:.3f} {count}")
    print(f"expected calibration error {calibration_error(rows):.3f}")
    if args.plot:
        plot(rows, len(pairs), args.plot)


if __name__ == "__main__":
    main()

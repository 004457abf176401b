"""How far the small model's scores can be believed, and the threshold for "none of these".

python recipes/nano/calibrate.py --model FOLDER --data DATA [--picture FILE]

The threshold is chosen on every second photo of coco-mini/val; the other photos are reported. Each photo is asked for
the names in it, for each of them alone, for all of them and five that are not in it, for all names, and for three
absent names one at a time. The picture needs matplotlib.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deop import load
from deop.data.folder import LabelledFolder, Pair, open_folder
from deop.evaluation.score_calibration import calibration_error, reliability
from deop.model import DeOP
from deop.regions.assembly import semantic

SEED = 0
ABSENT = 3  # single names that are not in a photo
MIXED = 5  # absent names beside those in it
STEP = 4  # every fourth pixel a side is looked at


@dataclass
class Answers:
    """Answers to many questions."""

    segment_scores: list[float] = field(default_factory=list)
    segment_right: list[bool] = field(default_factory=list)
    asked: list[np.ndarray] = field(default_factory=list)  # (P, 2) of a question by names in the photo: score, right
    alone: list[np.ndarray] = field(default_factory=list)  # (P, 2) of one name that is in the photo: score, true
    absent: list[np.ndarray] = field(default_factory=list)  # (P,) scores where one absent name was asked for


def questions(present: list[str], names: list[str], chance: random.Random) -> Iterator[tuple[str, list[str]]]:
    """What a photo with the names ``present`` is asked for."""
    others = [name for name in names if name not in present]
    yield "present", present
    yield "mixed", [*present, *chance.sample(others, MIXED)]
    yield "all", names
    for name in present:
        yield "alone", [name]
    for name in chance.sample(others, ABSENT):
        yield "absent", [name]


def gather(model: DeOP, data: LabelledFolder, pairs: list[Pair]) -> Answers:
    """Put the questions to a model."""
    names, answers, chance = list(data.names), Answers(), random.Random(SEED)
    for pair in pairs:
        truth = data.labels(pair)
        present = [names[index] for index in np.unique(truth[truth >= 0])]
        encoded = model.encode([pair.photo])[0]
        for kind, asked in questions(present, names, chance):
            votes = model.class_probabilities(encoded, asked)
            labels, scores = semantic(votes, encoded.proposals, encoded.canvas)
            right = np.array([*(names.index(name) for name in asked), -2])[labels] == truth
            if kind == "absent":
                answers.absent.append(scores[::STEP, ::STEP].ravel())
            elif kind in ("present", "alone"):
                known = (truth >= 0)[::STEP, ::STEP]
                counted = answers.asked if kind == "present" else answers.alone
                counted.append(np.stack([scores[::STEP, ::STEP][known], right[::STEP, ::STEP][known]], 1))
            for name in range(len(asked)):
                own = labels == name
                known = own & (truth >= 0)
                if own.any() and known.sum() >= 0.5 * own.sum():
                    answers.segment_scores.append(float(scores[own].mean()))
                    answers.segment_right.append(bool(right[known].mean() > 0.5))
    return answers


def shares(answers: Answers, threshold: float) -> list[float]:
    """At a threshold: pixels right and pixels named where the names in a photo are asked for, the mean IoU of one of
    them asked for alone, and pixels named where a name is asked for that is not there."""
    asked = np.concatenate(answers.asked)
    kept = asked[:, 0] >= threshold
    overlaps = []
    for scores, true in (pairs.T for pairs in answers.alone):
        named = scores >= threshold
        overlaps.append((named * true).sum() / max((named | (true > 0)).sum(), 1))
    absent = float(np.mean([(scores >= threshold).mean() for scores in answers.absent]))
    return [float((asked[:, 1] * kept).mean()), float(kept.mean()), float(np.mean(overlaps)), absent]


def draw(rows: list[tuple[float, float, int]], photos: int, file: Path) -> None:
    """The reliability diagram."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.6, 4.4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="score = share of right ones")
    axes.plot([row[0] for row in rows], [row[1] for row in rows], "o-", color="tab:blue", label="nano", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score of a segment", ylabel="share that is right", aspect="equal")
    axes.set_title(f"{sum(row[2] for row in rows)} segments of {photos} photos, tenths of equal number", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Print, and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    data = open_folder(args.data / "coco-mini", "val")
    model = load(args.model)
    pairs = data.pairs[: args.limit]
    chosen, kept = (gather(model, data, list(pairs[start::2])) for start in (0, 1))
    print("           to choose by                 reported")
    print("threshold  right named alone absent     right named alone absent")
    for threshold in (0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        row = [f"{value:.3f}" for part in (chosen, kept) for value in shares(part, threshold)]
        print(f"{threshold:9.2f}  {' '.join(row[:4])}      {' '.join(row[4:])}")
    rows = reliability(kept.segment_scores, kept.segment_right)
    print("segments of the photos reported, in tenths of equal number: score, share that is right, number")
    for score, share, count in rows:
        print(f"  {score:.3f} {share:.3f} {count}")
    print(f"expected calibration error {calibration_error(rows):.3f}")
    if args.picture:
        draw(rows, len(pairs[1::2]), args.picture)


if __name__ == "__main__":
    main()

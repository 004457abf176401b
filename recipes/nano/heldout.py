"""Region accuracy on seen and unseen names of a model that was trained without some names.

    python -m recipes.nano.heldout --model FOLDER --data FOLDER... [--penalty 0 1 2 3 4 6]

Each FOLDER of --data is a split with masks; the counts of several are added. Regions are ground-truth regions. The
logits of seen names are lowered by each penalty in turn. Choose the penalty on held-out training photos (``split.py``),
and report it on others.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from deop import load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.model import DeOP


def count_correct(model: DeOP, data: LabelledData, penalties: list[float]) -> np.ndarray:
    """Count regions.

    Returns:
        (penalties, 2, 2) int64: for seen, then unseen names, the number of correct regions and of all regions.
    """
    trained = set(model.settings.calibration.trained_names)
    is_seen = np.array([bool(set(name.split("|")) & trained) for name in data.names])
    counts = np.zeros((len(penalties), 2, 2), np.int64)
    for pair in data.pairs:
        truth = data.labels(pair)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            continue
        encoded = model.encode([pair.photo], [np.stack([truth == label for label in present])])[0]
        for row, penalty in zip(counts, penalties, strict=True):
            calibration = replace(model.settings.calibration, seen_penalty=penalty)
            model.settings = replace(model.settings, calibration=calibration)
            probabilities = model.class_probabilities(encoded, data.names)[:, : len(data.names)]
            correct = probabilities.argmax(1).cpu().numpy() == present
            for group, members in enumerate((is_seen[present], ~is_seen[present])):
                row[group] += [int(correct[members].sum()), int(members.sum())]
    return counts


def main() -> None:
    """Print a line for each penalty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model to evaluate")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="directories with images/ and masks/")
    parser.add_argument(
        "--penalty", type=float, nargs="+", default=[0, 1, 2, 3, 4, 5, 6], help="values of seen_penalty"
    )
    args = parser.parse_args()
    model = load(args.model, engine="torch", device="cpu")
    parts = [count_correct(model, open_folder(folder, None, skip_unpaired=True), args.penalty) for folder in args.data]
    counts = np.sum(parts, axis=0)
    print("penalty   seen  unseen  harmonic  (regions:", *counts[0, :, 1].tolist(), end=")\n")
    for penalty, groups in zip(args.penalty, counts, strict=True):
        seen, unseen = (correct / max(total, 1) for correct, total in groups)
        print(f"{penalty:7.1f}  {seen:.3f}   {unseen:.3f}     {2 * seen * unseen / max(seen + unseen, 1e-9):.3f}")


if __name__ == "__main__":
    main()

"""How a model that was trained without some names tells them: regions of true masks, seen and unseen names apart.

python recipes/nano/heldout.py --model FOLDER --data FOLDER... [--penalty 0 1 2 3 4 6]

Each FOLDER of --data is a split with masks; what is measured in several is added up. Seen names are lowered by each
penalty in turn: choose it on photos kept apart (``apart.py``) and report it on others.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from deop import load
from deop.data.folder import LabelledFolder, open_folder
from deop.model import DeOP


def count(model: DeOP, data: LabelledFolder, penalties: list[float]) -> np.ndarray:
    """(penalties, 2, 2): of seen and unseen names the regions that are named right, and all of them."""
    trained = set(model.settings.calibration.trained_names)
    seen = np.array([bool(set(name.split("|")) & trained) for name in data.names])
    found = np.zeros((len(penalties), 2, 2), int)
    for pair in data.pairs:
        truth = data.labels(pair)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            continue
        encoded = model.encode([pair.photo], [np.stack([truth == label for label in present])])[0]
        for row, penalty in zip(found, penalties, strict=True):
            calibration = replace(model.settings.calibration, seen_penalty=penalty)
            model.settings = replace(model.settings, calibration=calibration)
            shares = model.class_probabilities(encoded, data.names)[:, : len(data.names)]
            right = shares.argmax(1).cpu().numpy() == present
            for number, part in enumerate((seen[present], ~seen[present])):
                row[number] += [int(right[part].sum()), int(part.sum())]
    return found


def main() -> None:
    """Print a line a penalty."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--penalty", type=float, nargs="+", default=[0, 1, 2, 3, 4, 5, 6])
    args = parser.parse_args()
    model = load(args.model, device="cpu")
    found = sum(count(model, open_folder(folder, None, skip_unpaired=True), args.penalty) for folder in args.data)
    assert isinstance(found, np.ndarray)
    print("penalty   seen  unseen  harmonic  (regions:", *found[0, :, 1].tolist(), end=")\n")
    for penalty, (seen, unseen) in zip(args.penalty, found, strict=True):
        a, b = (right / max(total, 1) for right, total in (seen, unseen))
        print(f"{penalty:7.1f}  {a:.3f}   {b:.3f}     {2 * a * b / max(a + b, 1e-9):.3f}")


if __name__ == "__main__":
    main()

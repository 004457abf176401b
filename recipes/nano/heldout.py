"""Region accuracy on seen and unseen names of a model that was trained without some names.

    python -m recipes.nano.heldout --model FOLDER --data FOLDER... [--penalty 0 1 2 3 4 6]
    python -m recipes.nano.heldout --model FOLDER --data FOLDER... --penalty 2 --examples DATA --photos 20 --draws 3

Each FOLDER of --data is a split with masks; the counts of several are added. Regions are ground-truth regions. The
logits of seen names are lowered by each penalty in turn. Choose the penalty on held-out training photos (``split.py``),
and report it on others. With --examples, regions are also named with banks of the unseen names' examples in photos of
the training split of DATA, drawn as ``deop train finetune`` draws them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deop import load
from deop.bank.bank import Bank
from deop.bank.learning import learn_photos
from deop.bank.sources import photos_of_data
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.model import DeOP


def seen_names(model: DeOP, data: LabelledData) -> np.ndarray:
    """Which names of the data are names of the training, (K,) bool."""
    trained = set(model.settings.calibration.trained_names)
    return np.array([bool(set(name.split("|")) & trained) for name in data.names])


def banks_of(model: DeOP, data: LabelledData, photos: int, draws: int) -> list[Bank]:
    """For each draw of photos a bank with the examples of the unseen names, and what else those photos show."""
    unseen = {name for name, seen in zip(data.names, seen_names(model, data), strict=True) if not seen}
    banks = []
    for seed in range(draws):
        order = np.random.default_rng((seed, 8)).permutation(len(data.pairs))[:photos]
        part = replace(data, pairs=tuple(data.pairs[index] for index in order))
        bank = learn_photos(model, photos_of_data(part), len(part.pairs))
        banks.append(bank.filtered(lambda name: not name or name in unseen))
    return banks


def count_correct(
    model: DeOP, data: LabelledData, penalties: list[float], banks: Sequence[Bank | None] = (None,)
) -> np.ndarray:
    """Count regions.

    Returns:
        (banks, penalties, 2, 2) int64: for seen, then unseen names, the number of correct regions and of all regions.
    """
    is_seen = seen_names(model, data)
    counts = np.zeros((len(banks), len(penalties), 2, 2), np.int64)
    for pair in data.pairs:
        truth = data.labels(pair)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            continue
        encoded = model.encode([pair.photo], [np.stack([truth == label for label in present])])[0]
        for place, penalty in enumerate(penalties):
            calibration = replace(model.settings.calibration, seen_penalty=penalty)
            model.settings = replace(model.settings, calibration=calibration)
            for bank, rows in zip(banks, counts, strict=True):
                vocabulary = model.vocabulary(list(data.names), bank=bank)
                probabilities = model.class_probabilities(encoded, vocabulary)[:, : len(data.names)]
                correct = probabilities.argmax(1).cpu().numpy() == present
                for group, members in enumerate((is_seen[present], ~is_seen[present])):
                    rows[place, group] += [int(correct[members].sum()), int(members.sum())]
    return counts


def main() -> None:
    """Print a line for each penalty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model to evaluate")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="directories with images/ and masks/")
    parser.add_argument(
        "--penalty", type=float, nargs="+", default=[0, 1, 2, 3, 4, 5, 6], help="values of seen_penalty"
    )
    parser.add_argument("--examples", type=Path, help="labelled data whose training split has examples")
    parser.add_argument("--photos", type=int, default=20, help="photos with examples")
    parser.add_argument("--draws", type=int, default=3, help="draws of these photos")
    args = parser.parse_args()
    model = load(args.model, engine="torch", device="cpu")
    banks: list[Bank | None] = [None]
    if args.examples:
        examples = open_folder(args.examples, "train", skip_unpaired=True)
        banks += banks_of(model, examples, args.photos, args.draws)
    data = [open_folder(folder, None, skip_unpaired=True) for folder in args.data]
    counts = np.sum([count_correct(model, part, args.penalty, banks) for part in data], axis=0)
    print("draw  penalty   seen  unseen  harmonic  (regions:", *counts[0, 0, :, 1].tolist(), end=")\n")
    for draw, rows in zip(["none", *range(len(banks) - 1)], counts, strict=True):
        for penalty, groups in zip(args.penalty, rows, strict=True):
            seen, unseen = (correct / max(total, 1) for correct, total in groups)
            harmonic = 2 * seen * unseen / max(seen + unseen, 1e-9)
            print(f"{draw!s:>4}  {penalty:7.1f}  {seen:.3f}   {unseen:.3f}     {harmonic:.3f}")


if __name__ == "__main__":
    main()

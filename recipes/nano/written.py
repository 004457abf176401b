"""Region accuracy of a model when names are written as plurals, as descriptions, or as kinds of them.

    python -m recipes.nano.written --model FOLDER --data FOLDER...

Each FOLDER of --data is a split with masks. Regions are ground-truth regions; those of names that the model was not
trained with are left out, and so are the names. The kinds are random words of ``kinds.txt``, for three seeds.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deop import load
from deop.data.folder import open_folder
from deop.model import DeOP
from deop.regions.encoding import EncodedPhoto
from recipes.nano.names import FOLDER, read_lists

DESCRIPTIONS = (
    "a photo of a {}", "the {}", "a large {} in the background", "an old {} standing on the street", "two red {}",
    "my {} in front of a house", "a {} next to a tree",
)  # fmt: skip
IRREGULAR = {"mouse": "mice", "person": "persons", "shelf": "shelves", "roof": "rooves", "knife": "knives"}
UNCHANGED = ("skis", "scissors", "stairs", "sheep", "broccoli")


def plural(name: str) -> str:
    """The plural of a name.

    >>> plural("cup"), plural("bench"), plural("teddy bear"), plural("skis")
    ('cups', 'benches', 'teddy bears', 'skis')
    """
    if name in UNCHANGED or name in IRREGULAR:
        return IRREGULAR.get(name, name)
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("ch", "sh", "s", "x")) else f"{name}s"


def accuracy(
    model: DeOP,
    regions: Sequence[tuple[EncodedPhoto, list[str]]],
    names: list[str],
    written: Mapping[str, str],
    only: set[str],
) -> tuple[float, int]:
    """The share of the regions of ``only`` that get their name among all names as written, and their number."""
    requested = [written.get(name, name) for name in names]
    correct = total = 0
    for encoded, truth in regions:
        scores = model.class_probabilities(encoded, requested)[:, : len(names)].cpu().numpy()
        for name, best in zip(truth, scores.argmax(1).tolist(), strict=True):
            if name in only:
                total, correct = total + 1, correct + (names[best] == name)
    return correct / max(1, total), total


def main() -> None:
    """Print a line for each way of writing names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model to evaluate")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="directories with images/ and masks/")
    parser.add_argument("--limit", type=int, help="only the first photos of each directory")
    args = parser.parse_args()
    model = load(args.model, engine="torch", device="cpu")
    trained = set(model.settings.calibration.rivals)
    folders = [open_folder(folder, None, skip_unpaired=True) for folder in args.data]
    names = [name for name in folders[0].names if name in trained]
    regions = []
    for folder in folders:
        for pair in folder.pairs[: args.limit]:
            labels = folder.labels(pair)
            present = [label for label in np.unique(labels[labels >= 0]).tolist() if folder.names[label] in names]
            if present:
                masks = np.stack([labels == label for label in present])
                encoded = model.encode([pair.photo], [masks])[0]
                regions.append((encoded, [folder.names[label] for label in present]))
    kinds = {name: words for name, words in read_lists(FOLDER / "kinds.txt").items() if name in names}
    chosen = random.Random(0)
    ways: list[tuple[str, dict[str, str], set[str]]] = [
        ("as in the data", {}, set(names)),
        ("plurals", {name: plural(name) for name in names}, set(names)),
        ("descriptions", {name: chosen.choice(DESCRIPTIONS).format(name) for name in names}, set(names)),
        ("as in the data, names that have kinds", {}, set(kinds)),
    ]
    for seed in (1, 2, 3):
        pick = random.Random(seed)
        ways.append((f"kinds, seed {seed}", {name: pick.choice(words) for name, words in kinds.items()}, set(kinds)))
    for what, written, only in ways:
        share, total = accuracy(model, regions, names, written, only)
        print(f"{what:40s}{share:.3f} of {total} regions, {len(names)} names", flush=True)


if __name__ == "__main__":
    main()

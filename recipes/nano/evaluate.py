"""Measure a trained small model on a split, at several sizes.

python recipes/nano/evaluate.py --data DATA --pack PACK --weights FILE --split tune --short 448 512
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
import measure  # noqa: E402
import numpy as np  # noqa: E402
from safetensors import safe_open  # noqa: E402
from settings import Names, Nano, Settings, split_tuning  # noqa: E402

import data  # noqa: E402


def load_model(file: Path) -> tuple[Nano, Settings]:
    """A model as ``train.py`` saved it."""
    with safe_open(file, "pt") as stored:
        known = json.loads(stored.metadata()["settings"])
        state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
    settings = Settings(**{key: value for key, value in known.items() if hasattr(Settings, key)})
    settings.device = "cpu"
    model = Nano(settings)
    for part in ("encoder", "proposer"):
        state.update({f"{part}.{key}": value for key, value in state.items() if key.startswith("trunk.")})
    model.load_state_dict(state)
    return model.eval(), settings


def main() -> None:
    """Print one line of figures a size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--split", default="tune", choices=("tune", "val"))
    parser.add_argument("--set", default="coco-mini", choices=("coco-mini", "camvid-mini"))
    parser.add_argument("--short", type=int, nargs="+", default=[512])
    args = parser.parse_args()
    model, settings = load_model(args.weights)
    canvas = 640 if args.set == "coco-mini" else 480
    if args.split == "val":
        photos = data.load(args.data / args.set, "val", canvas)
    else:
        apart = split_tuning(data.load(args.data / args.set, "train", canvas), settings.tune, settings.fold)[1]
        if apart is None:
            raise SystemExit("these weights were trained on every photo: there is no tuning split")
        photos = apart
    stored = np.load(args.pack / "names.npz")
    vectors = dict(zip(stored["words"].tolist(), torch.from_numpy(stored["rows"]).float(), strict=True))
    text = model.map_text(Names(list(photos.names), vectors, {}, "cpu").rows()).detach()
    for short in args.short:
        start = time.time()
        ready = measure.prepare(photos, short, "cpu")
        true = measure.oracle(model.encoder, ready, text, photos.things, "self")
        own = measure.own_masks(model.encoder, model.proposer, ready, text)
        present = measure.own_masks(model.encoder, model.proposer, ready, text, present=True)
        line = {"short": short} | {f"true_{key}": true[key] for key in ("regions", "miou", "pixels")}
        line |= {f"own_{key}": value for key, value in own.items()} | {"present_pixels": present["pixels"]}
        line["seconds"] = time.time() - start
        print(json.dumps({key: round(float(value), 4) for key, value in line.items()}), flush=True)


if __name__ == "__main__":
    main()

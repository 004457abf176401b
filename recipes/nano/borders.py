"""How well borders are met, and how many tiny islands there are, where a photo is asked for the names in it.

python recipes/nano/borders.py --data ../shared/data/coco-mini [--model nano] [--split train] [--every 1]
    [--smoothing 3.0] [--island 0.0005] [--superpixels 36 100]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

import deop
from deop.data.folder import open_folder
from deop.evaluation.metrics import Confusion, mean

BANDS = (3, 5, 10, np.inf)
"""Pixels from a true border within which pixels count."""
TINY = 0.0005
"""Share of the photo below which a stretch of one name is a tiny island."""


def distance_to_border(truth: np.ndarray) -> np.ndarray:
    """(H, W) pixels to the nearest pixel whose label differs from that of one beside it."""
    border = np.zeros(truth.shape, bool)
    for axis in (0, 1):
        change = np.diff(truth, axis=axis) != 0
        border |= np.pad(change, [(0, int(axis == side)) for side in (0, 1)])
        border |= np.pad(change, [(int(axis == side), 0) for side in (0, 1)])
    return ndimage.distance_transform_edt(~border) if border.any() else np.full(truth.shape, np.inf)


def tiny_islands(labels: np.ndarray) -> int:
    """How many stretches of one name are tiny."""
    found = 0
    for value in np.unique(labels):
        areas = np.bincount(ndimage.label(labels == value)[0].ravel())[1:]
        found += int((areas < TINY * labels.size).sum())
    return found


def main() -> None:
    """Print one line for each band, then the islands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--split", default="train")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--smoothing", type=float, default=3.0)
    parser.add_argument("--island", type=float, default=0.0)
    parser.add_argument("--superpixels", type=int, nargs="*", default=[])
    args = parser.parse_args()
    model = deop.load(args.model, device="cpu")
    proposer = model.proposer
    assert proposer is not None
    proposer.config = replace(proposer.config, smoothing=args.smoothing, superpixels=tuple(args.superpixels))
    model.settings = replace(model.settings, smallest_region=args.island)
    data = open_folder(args.data, args.split, skip_unpaired=True)
    confusions = [Confusion(len(data.names)) for _ in BANDS]
    islands = []
    for pair in data.pairs[:: args.every]:
        truth = data.labels(pair)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            continue
        found = model.segment(pair.photo, [data.names[index] for index in present]).label_map
        islands.append(tiny_islands(found))
        distance = distance_to_border(truth)
        for band, confusion in zip(BANDS, confusions, strict=True):
            confusion.add(np.where(distance <= band, truth, -1), np.append(present, -1)[found])
    for band, confusion in zip(BANDS, confusions, strict=True):
        print(f"within {band} px: mIoU {100 * mean(confusion.iou):.1f}, pixels {100 * confusion.pixel_accuracy:.1f}")
    print(f"tiny islands a photo: {np.mean(islands):.1f}")


if __name__ == "__main__":
    main()

"""Measure accuracy near borders and the number of small regions, with the names present in each photo requested.

python -m recipes.nano.borders --data ../shared/data/coco-mini [--model nano] [--split train] [--every 1]
    [--smoothing 3.0] [--smallest-region 0.0005] [--superpixels 36 100]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

import deop
from deop.data.folder import open_folder
from deop.evaluation.metrics import Confusion, mean
from deop.proposals.nano import NanoProposer

BANDS = (3, 5, 10, np.inf)
"""Only pixels within this distance of a ground-truth border count."""
SMALL = 0.0005
"""Fraction of the photo below which a connected region counts as small."""


def distance_to_border(labels: np.ndarray) -> np.ndarray:
    """(H, W), the distance in pixels to the nearest pixel at a border between two labels; inf without borders."""
    border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        change = np.diff(labels, axis=axis) != 0
        border |= np.pad(change, [(0, int(axis == side)) for side in (0, 1)])
        border |= np.pad(change, [(int(axis == side), 0) for side in (0, 1)])
    return ndimage.distance_transform_edt(~border) if border.any() else np.full(labels.shape, np.inf)


def count_small_regions(labels: np.ndarray) -> int:
    """The number of small connected regions of one label."""
    count = 0
    for value in np.unique(labels):
        areas = np.bincount(ndimage.label(labels == value)[0].ravel())[1:]
        count += int((areas < SMALL * labels.size).sum())
    return count


def main() -> None:
    """Print one line for each band, then the number of small regions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled data set")
    parser.add_argument("--model", default="nano", help="model to evaluate (default: nano)")
    parser.add_argument("--split", default="train", help="split of the data set (default: train)")
    parser.add_argument("--every", type=int, default=1, help="evaluate every n-th photo (default: 1)")
    parser.add_argument("--smoothing", type=float, default=3.0, help="smoothing of the masks (default: 3)")
    parser.add_argument("--smallest-region", type=float, default=0.0, help="Settings.smallest_region (default: 0)")
    parser.add_argument("--superpixels", type=int, nargs="*", default=[], help="numbers of additional superpixels")
    args = parser.parse_args()
    model = deop.load(args.model, engine="torch", device="cpu")
    proposer = model.proposer
    if not isinstance(proposer, NanoProposer):
        raise SystemExit(f"error: {args.model} does not have the proposer of nano")
    proposer.config = replace(proposer.config, smoothing=args.smoothing, superpixels=tuple(args.superpixels))
    model.settings = replace(model.settings, smallest_region=args.smallest_region)
    data = open_folder(args.data, args.split, skip_unpaired=True)
    confusions = [Confusion(len(data.names)) for _ in BANDS]
    small_regions = []
    for pair in data.pairs[:: args.every]:
        truth = data.labels(pair)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            continue
        result = model.segment(pair.photo, [data.names[index] for index in present])
        assert isinstance(result, deop.Segmentation)
        labels = result.label_map
        small_regions.append(count_small_regions(labels))
        distance = distance_to_border(truth)
        for band, confusion in zip(BANDS, confusions, strict=True):
            confusion.add(np.where(distance <= band, truth, -1), np.append(present, -1)[labels])
    for band, confusion in zip(BANDS, confusions, strict=True):
        miou, pixels = mean(confusion.iou) or 0.0, confusion.pixel_accuracy or 0.0
        print(f"within {band} px: mIoU {100 * miou:.1f}, pixels {100 * pixels:.1f}")
    print(f"small regions per photo: {np.mean(small_regions):.1f}")


if __name__ == "__main__":
    main()

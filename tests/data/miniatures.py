"""The official layouts of the public data sets with a few tiny photos, and the expected id of every pixel.

The expected ids are written by hand from the official lists, not computed with deop's lists.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (4, 6)  # height, width
Expected = dict[str, dict[str, np.ndarray]]  # split -> stem -> ids


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def pixels(*values: int) -> np.ndarray:
    """(4, 6) array that repeats the values."""
    return np.resize(np.array(values), SIZE)


def grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def palette(path: Path, values: np.ndarray) -> None:
    """A PNG with the colours of VOC: index 1 looks like (128, 0, 0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [7, 77, 177] * 253)
    image.save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def coco_stuff(root: Path) -> Expected:
    # official: label - 1. person 1, stop sign 13 (12 has no pixels), toothbrush 90, banner 92 (91 has none), wood 182
    expected: Expected = {}
    for number, split in enumerate(("train", "val")):
        stem = f"00000000000{number}"
        photo(root / f"{split}2017/{stem}.jpg", number)
        grey(root / f"annotations/{split}2017/{stem}.png", pixels(0, 12, 89, 91, 181, 255))
        expected[split] = {stem: pixels(1, 12, 80, 81, 171, 255)}
    return expected


def voc_alone(root: Path) -> Expected:
    base = root / "VOCdevkit/VOC2012"
    expected: Expected = {}
    for number, (split, stem) in enumerate((("train", "2007_000032"), ("val", "2007_000033"))):
        photo(base / f"JPEGImages/{stem}.jpg", number)
        palette(base / f"SegmentationClass/{stem}.png", pixels(0, 1, 2, 20, 255))
        text(base / f"ImageSets/Segmentation/{split}.txt", stem)
        expected[split] = {stem: pixels(0, 1, 2, 20, 255)}
    photo(base / "JPEGImages/2008_000001.jpg", 9)  # for detection only, or SBD's
    return expected


def voc(root: Path) -> Expected:
    expected = voc_alone(root)
    sbd = root / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    kind = np.dtype([("Boundaries", object), ("Segmentation", object), ("CategoriesPresent", object)])
    for stem in ("2007_000032", "2007_000033", "2008_000001", "2008_000002"):
        struct = np.zeros((1, 1), kind)
        struct[0, 0]["Segmentation"] = pixels(0, 15, 20).astype(np.uint8)
        savemat(sbd / f"cls/{stem}.mat", {"GTcls": struct}, do_compression=True)
    text(sbd / "train.txt", "2007_000032", "2008_000001")
    text(sbd / "val.txt", "2007_000033", "2008_000002")  # the first is in VOC's val
    photo(root / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg", 10)
    expected["train"] |= {stem: pixels(0, 15, 20) for stem in ("2008_000001", "2008_000002")}
    return expected


def _context(root: Path, values: np.ndarray, ids: np.ndarray) -> Expected:
    base = root / "VOCdevkit/VOC2010"
    expected: Expected = {}
    (root / "trainval").mkdir(parents=True)
    for number, (split, stem) in enumerate((("train", "2008_000002"), ("val", "2008_000003"))):
        photo(base / f"JPEGImages/{stem}.jpg", number)
        text(base / f"ImageSets/Main/{split}.txt", stem)
        savemat(root / f"trainval/{stem}.mat", {"LabelMap": values.astype(np.uint16)})
        expected[split] = {stem: ids}
    return expected


def context_59(root: Path) -> Expected:
    # aeroplane 2, bag 9, table 397, wood 458 of 459; accordion 1 and wool 459 are none of the 59
    return _context(root, pixels(2, 9, 397, 458, 1, 459, 0), pixels(1, 2, 50, 59, 0, 0, 0))


def context_459(root: Path) -> Expected:
    return _context(root, pixels(1, 2, 255, 256, 459, 0), pixels(1, 2, 255, 256, 459, 0))


def ade_150(root: Path) -> Expected:
    base = root / "ADEChallengeData2016"
    expected: Expected = {}
    for split, folder in (("train", "training"), ("val", "validation")):
        stem = f"ADE_{split}_00000001"
        photo(base / f"images/{folder}/{stem}.jpg")
        grey(base / f"annotations/{folder}/{stem}.png", pixels(0, 1, 2, 150))
        expected[split] = {stem: pixels(0, 1, 2, 150)}
    return expected


def ade_full(root: Path) -> Expected:
    # numbers of the index: wall 2978 (class 1), building 312 (2), adding machine 3148 (847), aerial 9: none of the 847
    expected: Expected = {}
    numbers = pixels(2978, 312, 3148, 9, 0)
    colours = np.stack([numbers // 256 * 10 + 7, numbers % 256, pixels(1, 2, 3)], 2).astype(np.uint8)
    for split, folder, stem in (
        ("train", "training/urban/street", "ADE_train_00000001"),
        ("train", "training/home_or_hotel/attic", "ADE_frame_00000009"),
        ("val", "validation/urban/street", "ADE_val_00000001"),
    ):
        place = root / "ADE20K_2021_17_01/images/ADE" / folder
        photo(place / f"{stem}.jpg")
        Image.fromarray(colours).save(place / f"{stem}_seg.png")
        grey(place / stem / f"instance_000_{stem}.png", pixels(0, 255))
        expected.setdefault(split, {})[stem] = pixels(1, 2, 847, 0, 0)
    return expected


def cityscapes(root: Path) -> Expected:
    # labelIds: road 7, sidewalk 8, bicycle 33; parking 9 and the ego vehicle 1 are in no train id
    expected: Expected = {}
    for split, city in (("train", "aachen"), ("val", "munster")):
        stem = f"{city}_000000_000019"
        photo(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
        grey(root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png", pixels(7, 8, 33, 9, 1, 255))
        grey(root / f"gtFine/{split}/{city}/{stem}_gtFine_instanceIds.png", pixels(1))
        expected[split] = {stem: pixels(1, 2, 19, 255, 255, 255)}
    return expected


def coco_panoptic(root: Path) -> Expected:
    expected: Expected = {}
    categories = [
        {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
        {"id": 200, "name": "rug-merged", "isthing": 0, "supercategory": "textile"},
    ]
    ids = pixels(70_000, 300, 5, 0, 70_000)  # the id 5 is listed nowhere
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], 2).astype(np.uint8)
    for number, split in enumerate(("train", "val")):
        stem = f"00000000000{number}"
        photo(root / f"{split}2017/{stem}.jpg", number)
        place = root / f"annotations/panoptic_{split}2017"
        place.mkdir(parents=True)
        Image.fromarray(colours).save(place / f"{stem}.png")
        segments = [{"id": 70_000, "category_id": 1, "iscrowd": 0}, {"id": 300, "category_id": 200, "iscrowd": 0}]
        listing = {
            "images": [{"id": 40 + number, "file_name": f"{stem}.jpg", "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [{"image_id": 40 + number, "file_name": f"{stem}.png", "segments_info": segments}],
            "categories": categories,
        }
        place.with_suffix(".json").write_text(json.dumps(listing))
        expected[split] = {stem: pixels(1, 200, 0, 0, 1)}
    return expected


ALL = {
    "coco-stuff": coco_stuff,
    "coco-panoptic": coco_panoptic,
    "voc": voc,
    "voc-20": voc_alone,
    "pascal-context-59": context_59,
    "pascal-context-459": context_459,
    "ade20k-150": ade_150,
    "ade20k-full": ade_full,
    "cityscapes": cityscapes,
}

"""The public data sets as their authors publish them: which files there are, where, and which belong together.

This module handles paths only; ``label_files.py`` reads the label files, ``prepare.py`` writes prepared folders.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deop.errors import DataError
from deop.files import parse_json


@dataclass(frozen=True)
class OfficialFile:
    """A file that the authors of a data set publish: its name and address."""

    name: str
    url: str


@dataclass(frozen=True)
class RequiredPart:
    """A file or folder of the official layout.

    Attributes:
        paths: possible paths below the user's folder, the usual one first.
        source: the published file that contains it.
        pattern: for a folder, a file name pattern that at least one file in it matches.
    """

    paths: tuple[str, ...]
    source: OfficialFile
    pattern: str = "*"

    def find(self, root: Path) -> Path | None:
        """The first of ``paths`` that exists below ``root``, and is not empty if it is a folder; else None."""
        for path in (root / place for place in self.paths):
            if path.is_file() or (path.is_dir() and next(path.rglob(self.pattern), None)):
                return path
        return None


@dataclass(frozen=True)
class Item:
    """A photo and its official labels.

    Attributes:
        stem: file name, without extension, of photo and mask in the prepared folder.
        photo: file of the photo.
        labels: file of the labels.
        form: format of the labels, a key of ``label_files.FORMS``.
        segments: for panoptic labels, (segment id, category id) of each segment.
    """

    stem: str
    photo: Path
    labels: Path
    form: str
    segments: tuple[tuple[int, int], ...] = ()


Places = Mapping[str, Path]
"""The path of each required part, by the keys that ``PublicSet.required`` gives."""


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        name: name of its command.
        title: its full name.
        classes: name of the class list in ``classes/``; "" if the classes are part of the labels.
        photos: number of photos with labels in each split; empty if it is not known.
        required: function of the split that gives its required parts by key.
        items: function of the paths of these parts and the split that gives the photos and labels.
        unlisted: id in prepared masks for official values without a class: 0, none of the classes; 255, not labelled;
            None: such values are an error.
        special: pairs of an official value that is not a class and its id in prepared masks.
        zero_shot: whether the classes are split into seen and unseen ones.
    """

    name: str
    title: str
    classes: str
    photos: Mapping[str, int]
    required: Callable[[str], dict[str, RequiredPart]]
    items: Callable[[Places, str], list[Item]]
    unlisted: int | None = None
    special: tuple[tuple[int, int], ...] = ()
    zero_shot: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.photos) or ("train", "val")


def read_stems(listing: Path) -> list[str]:
    """The names in an image list in VOC's format: the first word of each line.

    Raises:
        DataError: a file that cannot be read.
    """
    try:
        return [line.split()[0] for line in listing.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {listing}: {error}. Unpack it again.") from error


def _items_of(names: Iterable[str], photos: Path, labels: Path, suffix: str, form: str) -> list[Item]:
    return [Item(name, photos / f"{name}.jpg", labels / f"{name}{suffix}", form) for name in names]


def _two_folder_items(places: Places, split: str) -> list[Item]:
    """Photos and labels with the same stem in two folders. An item whose photo or labels do not exist is kept."""
    photos, labels = places["photos"], places["labels"]
    stems = {path.stem for path in (*photos.glob("*.jpg"), *labels.glob("*.png")) if not path.name.startswith(".")}
    return _items_of(sorted(stems), photos, labels, ".png", "indexed")


# COCO-Stuff 164k

_COCO = "http://images.cocodataset.org/"


def _coco_photos(split: str) -> RequiredPart:
    name = f"{split}2017"
    return RequiredPart((name, f"images/{name}"), OfficialFile(f"{name}.zip", f"{_COCO}zips/{name}.zip"), "*.jpg")


def _coco_stuff(split: str) -> dict[str, RequiredPart]:
    name = f"{split}2017"
    maps = OfficialFile(
        "stuffthingmaps_trainval2017.zip",
        "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
    )
    places = (f"annotations/{name}", f"stuffthingmaps_trainval2017/{name}", f"stuffthingmaps/{name}", name)
    return {"photos": _coco_photos(split), "labels": RequiredPart(places, maps, "*.png")}


# COCO panoptic


def _coco_panoptic(split: str) -> dict[str, RequiredPart]:
    name = f"panoptic_{split}2017"
    archive = OfficialFile(
        "panoptic_annotations_trainval2017.zip", f"{_COCO}annotations/panoptic_annotations_trainval2017.zip"
    )
    return {
        "photos": _coco_photos(split),
        "listing": RequiredPart((f"annotations/{name}.json", f"{name}.json"), archive),
        "labels": RequiredPart((f"annotations/{name}", name), archive, "*.png"),
    }


def _custom_panoptic(split: str) -> dict[str, RequiredPart]:
    source = OfficialFile("your own data", "https://cocodataset.org/#format-data, panoptic segmentation")
    return {
        "photos": RequiredPart((f"{split}/images",), source),
        "listing": RequiredPart((f"{split}/panoptic.json",), source),
        "labels": RequiredPart((f"{split}/panoptic",), source, "*.png"),
    }


def _panoptic_items(places: Places, split: str) -> list[Item]:
    listing = read_panoptic(places["listing"])
    try:
        photos = {image["id"]: image["file_name"] for image in listing["images"]}
        return [
            Item(
                Path(entry["file_name"]).stem,
                places["photos"] / photos[entry["image_id"]],
                places["labels"] / entry["file_name"],
                "panoptic",
                tuple(_segment(part) for part in entry["segments_info"]),
            )
            for entry in listing["annotations"]
        ]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{places['listing']} does not have COCO's panoptic format: {error!r}") from error


def _segment(part: Mapping[str, Any]) -> tuple[int, int]:
    """(segment id, category id) of an entry in ``segments_info``."""
    segment, category = part["id"], part["category_id"]
    if type(segment) is not int or type(category) is not int:
        raise ValueError(f"segment {segment!r} of category {category!r}: expected whole numbers")
    if not 0 <= segment < 1 << 24 or not 0 <= category < 1 << 16:
        raise ValueError(f"segment {segment} of category {category}: expected ids below 2^24 and below 2^16")
    return segment, category


def read_panoptic(listing: Path) -> dict[str, Any]:
    """Read a JSON file in COCO's panoptic format, with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: the file cannot be read or has another form.
    """
    try:
        values = parse_json(listing)
        if not all(isinstance(values[key], list) for key in ("images", "annotations", "categories")):
            raise ValueError("images, annotations and categories must be lists")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{listing} does not have COCO's panoptic format: {error!r}") from error
    return values


# Pascal VOC 2012, with SBD

_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/"


def _voc_part(year: str, archive: OfficialFile, part: str, pattern: str = "*") -> RequiredPart:
    return RequiredPart(tuple(f"{top}{part}" for top in (f"VOCdevkit/VOC{year}/", f"VOC{year}/", "")), archive, pattern)


def _voc_alone(split: str) -> dict[str, RequiredPart]:
    archive = OfficialFile("VOCtrainval_11-May-2012.tar", f"{_VOC}voc2012/VOCtrainval_11-May-2012.tar")
    lists = "ImageSets/Segmentation"
    return {
        "photos": _voc_part("2012", archive, "JPEGImages", "*.jpg"),
        "labels": _voc_part("2012", archive, "SegmentationClass", "*.png"),
        "train": _voc_part("2012", archive, f"{lists}/train.txt"),
        "val": _voc_part("2012", archive, f"{lists}/val.txt"),
    }


def _voc_and_sbd(split: str) -> dict[str, RequiredPart]:
    parts = _voc_alone(split)
    if split == "train":
        archive = OfficialFile(
            "benchmark.tgz",
            "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        )
        tops = ("benchmark_RELEASE/dataset/", "sbd/benchmark_RELEASE/dataset/", "dataset/", "sbd/")
        for key, path, pattern in (
            ("cls", "cls", "*.mat"),
            ("sbd_train", "train.txt", "*"),
            ("sbd_val", "val.txt", "*"),
        ):
            parts[key] = RequiredPart(tuple(top + path for top in tops), archive, pattern)
    return parts


def _voc_alone_items(places: Places, split: str) -> list[Item]:
    return _items_of(read_stems(places[split]), places["photos"], places["labels"], ".png", "indexed")


def _voc_and_sbd_items(places: Places, split: str) -> list[Item]:
    """VOC's photos and masks; for "train" also SBD's photos that VOC does not use: together 10,582, as in papers."""
    items = _voc_alone_items(places, split)
    if split != "train":
        return items
    voc_stems = {*read_stems(places["train"]), *read_stems(places["val"])}
    sbd_stems = {*read_stems(places["sbd_train"]), *read_stems(places["sbd_val"])}
    return items + _items_of(sorted(sbd_stems - voc_stems), places["photos"], places["cls"], ".mat", "sbd")


# Pascal Context


def _pascal_context(split: str) -> dict[str, RequiredPart]:
    photos = OfficialFile("VOCtrainval_03-May-2010.tar", f"{_VOC}voc2010/VOCtrainval_03-May-2010.tar")
    labels = OfficialFile("trainval.tar.gz", "https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz")
    places = tuple(f"{top}trainval" for top in ("", "VOCdevkit/VOC2010/", "VOC2010/", "pascal-context/"))
    return {
        "photos": _voc_part("2010", photos, "JPEGImages", "*.jpg"),
        "list": _voc_part("2010", photos, f"ImageSets/Main/{split}.txt"),
        "labels": RequiredPart(places, labels, "*.mat"),
    }


def _pascal_context_items(places: Places, split: str) -> list[Item]:
    return _items_of(read_stems(places["list"]), places["photos"], places["labels"], ".mat", "context")


# ADE20K

_ADE_SPLITS = {"train": "training", "val": "validation"}


def _ade_150(split: str) -> dict[str, RequiredPart]:
    archive = OfficialFile(
        "ADEChallengeData2016.zip", "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    )
    return {
        key: RequiredPart(
            tuple(f"{top}{folder}/{_ADE_SPLITS[split]}" for top in ("ADEChallengeData2016/", "")), archive, pattern
        )
        for key, folder, pattern in (("photos", "images", "*.jpg"), ("labels", "annotations", "*.png"))
    }


def _ade_full(split: str) -> dict[str, RequiredPart]:
    archive = OfficialFile(
        "ADE20K_2021_17_01.zip",
        "https://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/ (after registration)",
    )
    places = tuple(f"{top}images/ADE/{_ADE_SPLITS[split]}" for top in ("ADE20K_2021_17_01/", ""))
    return {"photos": RequiredPart(places, archive, "*_seg.png")}


def _ade_full_items(places: Places, split: str) -> list[Item]:
    photos = sorted(places["photos"].rglob("ADE_*.jpg"))
    return [Item(photo.stem, photo, photo.with_name(f"{photo.stem}_seg.png"), "ade_full") for photo in photos]


# Cityscapes


def _cityscapes(split: str) -> dict[str, RequiredPart]:
    return {
        key: RequiredPart(
            (f"{folder}/{split}", f"cityscapes/{folder}/{split}"),
            OfficialFile(
                f"{folder}_trainvaltest.zip", "https://www.cityscapes-dataset.com/downloads/ (after registration)"
            ),
            pattern,
        )
        for key, folder, pattern in (
            ("photos", "leftImg8bit", "*_leftImg8bit.png"),
            ("labels", "gtFine", "*_gtFine_labelIds.png"),
        )
    }


def _cityscapes_items(places: Places, split: str) -> list[Item]:
    photos, labels = places["photos"], places["labels"]
    photo_suffix, label_suffix = "_leftImg8bit.png", "_gtFine_labelIds.png"
    names = {
        path.relative_to(folder).as_posix().removesuffix(suffix)
        for folder, suffix in ((photos, photo_suffix), (labels, label_suffix))
        for path in folder.rglob(f"*{suffix}")
        if not path.name.startswith(".")
    }
    return [
        Item(Path(name).name, photos / f"{name}{photo_suffix}", labels / f"{name}{label_suffix}", "indexed")
        for name in sorted(names)
    ]


_UNLABELLED = 255
_VOID = ((255, _UNLABELLED),)
_BORDER = ((0, 0), (255, _UNLABELLED))  # VOC: 0 is background, 255 the border between objects
PUBLIC_SETS = {
    entry.name: entry
    for entry in (
        PublicSet(
            "coco-stuff", "COCO-Stuff 164k, 171 classes (156 seen, 15 unseen)", "coco-stuff",
            {"train": 118_287, "val": 5_000}, _coco_stuff, _two_folder_items, special=_VOID, zero_shot=True,
        ),
        PublicSet(
            "coco-panoptic", "COCO panoptic, 133 classes", "",
            {"train": 118_287, "val": 5_000}, _coco_panoptic, _panoptic_items, unlisted=0,
        ),
        PublicSet(
            "voc", "Pascal VOC 2012 with SBD, 20 classes (15 seen, 5 unseen)", "voc",
            {"train": 10_582, "val": 1_449}, _voc_and_sbd, _voc_and_sbd_items, special=_BORDER, zero_shot=True,
        ),
        PublicSet(
            "voc-20", "Pascal VOC 2012 without SBD, 20 classes", "voc",
            {"train": 1_464, "val": 1_449}, _voc_alone, _voc_alone_items, special=_BORDER,
        ),
        PublicSet(
            "pascal-context-59", "Pascal Context, 59 classes", "pascal-context-59",
            {"train": 4_998, "val": 5_105}, _pascal_context, _pascal_context_items, unlisted=0,
        ),
        PublicSet(
            "pascal-context-459", "Pascal Context, 459 classes", "pascal-context-459",
            {"train": 4_998, "val": 5_105}, _pascal_context, _pascal_context_items, special=((0, 0),),
        ),
        PublicSet(
            "ade20k-150", "ADE20K, scene parsing challenge, 150 classes", "ade20k-150",
            {"train": 20_210, "val": 2_000}, _ade_150, _two_folder_items, special=((0, 0),),
        ),
        PublicSet(
            "ade20k-full", "ADE20K 2021, 847 classes", "ade20k-full",
            {"train": 25_574, "val": 2_000}, _ade_full, _ade_full_items, unlisted=0,
        ),
        PublicSet(
            "cityscapes", "Cityscapes, 19 classes", "cityscapes",
            {"train": 2_975, "val": 500}, _cityscapes, _cityscapes_items, unlisted=_UNLABELLED,
        ),
        PublicSet(
            "panoptic", "Your own data in COCO's panoptic format: images/, panoptic/, panoptic.json in each split", "",
            {}, _custom_panoptic, _panoptic_items, unlisted=0,
        ),
    )
}  # fmt: skip

"""The public data sets as their authors publish them: which files there are, where, and which belong together.

Only paths are handled here; ``label_files.py`` reads what is in them, ``prepare.py`` writes the folders.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deop.errors import DataError


@dataclass(frozen=True)
class Published:
    """A file that the authors publish."""

    name: str
    url: str


@dataclass(frozen=True)
class Needed:
    """A part of the official layout.

    Attributes:
        paths: where it may lie below the folder that the user names, the usual place first.
        source: what it comes from.
        holds: where it is a folder, a pattern that at least one file below it has.
    """

    paths: tuple[str, ...]
    source: Published
    holds: str = "*"

    def find(self, root: Path) -> Path | None:
        """The first of the places that is there and not empty."""
        for path in (root / place for place in self.paths):
            if path.is_file() or (path.is_dir() and next(path.rglob(self.holds), None)):
                return path
        return None


@dataclass(frozen=True)
class Item:
    """A photo and its official labels.

    Attributes:
        stem: the name of both in the prepared folder.
        photo: its file.
        labels: the file of its labels.
        form: how those are written, a function of ``label_files.py``.
        segments: of panoptic labels, (segment id, category id) each.
    """

    stem: str
    photo: Path
    labels: Path
    form: str
    segments: tuple[tuple[int, int], ...] = ()


Places = Mapping[str, Path]


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        name: what the command calls it.
        title: what its authors call it.
        classes: the list in ``classes/``; "" where the labels bring their own.
        photos: how many photos with labels each split has; empty where that is not known.
        needed: the parts of a split, by a word for each.
        items: finds photos and labels of a split in those parts; given the parts and the split.
        rest: what a pixel becomes whose official value is in no list: 0, none of the classes; 255, not labelled; None:
            there is no such value, and it is an error.
        values: official values with a meaning of their own, value -> id.
        zero_shot: whether the split into seen and unseen classes is kept.
    """

    name: str
    title: str
    classes: str
    photos: Mapping[str, int]
    needed: Callable[[str], dict[str, Needed]]
    items: Callable[[Places, str], list[Item]]
    rest: int | None = None
    values: tuple[tuple[int, int], ...] = ()
    zero_shot: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.photos) or ("train", "val")


def stems(listing: Path) -> list[str]:
    """The image names that a list of VOC's form has: the first word of each line."""
    try:
        return [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {listing}: {error}. Unpack it again.") from error


def _listed(names: Iterable[str], photos: Path, labels: Path, ending: str, form: str) -> list[Item]:
    return [Item(name, photos / f"{name}.jpg", labels / f"{name}{ending}", form) for name in names]


def _every(photos: Path, labels: Path) -> list[Item]:
    """Every ``.jpg`` and every ``.png`` of two folders, the same stems together; a lonely one stays lonely."""
    names = {path.stem for path in photos.glob("*.jpg")} | {path.stem for path in labels.glob("*.png")}
    return _listed(sorted(names), photos, labels, ".png", "indexed")


# COCO-Stuff 164k

_COCO = "http://images.cocodataset.org/"


def _coco_photos(split: str) -> Needed:
    name = f"{split}2017"
    return Needed((name, f"images/{name}"), Published(f"{name}.zip", f"{_COCO}zips/{name}.zip"), "*.jpg")


def _coco_stuff(split: str) -> dict[str, Needed]:
    name = f"{split}2017"
    maps = Published(
        "stuffthingmaps_trainval2017.zip",
        "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
    )
    places = (f"annotations/{name}", f"stuffthingmaps_trainval2017/{name}", f"stuffthingmaps/{name}", name)
    return {"photos": _coco_photos(split), "labels": Needed(places, maps, "*.png")}


# COCO panoptic


def _coco_panoptic(split: str) -> dict[str, Needed]:
    name = f"panoptic_{split}2017"
    archive = Published(
        "panoptic_annotations_trainval2017.zip", f"{_COCO}annotations/panoptic_annotations_trainval2017.zip"
    )
    return {
        "photos": _coco_photos(split),
        "listing": Needed((f"annotations/{name}.json", f"{name}.json"), archive),
        "labels": Needed((f"annotations/{name}", name), archive, "*.png"),
    }


def _own_panoptic(split: str) -> dict[str, Needed]:
    own = Published("your own", "https://cocodataset.org/#format-data, panoptic segmentation")
    return {
        "photos": Needed((f"{split}/images",), own),
        "listing": Needed((f"{split}/panoptic.json",), own),
        "labels": Needed((f"{split}/panoptic",), own, "*.png"),
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
                tuple((int(part["id"]), int(part["category_id"])) for part in entry["segments_info"]),
            )
            for entry in listing["annotations"]
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{places['listing']} is not of COCO's panoptic form: {error!r}") from error


def read_panoptic(listing: Path) -> dict:
    """COCO's panoptic JSON: ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: another form.
    """
    try:
        found = json.loads(listing.read_text(encoding="utf-8"))
        if not all(isinstance(found[key], list) for key in ("images", "annotations", "categories")):
            raise ValueError("images, annotations and categories must be lists")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{listing} is not of COCO's panoptic form: {error!r}") from error
    return found


# Pascal VOC 2012, with SBD

_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/"


def _voc_part(year: str, archive: Published, part: str, holds: str = "*") -> Needed:
    return Needed(tuple(f"{top}{part}" for top in (f"VOCdevkit/VOC{year}/", f"VOC{year}/", "")), archive, holds)


def _voc_own(split: str) -> dict[str, Needed]:
    archive = Published("VOCtrainval_11-May-2012.tar", f"{_VOC}voc2012/VOCtrainval_11-May-2012.tar")
    lists = "ImageSets/Segmentation"
    return {
        "photos": _voc_part("2012", archive, "JPEGImages", "*.jpg"),
        "labels": _voc_part("2012", archive, "SegmentationClass", "*.png"),
        "train": _voc_part("2012", archive, f"{lists}/train.txt"),
        "val": _voc_part("2012", archive, f"{lists}/val.txt"),
    }


def _voc_and_sbd(split: str) -> dict[str, Needed]:
    parts = _voc_own(split)
    if split == "train":
        archive = Published(
            "benchmark.tgz",
            "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        )
        tops = ("benchmark_RELEASE/dataset/", "sbd/benchmark_RELEASE/dataset/", "dataset/", "sbd/")
        for word, path, holds in (
            ("cls", "cls", "*.mat"),
            ("sbd_train", "train.txt", "*"),
            ("sbd_val", "val.txt", "*"),
        ):
            parts[word] = Needed(tuple(top + path for top in tops), archive, holds)
    return parts


def _voc_own_items(places: Places, split: str) -> list[Item]:
    return _listed(stems(places[split]), places["photos"], places["labels"], ".png", "indexed")


def _voc_and_sbd_items(places: Places, split: str) -> list[Item]:
    """The 10,582 photos that papers train on: VOC's own with VOC's masks, SBD's others, none of VOC's val."""
    own = _voc_own_items(places, split)
    if split != "train":
        return own
    taken = {*stems(places["train"]), *stems(places["val"])}
    more = sorted({*stems(places["sbd_train"]), *stems(places["sbd_val"])} - taken)
    return own + _listed(more, places["photos"], places["cls"], ".mat", "sbd")


# Pascal Context


def _pascal_context(split: str) -> dict[str, Needed]:
    photos = Published("VOCtrainval_03-May-2010.tar", f"{_VOC}voc2010/VOCtrainval_03-May-2010.tar")
    labels = Published("trainval.tar.gz", "https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz")
    places = tuple(f"{top}trainval" for top in ("", "VOCdevkit/VOC2010/", "VOC2010/", "pascal-context/"))
    return {
        "photos": _voc_part("2010", photos, "JPEGImages", "*.jpg"),
        "list": _voc_part("2010", photos, f"ImageSets/Main/{split}.txt"),
        "labels": Needed(places, labels, "*.mat"),
    }


def _pascal_context_items(places: Places, split: str) -> list[Item]:
    return _listed(stems(places["list"]), places["photos"], places["labels"], ".mat", "context")


# ADE20K

_ADE_SPLITS = {"train": "training", "val": "validation"}


def _ade_150(split: str) -> dict[str, Needed]:
    archive = Published(
        "ADEChallengeData2016.zip", "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    )
    return {
        word: Needed(
            tuple(f"{top}{folder}/{_ADE_SPLITS[split]}" for top in ("ADEChallengeData2016/", "")), archive, holds
        )
        for word, folder, holds in (("photos", "images", "*.jpg"), ("labels", "annotations", "*.png"))
    }


def _ade_full(split: str) -> dict[str, Needed]:
    archive = Published(
        "ADE20K_2021_17_01.zip",
        "https://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/ (after registration)",
    )
    places = tuple(f"{top}images/ADE/{_ADE_SPLITS[split]}" for top in ("ADE20K_2021_17_01/", ""))
    return {"photos": Needed(places, archive, "*_seg.png")}


def _ade_full_items(places: Places, split: str) -> list[Item]:
    photos = sorted(places["photos"].rglob("ADE_*.jpg"))
    return [Item(photo.stem, photo, photo.with_name(f"{photo.stem}_seg.png"), "ade_full") for photo in photos]


# Cityscapes


def _cityscapes(split: str) -> dict[str, Needed]:
    return {
        word: Needed(
            (f"{folder}/{split}", f"cityscapes/{folder}/{split}"),
            Published(f"{folder}_{part}.zip", "https://www.cityscapes-dataset.com/downloads/ (after registration)"),
            holds,
        )
        for word, folder, part, holds in (
            ("photos", "leftImg8bit", "trainvaltest", "*_leftImg8bit.png"),
            ("labels", "gtFine", "trainvaltest", "*_gtFine_labelIds.png"),
        )
    }


def _cityscapes_items(places: Places, split: str) -> list[Item]:
    photo_end, label_end = "_leftImg8bit.png", "_gtFine_labelIds.png"
    names = {
        path.relative_to(places["photos"]).as_posix()[: -len(photo_end)]
        for path in places["photos"].rglob(f"*{photo_end}")
    }
    names |= {
        path.relative_to(places["labels"]).as_posix()[: -len(label_end)]
        for path in places["labels"].rglob(f"*{label_end}")
    }
    return [
        Item(
            Path(name).name, places["photos"] / f"{name}{photo_end}", places["labels"] / f"{name}{label_end}", "indexed"
        )
        for name in sorted(names)
    ]


def _in_two_folders(places: Places, split: str) -> list[Item]:
    return _every(places["photos"], places["labels"])


_UNLABELLED = 255
_VOID = ((255, _UNLABELLED),)
_BORDER = ((0, 0), (255, _UNLABELLED))  # VOC: 0 is background, 255 the border between objects
PUBLIC_SETS = {
    entry.name: entry
    for entry in (
        PublicSet(
            "coco-stuff", "COCO-Stuff 164k, 171 classes (156 seen, 15 unseen)", "coco-stuff",
            {"train": 118_287, "val": 5_000}, _coco_stuff, _in_two_folders, values=_VOID, zero_shot=True,
        ),
        PublicSet(
            "coco-panoptic", "COCO panoptic, 133 classes", "",
            {"train": 118_287, "val": 5_000}, _coco_panoptic, _panoptic_items, rest=0,
        ),
        PublicSet(
            "voc", "Pascal VOC 2012 with SBD, 20 classes (15 seen, 5 unseen)", "voc",
            {"train": 10_582, "val": 1_449}, _voc_and_sbd, _voc_and_sbd_items, values=_BORDER, zero_shot=True,
        ),
        PublicSet(
            "voc-20", "Pascal VOC 2012 alone, 20 classes", "voc",
            {"train": 1_464, "val": 1_449}, _voc_own, _voc_own_items, values=_BORDER,
        ),
        PublicSet(
            "pascal-context-59", "Pascal Context, 59 classes", "pascal-context-59",
            {"train": 4_998, "val": 5_105}, _pascal_context, _pascal_context_items, rest=0,
        ),
        PublicSet(
            "pascal-context-459", "Pascal Context, 459 classes", "pascal-context-459",
            {"train": 4_998, "val": 5_105}, _pascal_context, _pascal_context_items, values=((0, 0),),
        ),
        PublicSet(
            "ade20k-150", "ADE20K, scene parsing challenge, 150 classes", "ade20k-150",
            {"train": 20_210, "val": 2_000}, _ade_150, _in_two_folders, values=((0, 0),),
        ),
        PublicSet(
            "ade20k-full", "ADE20K 2021, 847 classes", "ade20k-full",
            {"train": 25_574, "val": 2_000}, _ade_full, _ade_full_items, rest=0,
        ),
        PublicSet(
            "cityscapes", "Cityscapes, 19 classes", "cityscapes",
            {"train": 2_975, "val": 500}, _cityscapes, _cityscapes_items, rest=_UNLABELLED,
        ),
        PublicSet(
            "panoptic", "Your own, in COCO's panoptic form; each split has images/, panoptic/, panoptic.json", "",
            {}, _own_panoptic, _panoptic_items, rest=0,
        ),
    )
}  # fmt: skip

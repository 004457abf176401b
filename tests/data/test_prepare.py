"""Converting official layouts: every pixel is right, interrupted calls resume, and the source stays unchanged."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deop.data import conversion
from deop.data.folder import open_folder
from deop.data.official import PUBLIC_SETS
from deop.data.prepare import missing, prepare
from deop.errors import DataError, MissingDependencyError, SettingError
from deop.text.class_lists import official_classes
from tests.data import miniatures

# The miniature of COCO panoptic has a segment that is listed nowhere.
pytestmark = pytest.mark.filterwarnings("ignore:.*segments that the panoptic JSON file does not list")


def state(root):
    """Content, time and number of links of every file in a folder."""
    return {
        path.relative_to(root).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_nlink,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }  # fmt: skip


def ids(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("name", miniatures.ALL)
def test_every_pixel_gets_the_id_of_its_class(name, tmp_path):
    expected = miniatures.ALL[name](tmp_path / "official")
    before = state(tmp_path / "official")
    prepared = prepare(name, tmp_path / "official", tmp_path / "out", partial=True)
    assert state(tmp_path / "official") == before
    assert prepared.photos == {split: len(stems) for split, stems in expected.items()}
    assert prepared.written == sum(prepared.photos.values())
    for split, stems in expected.items():
        folder = open_folder(tmp_path / "out", split)
        assert {pair.mask.stem for pair in folder.pairs} == set(stems)
        for pair in folder.pairs:
            mask = ids(pair.mask)
            assert mask.dtype == (np.uint16 if len(folder.classes) > 254 else np.uint8)
            np.testing.assert_array_equal(mask, stems[pair.mask.stem])
            labels = folder.labels(pair)
            for value in np.unique(mask):
                names = {folder.names[label] for label in np.unique(labels[mask == value]) if label >= 0}
                listed = {entry.name for entry in folder.classes if entry.id == value}
                assert names == listed


def test_names_belong_to_the_ids_in_the_masks(tmp_path):
    for name, known in {
        "coco-stuff": {1: "person", 12: "stop sign", 80: "toothbrush", 81: "banner", 171: "wood"},
        "voc": {1: "aeroplane", 20: "tvmonitor"},
        "pascal-context-59": {1: "aeroplane", 2: "bag", 50: "table", 59: "wood"},
        "pascal-context-459": {1: "accordion", 255: "money", 459: "wool"},
        "ade20k-150": {1: "wall", 150: "flag"},
        "ade20k-full": {1: "wall", 2: "building, edifice", 847: "adding machine, totalizer, totaliser"},
        "cityscapes": {1: "road", 19: "bicycle"},
        "coco-panoptic": {1: "person", 200: "rug-merged"},
    }.items():
        miniatures.ALL[name](tmp_path / name)
        prepare(name, tmp_path / name, tmp_path / f"{name}-out", splits=["val"], partial=True)
        folder = open_folder(tmp_path / f"{name}-out")
        for label, spelling in known.items():
            assert next(entry.name for entry in folder.classes if entry.id == label) == spelling


def test_seen_and_unseen_classes_are_marked_if_the_data_set_has_a_split(tmp_path):
    for name, unseen in {"coco-stuff": 15, "voc": 5, "voc-20": 0}.items():
        miniatures.ALL[name](tmp_path / name)
        prepare(name, tmp_path / name, tmp_path / f"{name}-out", splits=["val"], partial=True)
        out = tmp_path / f"{name}-out"
        marked = [entry.name for entry in open_folder(out).classes if entry.seen is False]
        assert len(marked) == unseen
        assert not unseen or (out / "unseen.txt").read_text().split("\n")[:-1] == marked


def test_plain_spellings(tmp_path):
    miniatures.voc(tmp_path / "official")
    prepare("voc", tmp_path / "official", tmp_path / "out", names="plain", partial=True)
    assert {"potted plant", "dining table", "tv monitor", "person"} <= set(open_folder(tmp_path / "out").names)
    assert "potted plant" in (tmp_path / "out/unseen.txt").read_text()


def test_panoptic_files_are_linked_too(tmp_path):
    miniatures.coco_panoptic(tmp_path / "official")
    prepare("coco-panoptic", tmp_path / "official", tmp_path / "out", partial=True)
    listing = json.loads((tmp_path / "out/val/panoptic.json").read_text())
    entry = listing["annotations"][0]
    official = tmp_path / "official/annotations/panoptic_val2017" / entry["file_name"]
    np.testing.assert_array_equal(ids(tmp_path / "out/val/panoptic" / entry["file_name"]), ids(official))
    known = {entry.id for entry in open_folder(tmp_path / "out").classes}
    assert {segment["category_id"] for segment in entry["segments_info"]} == known


def test_panoptic_files_give_the_masks_that_are_published_with_them(data_folder, tmp_path):
    prepare("panoptic", data_folder / "coco-mini", tmp_path / "out", splits=["val"])
    actual, expected = open_folder(tmp_path / "out"), open_folder(data_folder / "coco-mini", "val")
    listed = [entry.id for entry in expected.classes]
    assert len(actual.pairs) == len(expected.pairs) > 0
    for actual_pair, expected_pair in zip(actual.pairs, expected.pairs, strict=True):
        mask = ids(actual_pair.mask)
        np.testing.assert_array_equal(np.where(np.isin(mask, listed), mask, 0), ids(expected_pair.mask))


def test_photos_are_links_or_copies(tmp_path, monkeypatch):
    miniatures.voc_alone(tmp_path / "official")
    prepare("voc-20", tmp_path / "official", tmp_path / "linked", partial=True)
    link = tmp_path / "linked/val/images/2007_000033.jpg"
    assert link.is_symlink()
    assert link.resolve() == (tmp_path / "official/VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg").resolve()
    prepare("voc-20", tmp_path / "official", tmp_path / "copied", partial=True, copy=True)
    assert not (tmp_path / "copied/val/images/2007_000033.jpg").is_symlink()

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    prepare("voc-20", tmp_path / "official", tmp_path / "hard", partial=True)
    assert (tmp_path / "hard/val/images/2007_000033.jpg").samefile(link)
    monkeypatch.setattr(os, "link", refuse)
    prepare("voc-20", tmp_path / "official", tmp_path / "no-links", partial=True)
    copy = tmp_path / "no-links/val/images/2007_000033.jpg"
    assert copy.read_bytes() == link.read_bytes()
    assert not copy.samefile(link)


def test_the_number_of_processes_does_not_change_the_result(tmp_path):
    expected = miniatures.voc(tmp_path / "official")
    progress = []
    prepare(
        "voc", tmp_path / "official", tmp_path / "out", partial=True, workers=2,
        progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert progress == [(number, 4) for number in (1, 2, 3, 4)]
    for split, stems in expected.items():
        for stem, expected_ids in stems.items():
            np.testing.assert_array_equal(ids(tmp_path / f"out/{split}/masks/{stem}.png"), expected_ids)


def test_missing_files_are_named_with_their_address(tmp_path):
    for name in miniatures.ALL:
        with pytest.raises(DataError, match=r"https?://"):
            prepare(name, tmp_path, tmp_path.parent / f"{tmp_path.name}-out")
        assert all(part.source.url.startswith("http") for part in missing(name, tmp_path))
    assert not list(tmp_path.iterdir())
    miniatures.voc(tmp_path)
    assert missing("voc", tmp_path) == ()
    (tmp_path / "benchmark_RELEASE/dataset/val.txt").unlink()
    for file in (tmp_path / "VOCdevkit/VOC2012/SegmentationClass").iterdir():
        file.unlink()  # a folder without what it should hold counts as missing
    missing_parts = {part.paths[0]: part.source.name for part in missing("voc", tmp_path)}
    assert missing_parts == {
        "VOCdevkit/VOC2012/SegmentationClass": "VOCtrainval_11-May-2012.tar",
        "benchmark_RELEASE/dataset/val.txt": "benchmark.tgz",
    }
    assert [part.paths[0] for part in missing("voc", tmp_path, ["val"])] == ["VOCdevkit/VOC2012/SegmentationClass"]


def test_numbers_are_compared_with_the_published_ones(tmp_path):
    miniatures.voc_alone(tmp_path / "official")
    with pytest.raises(DataError, match=r"voc-20 train: 1 photos with labels, and 1464 are published"):
        prepare("voc-20", tmp_path / "official", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "official/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg").unlink()
    with pytest.raises(DataError, match=r"2007_000032\.jpg is missing"):
        prepare("voc-20", tmp_path / "official", tmp_path / "out")
    with pytest.raises(DataError, match="no photo with labels"):
        prepare("voc-20", tmp_path / "official", tmp_path / "out", splits=["train"], partial=True)


def test_published_numbers():
    published = {name: (entry.photos.get("train"), entry.photos.get("val")) for name, entry in PUBLIC_SETS.items()}
    assert published["coco-stuff"] == published["coco-panoptic"] == (118287, 5000)
    assert published["voc"] == (10582, 1449)
    assert published["pascal-context-59"] == published["pascal-context-459"] == (4998, 5105)
    assert published["ade20k-150"] == (20210, 2000)
    assert published["ade20k-full"] == (25574, 2000)
    assert published["cityscapes"] == (2975, 500)


def test_the_documentation_lists_the_data_sets():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+)[^|]*\| ([\d,]+) \| ([\d,]+) \| (.+) \|$", text, re.MULTILINE)
    listed = {
        name: (int(classes), train, val, set(re.findall("`(.+?)`", files))) for name, classes, train, val, files in rows
    }
    assert listed == {
        name: (
            len(official_classes(entry.classes)) if entry.classes else 133,
            *(f"{entry.photos[split]:,}" for split in ("train", "val")),
            {part.source.name for split in entry.splits for part in entry.required(split).values()},
        )
        for name, entry in PUBLIC_SETS.items()
        if entry.photos
    }


def test_other_usual_paths(tmp_path):
    miniatures.coco_stuff(tmp_path / "a")
    for split in ("train", "val"):
        (tmp_path / "b/images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b/stuffthingmaps").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"a/{split}2017").rename(tmp_path / f"b/images/{split}2017")
        (tmp_path / f"a/annotations/{split}2017").rename(tmp_path / f"b/stuffthingmaps/{split}2017")
    assert prepare("coco-stuff", tmp_path / "b", tmp_path / "out", partial=True).written == 2
    miniatures.context_59(tmp_path / "c")
    (tmp_path / "c/trainval").rename(tmp_path / "c/VOCdevkit/VOC2010/trainval")
    assert prepare("pascal-context-59", tmp_path / "c/VOCdevkit/VOC2010", tmp_path / "out2", partial=True).written == 2


def test_an_interrupted_call_resumes(tmp_path, monkeypatch):
    expected = miniatures.voc(tmp_path / "official")
    convert = conversion._convert
    calls = iter(range(2))

    def stop_after_two(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return convert(*arguments)

    monkeypatch.setattr(conversion, "_convert", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        prepare("voc", tmp_path / "official", tmp_path / "out", partial=True)
    monkeypatch.setattr(conversion, "_convert", convert)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/masks/*.png")}
    assert len(kept) == 2
    leftover = tmp_path / "out/train/masks/.2007_000032.png.0123abcd.part"  # as left by a killed process
    leftover.write_bytes(b"half")
    prepared = prepare("voc", tmp_path / "official", tmp_path / "out", partial=True)
    assert (prepared.written, prepared.photos) == (2, {"train": 3, "val": 1})
    assert not leftover.exists()
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())
    for split, stems in expected.items():
        for stem, expected_ids in stems.items():
            np.testing.assert_array_equal(ids(tmp_path / f"out/{split}/masks/{stem}.png"), expected_ids)
    assert json.loads((tmp_path / "out/prepared.json").read_text())["photos"] == {"train": 3, "val": 1}


def test_a_killed_call_resumes(tmp_path):
    base = tmp_path / "official/VOCdevkit/VOC2012"
    stems = [f"2007_{number:06}" for number in range(400)]
    for stem in stems:
        miniatures.photo(base / f"JPEGImages/{stem}.jpg")
        miniatures.palette(base / f"SegmentationClass/{stem}.png", miniatures.pixels(0, 1, 20))
    miniatures.text(base / "ImageSets/Segmentation/train.txt", *stems[:200])
    miniatures.text(base / "ImageSets/Segmentation/val.txt", *stems[200:])
    command = [
        sys.executable,
        "-m",
        "deop",
        "prepare",
        "voc-20",
        str(tmp_path / "official"),
        "--partial",
        "--workers",
        "1",
    ]
    run = subprocess.Popen([*command, "--out", str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("train/masks/*.png")) and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(list((tmp_path / "out").glob("*/masks/*.png"))) < 400
    prepared = prepare("voc-20", tmp_path / "official", tmp_path / "out", partial=True)
    assert 0 < prepared.written < 400
    for path in (tmp_path / "out").glob("*/masks/*.png"):
        np.testing.assert_array_equal(ids(path), miniatures.pixels(0, 1, 20))


def test_splits_can_be_prepared_in_separate_calls(tmp_path):
    miniatures.cityscapes(tmp_path / "official")
    for split in ("val", "train"):
        prepare("cityscapes", tmp_path / "official", tmp_path / "out", splits=[split], partial=True)
    assert json.loads((tmp_path / "out/prepared.json").read_text())["photos"] == {"val": 1, "train": 1}
    with pytest.raises(SettingError, match="no split test"):
        prepare("cityscapes", tmp_path / "official", tmp_path / "out", splits=["test"])


def test_the_output_folder_is_checked(tmp_path):
    miniatures.voc_alone(tmp_path / "official")
    with pytest.raises(SettingError, match="never changed"):
        prepare("voc-20", tmp_path / "official", tmp_path / "official/out", partial=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    with pytest.raises(SettingError, match="not a prepared data set"):
        prepare("voc-20", tmp_path / "official", tmp_path / "mine", partial=True)
    prepare("voc-20", tmp_path / "official", tmp_path / "out", partial=True)
    with pytest.raises(SettingError, match="other classes or spellings"):
        prepare("voc-20", tmp_path / "official", tmp_path / "out", partial=True, names="plain")
    with pytest.raises(SettingError, match="unknown data set"):
        prepare("imagenet", tmp_path / "official", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "file", "damage", "message"),
    [
        ("voc", "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png", b"nothing", "cannot read the mask"),
        ("voc", "benchmark_RELEASE/dataset/cls/2008_000001.mat", b"nothing", "cannot read GTcls"),
        ("voc", "VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg", b"nothing", "cannot read the photo"),
        ("pascal-context-59", "trainval/2008_000002.mat", b"", "cannot read LabelMap"),
        ("coco-stuff", "annotations/train2017/000000000000.png", miniatures.pixels(0, 11), "has the value 11"),
        ("cityscapes", "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", b"", "cannot read the mask"),
        ("pascal-context-459", "trainval/2008_000002.mat", "LabelMap of 460", "has the value 460"),
        ("coco-stuff", "annotations/train2017/000000000000.png", np.zeros((4, 5)), "is 5 x 4, its photo 6 x 4"),
        ("coco-panoptic", "annotations/panoptic_train2017/000000000000.png", b"", "cannot read the labels"),
    ],
)  # fmt: skip
def test_damaged_files_are_named_or_left_out(name, file, damage, message, tmp_path):
    expected = miniatures.ALL[name](tmp_path / "official")
    path = tmp_path / "official" / file
    if isinstance(damage, str):
        savemat(path, {"LabelMap": miniatures.pixels(460)})
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        miniatures.grey(path, damage)
    with pytest.raises(DataError, match=message) as error:
        prepare(name, tmp_path / "official", tmp_path / "out", partial=True)
    assert path.name in str(error.value)
    prepared = prepare(name, tmp_path / "official", tmp_path / "out", partial=True, skip_broken=True)
    assert len(prepared.left_out) == 1
    assert path.name in prepared.left_out[0]
    assert prepared.photos["train"] == len(expected["train"]) - 1
    stem = path.name.split(".")[0].removesuffix("_gtFine_labelIds")
    assert not list((tmp_path / "out").glob(f"train/*/{stem}.*"))


@pytest.mark.parametrize(
    "content", ["", "[]", '{"images": []}', '{"images": [], "annotations": [3], "categories": []}']
)
def test_a_damaged_panoptic_listing_is_named(content, tmp_path):
    miniatures.coco_panoptic(tmp_path / "official")
    (tmp_path / "official/annotations/panoptic_val2017.json").write_text(content)
    with pytest.raises(DataError, match=r"panoptic_val2017\.json does not have COCO's panoptic format"):
        prepare("coco-panoptic", tmp_path / "official", tmp_path / "out", splits=["val"], partial=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda listing: listing["categories"][0].update(id=70_000),
        lambda listing: listing["categories"][0].update(id=-1),
        lambda listing: listing["categories"][0].update(id=float("inf")),
        lambda listing: listing["categories"].clear(),
        lambda listing: listing["annotations"][0]["segments_info"][0].update(id=1 << 70),
        lambda listing: listing["annotations"][0]["segments_info"][0].update(category_id=1 << 16),
        lambda listing: listing["annotations"][0].update(segments_info=3),
        lambda listing: listing["images"][0].update(file_name=None),
    ],
)
def test_a_panoptic_listing_with_impossible_values_is_reported(change, tmp_path):
    miniatures.coco_panoptic(tmp_path / "official")
    path = tmp_path / "official/annotations/panoptic_val2017.json"
    listing = json.loads(path.read_text())
    change(listing)
    path.write_text(json.dumps(listing))
    with pytest.raises(DataError, match="COCO's panoptic format"):
        prepare("coco-panoptic", tmp_path / "official", tmp_path / "out", splits=["val"], partial=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prepared.json", b"[]"),
        ("prepared.json", b"\xff"),
        ("prepared.json", b'{"photos": 3}'),
        ("classes.json", b"\xff"),
    ],
)
def test_a_damaged_prepared_folder_is_reported(name, content, tmp_path):
    miniatures.voc_alone(tmp_path / "official")
    prepare("voc-20", tmp_path / "official", tmp_path / "out", partial=True)
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*prepare it again"):
        prepare("voc-20", tmp_path / "official", tmp_path / "out", partial=True)
    (tmp_path / "out/classes.json").unlink()
    with pytest.raises(DataError, match="prepare it again"):
        prepare("voc-20", tmp_path / "official", tmp_path / "out", partial=True)


def test_sbd_labels_of_another_form_are_reported(tmp_path):
    miniatures.voc(tmp_path / "official")
    path = tmp_path / "official/benchmark_RELEASE/dataset/cls/2008_000001.mat"
    for content in ({"GTcls": np.zeros((2, 2))}, {"GTcls": {"Boundaries": 1}}):
        savemat(path, content)
        with pytest.raises(DataError, match=r"2008_000001\.mat"):
            prepare("voc", tmp_path / "official", tmp_path / "out", partial=True)


def test_segments_that_are_not_listed_are_reported(tmp_path):
    miniatures.coco_panoptic(tmp_path / "official")
    with pytest.warns(UserWarning, match=r"20\.8 % of the pixels belong to segments .* does not list \(5\)"):
        prepare("coco-panoptic", tmp_path / "official", tmp_path / "out", partial=True)


@pytest.mark.parametrize("entry", ["segment", "category of a segment", "category"])
def test_ids_of_panoptic_files_must_be_whole_numbers(tmp_path, entry):
    miniatures.coco_panoptic(tmp_path / "official")
    listing = tmp_path / "official/annotations/panoptic_val2017.json"
    values = json.loads(listing.read_text())
    segment = values["annotations"][0]["segments_info"][0]
    if entry == "category":
        values["categories"][0]["id"] += 0.7
    else:
        segment["id" if entry == "segment" else "category_id"] += 0.7
    listing.write_text(json.dumps(values))
    with pytest.raises(DataError, match="whole numbers"):
        prepare("coco-panoptic", tmp_path / "official", tmp_path / "out", splits=["val"], partial=True)


def test_lists_with_a_byte_order_mark_and_hidden_files(tmp_path):
    """As after unpacking on Windows and macOS."""
    official = tmp_path / "voc"
    miniatures.voc_alone(official)
    for listing in official.rglob("*.txt"):
        listing.write_text(listing.read_text(), encoding="utf-8-sig")
    expected = prepare("voc-20", official, tmp_path / "out", partial=True).photos
    assert sum(expected.values()) == sum(len(stems) for stems in miniatures.voc_alone(tmp_path / "again").values())
    official = tmp_path / "coco"
    counts = miniatures.coco_stuff(official)
    for path in [*official.rglob("*.jpg"), *official.rglob("*.png")]:
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    prepared = prepare("coco-stuff", official, tmp_path / "out2", partial=True)
    assert prepared.photos == {split: len(stems) for split, stems in counts.items()}


def test_a_missing_reader_is_named_before_anything_is_written(tmp_path, monkeypatch):
    """MATLAB files need scipy; other data sets are prepared without it."""
    for name in ("pascal-context-59", "cityscapes"):
        miniatures.ALL[name](tmp_path / name)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingDependencyError, match=r'MATLAB files \(\.mat\) needs scipy.*"deop\[torch\]"'):
        prepare("pascal-context-59", tmp_path / "pascal-context-59", tmp_path / "out", partial=True)
    assert not (tmp_path / "out").exists()
    assert prepare("cityscapes", tmp_path / "cityscapes", tmp_path / "out", partial=True).written

"""``deop prepare`` as people meet it."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.data.official import PUBLIC_SETS
from tests.data import miniatures
from tests.data.test_folder import write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", str(tmp_path / "cache"))


def test_lists_the_data_sets(deop):
    answer = deop("prepare", "--list")
    assert answer.code == 0
    for name, entry in PUBLIC_SETS.items():
        line = next(line for line in answer.out.splitlines() if line.startswith(f"{name} "))
        assert all(f"{count:,}" in line for count in entry.photos.values())
    found = [json.loads(line) for line in deop("prepare", "--list", "--json").out.splitlines()]
    assert [entry["name"] for entry in found] == list(PUBLIC_SETS)
    assert found[0]["photos"] == {"train": 118287, "val": 5000}
    assert "train2017.zip" in found[0]["files"]


def test_without_anything_it_explains_itself(deop):
    answer = deop("prepare")
    assert answer.code == 2
    assert all(name in answer.out for name in ("check", "coco-stuff", "cityscapes"))
    assert deop("prepare", "imagenet", ".").code == 2


def test_says_which_official_files_are_missing_and_where_they_are(deop, here):
    answer = deop("prepare", "voc", here)
    assert answer.code == 1
    for part in ("ImageSets/Segmentation/train.txt", "benchmark.tgz", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"):
        assert part in answer.err
    assert not list(here.iterdir())
    found = json.loads(deop("prepare", "voc", here, "--split", "val", "--json").out)
    assert not found["ok"]
    assert {row["file"] for row in found["missing"]} == {"VOCtrainval_11-May-2012.tar"}
    assert deop("prepare", "voc", here / "nowhere").code == 1


def test_makes_a_folder_that_check_finds_nothing_wrong_with(deop, here, tmp_path):
    miniatures.voc(tmp_path / "official")
    answer = deop("prepare", "voc", tmp_path / "official", "--workers", 1)
    assert answer.code == 1
    assert "10582 are published" in answer.err
    assert "--partial" in answer.err
    answer = deop("prepare", "voc", tmp_path / "official", "--workers", 1, "--partial")
    assert (answer.code, answer.out) == (0, "")
    assert "voc: 3 train, 1 val; 4 masks written now" in answer.err
    answer = deop("prepare", "check", "voc")
    assert answer.code == 0
    assert "train: 3 photos, 20 classes, nothing wrong" in answer.out
    again = json.loads(deop("prepare", "voc", tmp_path / "official", "--workers", 1, "--partial", "--json").out)
    assert again == {
        "data_set": "voc", "ok": True, "folder": "voc", "photos": {"train": 3, "val": 1}, "made": 0, "left_out": [],
    }  # fmt: skip


def test_wrong_use(deop, here, tmp_path):
    miniatures.voc_own(tmp_path / "official")
    for arguments in (["--split", "test"], ["--out", tmp_path / "official/out"], ["--names", "short"]):
        assert deop("prepare", "voc-20", tmp_path / "official", "--partial", *arguments).code == 2
    assert deop("prepare", "check", here, "--void", "eleven").code == 2


def test_broken_official_files_are_left_out_on_demand(deop, here, tmp_path):
    miniatures.voc_own(tmp_path / "official")
    (tmp_path / "official/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png").write_bytes(b"nothing")
    arguments = ["prepare", "voc-20", tmp_path / "official", "--workers", 1, "--partial"]
    answer = deop(*arguments)
    assert answer.code == 1
    assert "2007_000032.png" in answer.err
    answer = deop(*arguments, "--skip-broken")
    assert answer.code == 0
    assert "left out" in answer.err
    assert "0 train, 1 val" in answer.err


def test_check_names_what_is_wrong(deop, here):
    for split in ("train", "val"):
        write(here / "set" / split, count=12)
    for number in range(10):
        Image.fromarray(np.full((4, 6), 99, np.uint8)).save(here / f"set/val/masks/p{number}.png")
    (here / "set/val/images/p11.jpg").write_bytes(b"no picture")
    (here / "set/train/masks/p3.png").unlink()
    answer = deop("prepare", "check", "set", "--void", "9")
    assert answer.code == 1
    assert "train: 11 photos, 2 classes, 1 finding\n" in answer.out
    assert "photo p3.jpg has no mask" in answer.out
    assert "images/p11.jpg" in answer.out
    assert "unlisted id: 2 more; --json lists all" in answer.out
    found = json.loads(deop("prepare", "check", "set", "--void", "9", "--json").out)
    assert not found["ok"]
    kinds = [finding["kind"] for finding in found["splits"]["val"]["findings"]]
    assert (kinds.count("unlisted id"), kinds.count("broken photo")) == (10, 1)
    assert found["splits"]["train"]["findings"][0]["file"] == "images/p3.jpg"
    assert deop("prepare", "check", "set", "--split", "val", "--void", "9,99").code == 1
    (here / "set/val/images/p11.jpg").write_bytes((here / "set/val/images/p10.jpg").read_bytes())
    assert deop("prepare", "check", "set", "--split", "val", "--void", "9,99").code == 0


def test_check_of_what_is_no_folder(deop, here):
    answer = deop("prepare", "check", here)
    assert answer.code == 1
    assert "neither images/ nor splits" in answer.err


def test_check_says_which_classes_never_occur(deop, here):
    write(here / "set", classes=((1, "cat"), (7, "wall"), (9, "dog"), (12, "sky")))
    assert json.loads(deop("prepare", "check", "set", "--json").out)["splits"]["all"]["never_present"] == ["sky"]

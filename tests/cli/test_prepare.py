"""The command ``deop prepare``."""

import json
import os
import subprocess
import sys

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
    done = deop("prepare", "--list")
    assert done.code == 0
    for name, entry in PUBLIC_SETS.items():
        line = next(line for line in done.out.splitlines() if line.startswith(f"{name} "))
        assert all(f"{count:,}" in line for count in entry.photos.values())
    report = [json.loads(line) for line in deop("prepare", "--list", "--json").out.splitlines()]
    assert [entry["name"] for entry in report] == list(PUBLIC_SETS)
    assert report[0]["photos"] == {"train": 118287, "val": 5000}
    assert "train2017.zip" in report[0]["files"]


def test_without_arguments_it_prints_help(deop):
    done = deop("prepare")
    assert done.code == 2
    assert all(name in done.out for name in ("check", "coco-stuff", "cityscapes"))
    assert deop("prepare", "imagenet", ".").code == 2


def test_lists_the_missing_official_files_and_their_addresses(deop, here):
    done = deop("prepare", "voc", here)
    assert done.code == 1
    for part in ("ImageSets/Segmentation/train.txt", "benchmark.tgz", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"):
        assert part in done.err
    assert not list(here.iterdir())
    report = json.loads(deop("prepare", "voc", here, "--split", "val", "--json").out)
    assert not report["ok"]
    assert {row["file"] for row in report["missing"]} == {"VOCtrainval_11-May-2012.tar"}
    assert deop("prepare", "voc", here / "nowhere").code == 1


def test_a_prepared_data_set_has_no_findings(deop, here, tmp_path):
    miniatures.voc(tmp_path / "official")
    done = deop("prepare", "voc", tmp_path / "official", "--workers", 1)
    assert done.code == 1
    assert "10582 are published" in done.err
    assert "--partial" in done.err
    done = deop("prepare", "voc", tmp_path / "official", "--workers", 1, "--partial")
    assert (done.code, done.out) == (0, "")
    assert "voc: 3 train, 1 val; 4 new masks" in done.err
    done = deop("prepare", "check", "voc")
    assert done.code == 0
    assert "train: 3 photos, 20 classes, no findings" in done.out
    again = json.loads(deop("prepare", "voc", tmp_path / "official", "--workers", 1, "--partial", "--json").out)
    assert again == {
        "data_set": "voc", "ok": True, "folder": "voc", "photos": {"train": 3, "val": 1}, "made": 0, "left_out": [],
    }  # fmt: skip


def test_wrong_usage(deop, here, tmp_path):
    miniatures.voc_alone(tmp_path / "official")
    for arguments in (["--split", "test"], ["--out", tmp_path / "official/out"], ["--names", "short"]):
        assert deop("prepare", "voc-20", tmp_path / "official", "--partial", *arguments).code == 2
    assert deop("prepare", "check", here, "--void", "eleven").code == 2


def test_broken_official_files_are_skipped_with_skip_broken(deop, here, tmp_path):
    miniatures.voc_alone(tmp_path / "official")
    (tmp_path / "official/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png").write_bytes(b"nothing")
    arguments = ["prepare", "voc-20", tmp_path / "official", "--workers", 1, "--partial"]
    done = deop(*arguments)
    assert done.code == 1
    assert "2007_000032.png" in done.err
    done = deop(*arguments, "--skip-broken")
    assert done.code == 0
    assert "skipped: " in done.err
    assert "0 train, 1 val" in done.err


def test_check_lists_findings(deop, here):
    for split in ("train", "val"):
        write(here / "set" / split, count=12)
    for number in range(10):
        Image.fromarray(np.full((4, 6), 99, np.uint8)).save(here / f"set/val/masks/p{number}.png")
    (here / "set/val/images/p11.jpg").write_bytes(b"no picture")
    (here / "set/train/masks/p3.png").unlink()
    done = deop("prepare", "check", "set", "--void", "9")
    assert done.code == 1
    assert "train: 11 photos, 2 classes, 1 finding\n" in done.out
    assert "photo p3.jpg has no mask" in done.out
    assert "images/p11.jpg" in done.out
    assert "unlisted id: 2 more; --json lists all" in done.out
    report = json.loads(deop("prepare", "check", "set", "--void", "9", "--json").out)
    assert not report["ok"]
    kinds = [finding["kind"] for finding in report["splits"]["val"]["findings"]]
    assert (kinds.count("unlisted id"), kinds.count("broken photo")) == (10, 1)
    assert report["splits"]["train"]["findings"][0]["file"] == "images/p3.jpg"
    assert deop("prepare", "check", "set", "--split", "val", "--void", "9,99").code == 1
    (here / "set/val/images/p11.jpg").write_bytes((here / "set/val/images/p10.jpg").read_bytes())
    assert deop("prepare", "check", "set", "--split", "val", "--void", "9,99").code == 0


def test_file_names_that_the_terminal_cannot_show(here):
    """Under an ASCII locale, or on a Windows console without UTF-8."""
    write(here / "set", count=2)
    (here / "set/masks/p1.png").unlink()
    (here / "set/images/p1.jpg").rename(here / "set/images/\u732b.jpg")
    process = subprocess.run(
        [sys.executable, "-m", "deop", "prepare", "check", "set"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 1
    assert "images/?.jpg" in process.stdout
    assert process.stderr == ""


def test_check_of_a_directory_without_a_data_set(deop, here):
    done = deop("prepare", "check", here)
    assert done.code == 1
    assert "neither images/ nor splits" in done.err


def test_check_lists_classes_that_never_occur(deop, here):
    write(here / "set", classes=((1, "cat"), (7, "wall"), (9, "dog"), (12, "sky")))
    assert json.loads(deop("prepare", "check", "set", "--json").out)["splits"]["all"]["never_present"] == ["sky"]


def test_check_reports_what_is_left_out_and_photos_without_classes(deop, here):
    write(here / "set", classes=((1, "cat"), (7, "wall"), (9, "dog")))
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(here / "set/masks/p1.png")
    (here / "set/masks/notes.txt").write_text("who drew them")
    done = deop("prepare", "check", "set")
    assert done.code == 0
    assert "photos without a pixel of any class: 1 (p1)" in done.out
    assert "left out 1 file: not an image: notes.txt" in done.out
    report = json.loads(deop("prepare", "check", "set", "--json").out)["splits"]["all"]
    assert report["without_classes"] == ["p1"]
    assert report["left_out"] == [{"file": "set/masks/notes.txt", "reason": "not an image"}]

"""``deop learn``, and ``--bank`` and ``--example`` of the other commands."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.bank.desk import OBJECTS, render

NAMES = "widget-a, zindle, blorp, table, paper, pen"


@pytest.fixture
def desk(here):
    """A labelled folder of three rendered photos, and a fourth photo with its masks."""
    (here / "desk" / "images").mkdir(parents=True)
    (here / "desk" / "masks").mkdir()
    for number in range(3):
        photo, masks = render(number)
        ids = np.zeros(photo.shape[:2], np.uint8)
        for index, name in enumerate(OBJECTS, 1):
            ids[masks[name]] = index
        Image.fromarray(photo).save(here / "desk" / "images" / f"{number}.png")
        Image.fromarray(ids).save(here / "desk" / "masks" / f"{number}.png")
    classes = [{"id": index, "name": name} for index, name in enumerate(OBJECTS, 1)]
    (here / "desk" / "classes.json").write_text(json.dumps(classes))
    photo, masks = render(5)
    Image.fromarray(photo).save(here / "photo.png")
    for name in OBJECTS:
        Image.fromarray(masks[name]).save(here / f"{name}.png")
    return here


def shares(process):
    """The share of the photo of each name in the output of ``--json -``."""
    assert process.code == 0, process.err
    return {entry["name"]: entry["share"] for entry in json.loads(process.out)["classes"]}


def test_from_a_folder_to_a_segmented_photo(deop, desk):
    process = deop("learn", "desk", "--name", "objects", "--note", "my desk")
    assert process.code == 0, process.err
    assert all(name in process.out for name in OBJECTS)
    assert "model nano (float32)" in process.err
    words = shares(deop("segment", "photo.png", "-c", NAMES, "--json", "-"))
    both = shares(deop("segment", "photo.png", "-c", NAMES, "--bank", "objects", "--json", "-"))
    assert all(words.get(name, 0) < 0.005 < both.get(name, 0) for name in OBJECTS)
    zero = shares(deop("segment", "photo.png", "-c", NAMES, "--bank", "objects", "--bank-weight", "0", "--json", "-"))
    assert zero == words


@pytest.mark.slow
def test_five_photos_teach_names_that_are_found_in_a_sixth(deop, here):
    """As a user would: photos and masks as files, the command line, and the names that the bank has."""
    options = []
    for number in range(6):
        photo, masks = render(number)
        Image.fromarray(photo).save(here / f"desk{number}.png")
        for name in OBJECTS if number < 5 else ():
            Image.fromarray(masks[name]).save(here / f"{name}{number}.png")
            options += ["--example", f"desk{number}.png:{name}{number}.png={name}"]
    process = deop("learn", "--name", "desk", *options)
    assert process.code == 0, process.err
    for arguments in (("-c", NAMES), ()):
        process = deop("segment", "desk5.png", "--bank", "desk", *arguments, "--labels", "ids.png", "--json", "-")
        assert process.code == 0, process.err
        names = json.loads(process.out)["names"]
        assert names == (NAMES.split(", ") if arguments else sorted(OBJECTS))
        ids = np.asarray(Image.open(here / "ids.png"))
        if arguments:
            for name in OBJECTS:
                found = ids == names.index(name) + 1
                assert (found & masks[name]).sum() / (found | masks[name]).sum() > 0.4
    process = deop("segment", "desk5.png", "--bank", "desk", "--cutout", "zindle", "-o", "cut.png")
    assert process.code == 0, process.err
    assert np.asarray(Image.open(here / "cut.png"))[..., 3].any()


def test_names_that_only_negative_examples_have(deop, desk):
    process = deop("segment", "photo.png", "--example", "photo.png:blorp.png=-blorp")
    assert process.code == 2
    assert "no names to ask for" in process.err


def test_adding_forgetting_and_merging(deop, desk):
    assert deop("learn", "desk", "--photos", "1", "--name", "one").code == 0
    process = deop("learn", "desk", "--name", "one")
    assert process.code == 2
    assert "one.safetensors exists: add to it with --add, or replace it with --overwrite" in process.err
    assert deop("learn", "desk", "--name", "one", "--add").code == 0
    assert deop("learn", "desk", "--name", "all").code == 0
    listed = [deop("learn", "--name", name).out for name in ("one", "all")]
    assert listed[0] == listed[1]
    example = ("--example", "photo.png:blorp.png=gizmo")
    assert deop("learn", "--name", "gizmo", *example).code == 0
    assert "gizmo" in deop("learn", "one.safetensors", "gizmo.safetensors", "--name", "both").out
    assert "gizmo" not in deop("learn", "--name", "both", "--forget", "gizmo").out
    process = deop("learn", "--name", "both", "--forget", "gizmo")
    assert process.code == 2
    assert "no examples of 'gizmo'" in process.err
    out = deop("learn", "--name", "both", "--limit", "2").out
    assert all(line.split()[-3] == "2" for line in out.splitlines() if line.startswith(OBJECTS))


def test_examples_of_the_command_line(deop, desk):
    names = ("segment", "photo.png", "-c", "blorp, table, paper", "--json", "-")
    words = shares(deop(*names))
    assert words.get("blorp", 0) < 0.005
    for mark in ("blorp.png", *_box_and_click(desk)):
        assert shares(deop(*names, "--example", f"photo.png:{mark}=blorp")).get("blorp", 0) > 0.005, mark


def _box_and_click(folder):
    rows, columns = np.nonzero(np.asarray(Image.open(folder / "blorp.png")))
    box = f"{columns.min() - 2},{rows.min() - 2},{columns.max() + 3},{rows.max() + 3}"
    return box, f"{columns.mean():.0f},{rows.mean():.0f}"


def test_coco_json(deop, desk):
    ids = np.asarray(Image.open(desk / "desk" / "masks" / "0.png"))
    rows, columns = np.nonzero(ids == 1)
    box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    polygon = [left, top, right, top, right, bottom, left, bottom]
    counts = [int(ids.size - 10), 10]
    content = {
        "images": [{"id": 7, "file_name": "0.png"}],
        "categories": [{"id": 1, "name": "widget-a"}, {"id": 2, "name": "corner"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": [polygon], "bbox": box},
            {"image_id": 7, "category_id": 1, "bbox": box},
            {"image_id": 7, "category_id": 2, "segmentation": {"size": list(ids.shape), "counts": counts}},
            {"image_id": 7, "category_id": 2, "bbox": box, "iscrowd": 1},
        ],
    }
    (desk / "coco.json").write_text(json.dumps(content))
    process = deop("learn", "coco.json", "--images", "desk/images", "--name", "coco")
    assert process.code == 0, process.err
    assert "widget-a" in process.out
    assert "corner" in process.out
    process = deop("learn", "coco.json", "--name", "other")
    assert process.code == 1
    assert "lists the photo 0.png, which is not at" in process.err
    (desk / "coco.json").write_text('{"images": []}')
    assert "Expected COCO's JSON" in deop("learn", "coco.json", "--name", "other").err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--bank", "nothing"), "no bank at nothing.safetensors"),
        (("--bank-weight", "0.5"), "--bank-weight has no effect"),
        (("--example", "photo.png=cup"), "has no mask"),
        (("--example", "photo.png:blorp.png"), "expected PHOTO:MASK=NAME"),
        (("--example", "nothing.png:blorp.png=cup"), "nothing.png does not exist"),
        (("--example", "photo.png:nothing.png=cup"), "no masks at nothing.png"),
        (("--example", "photo.png:1,2,3=cup"), "has 3 numbers"),
    ],
)
def test_mistakes_are_reported_before_the_model_is_loaded(deop, desk, monkeypatch, arguments, text):
    monkeypatch.setattr("deop.zoo.load", lambda *_, **__: pytest.fail("the model was loaded"))
    process = deop("segment", "photo.png", "-c", "cup, wall", *arguments)
    assert process.code in (1, 2, 4)
    assert text in process.err


def test_evaluate_with_a_bank(deop, desk):
    assert deop("learn", "desk", "--name", "objects").code == 0
    plain, zero, both = (
        json.loads(deop("evaluate", "desk", "--json", "-", "--resamples", "2", *more).out)
        for more in ((), ("--bank", "objects", "--bank-weight", "0"), ("--bank", "objects"))
    )
    assert zero["miou"] == plain["miou"]
    assert both["miou"] > plain["miou"]
    assert both["bank"]["photos"] == 3
    assert both["bank"]["names"] == sorted(OBJECTS)


@pytest.mark.slow
def test_batch_with_a_bank(deop, desk):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert deop("learn", "desk", "--name", "objects").code == 0
    arguments = ("batch", "photo.png", "out", "-c", NAMES, "--bank", "objects", "--workers", "1", "--quiet")
    process = deop(*arguments)
    assert process.code == 0, process.err
    (file,) = (desk / "out").glob("*.parquet")
    names = {segment["name"] for segment in pyarrow.read_table(file)["segments"].to_pylist()[0]}
    assert set(OBJECTS) <= names
    process = deop("batch", "photo.png", "out", "-c", NAMES, "--workers", "1", "--quiet")
    assert process.code == 2
    assert "bank" in process.err


def test_captions(deop, desk):
    lines = [{"image": f"{number}.png", "caption": "Paper on tables."} for number in range(2)]
    (desk / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    process = deop("learn", "captions.jsonl", "--images", "desk/images", "-c", "table, paper, pen", "--name", "told")
    assert process.code == 0, process.err
    listed = {line.split()[0] for line in process.out.splitlines()[1:]}
    assert listed
    assert listed <= {"table", "paper"}
    process = deop("segment", "photo.png", "-c", "table, paper, pen", "--bank", "told", "--json", "-")
    assert process.code == 0, process.err


def test_captions_and_their_names_go_together(deop, desk):
    (desk / "captions.csv").write_text("image,caption\n0.png,a table\n")
    process = deop("learn", "captions.csv", "--images", "desk/images", "--name", "told")
    assert process.code == 2
    assert "give the names to look for in the captions (--classes)" in process.err
    process = deop("learn", "desk", "-c", "table", "--name", "told")
    assert process.code == 2
    assert "--classes goes with captions" in process.err
    process = deop("learn", "captions.csv", "-c", "table", "--name", "told")
    assert process.code != 0
    assert "which is not at 0.png: give its directory (--images)" in process.err
    assert not (desk / "told.safetensors").exists()

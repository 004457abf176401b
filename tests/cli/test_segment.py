import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo


@pytest.fixture
def segment(deop, tiny_clip, here, monkeypatch):
    """``segment("a.jpg", ...)`` with the tiny CLIP on the CPU, in an empty working directory."""
    monkeypatch.setenv("DEOP_CACHE", "off")
    return lambda *arguments: deop("segment", *arguments, "--model", tiny_clip, "--device", "cpu")


def write_masks(path, size=(96, 64)):
    """Two masks, the left and the right half of a photo; returns the path."""
    masks = np.zeros((2, size[1], size[0]), bool)
    masks[0, :, : size[0] // 2] = masks[1, :, size[0] // 2 :] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, masks)
    return path


def names_of(here, text="cat, sofa|couch, wall"):
    """Arguments for a photo ``a.jpg`` with masks, both written."""
    write_photo(here / "a.jpg")
    write_masks(here / "m.npy")
    return ["a.jpg", "--classes", text, "--masks", "m.npy"]


def found(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_photo_end_to_end(segment, here):
    arguments = names_of(here)
    before = (here / "a.jpg").read_bytes()
    answer = segment(*arguments, "--labels", "a.labels.png", "--output", "out/a.webp", "--json", "a.json")
    assert answer.code == 0, answer.err
    labels = np.asarray(Image.open(here / "a.labels.png"))
    assert labels.shape == (64, 96)
    for half in (labels[:, :48], labels[:, 48:]):
        assert len(np.unique(half)) == 1, "a mask has one name"
    assert set(np.unique(labels)) <= {1, 2, 3}
    with Image.open(here / "out/a.webp") as picture:
        assert picture.format == "WEBP"
    line = json.loads((here / "a.json").read_text())
    assert line["names"] == ["cat", "sofa", "wall"]
    assert line["results"] == {"picture": "out/a.webp", "labels": "a.labels.png"}
    shares = {segment["name"]: segment["share"] for segment in line["segments"]}
    for name, share in shares.items():
        assert share == pytest.approx((labels == 1 + line["names"].index(name)).mean())
        assert f"{share:.1%}" in next(row for row in answer.out.splitlines() if row.startswith(name))
    assert (here / "a.jpg").read_bytes() == before


def test_the_command_line_and_python_agree(segment, here, tiny_clip):
    import deop

    segment(
        *names_of(here), "--labels", "a.png", "--severance", "affinity", "--background", "sky", "--threshold", "0.1"
    )
    model = deop.load(tiny_clip, device="cpu")
    model.cache = None
    result = model.segment(
        "a.jpg",
        ["cat", "sofa|couch", "wall"],
        masks=np.load("m.npy"),
        severance="affinity",
        background="sky",
        threshold=0.1,
    )
    assert np.array_equal(np.asarray(Image.open("a.png"), dtype=int) - 1, result.label_map)


def test_without_a_place_the_picture_is_named_after_the_photo(segment, here):
    arguments = names_of(here)
    write_photo(here / "far" / "b.jpg")
    assert segment(*arguments).code == 0
    assert segment("far/b.jpg", *arguments[1:]).code == 0
    assert found(here) == ["a.deop.png", "a.jpg", "b.deop.png", "far/b.jpg", "m.npy"]


def test_only_what_is_asked_for_is_written(segment, here):
    answer = segment(*names_of(here), "--json", "-")
    assert found(here) == ["a.jpg", "m.npy"]
    assert json.loads(answer.out)["photo"] == "a.jpg", "nothing but JSON on stdout"


@pytest.mark.parametrize("mode", ["panoptic", "instance"])
def test_modes(segment, here, mode):
    answer = segment(*names_of(here), "--mode", mode, "--things", "cat, sofa|couch, wall", "--json", "-")
    line = json.loads(answer.out)
    assert line["mode"] == mode
    assert all(segment["isthing"] for segment in line["segments"])
    assert answer.code == 0


def test_a_table_counts_things(segment, here):
    answer = segment(*names_of(here, "cat"), "--mode", "panoptic", "--things", "cat")
    row = next(row for row in answer.out.splitlines() if row.startswith("cat"))
    assert row.split()[1] == "2"


def test_names_from_a_file_keep_their_commas(segment, here):
    arguments = names_of(here)
    (here / "names.txt").write_text("cat\n\na sofa, red|couch\n", encoding="utf-8-sig")
    answer = segment("a.jpg", "--classes-file", "names.txt", *arguments[3:], "--json", "-")
    assert json.loads(answer.out)["names"] == ["cat", "a sofa, red"]


def test_a_photo_that_cannot_be_read_does_not_lose_the_others(segment, here):
    for name in "abc":
        write_photo(here / "trip" / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    (here / "trip" / "b.jpg").write_bytes((here / "trip" / "b.jpg").read_bytes()[:300])
    write_masks(here / "masks" / "c.npy", (40, 40))
    answer = segment(
        "trip", "-c", "cat, wall", "--masks", "masks", "-o", "out", "--labels", "maps", "--json", "all.jsonl"
    )
    assert answer.code == 1
    assert found(here / "out") == found(here / "maps") == ["a.png"]
    lines = [json.loads(line) for line in (here / "all.jsonl").read_text().splitlines()]
    assert [line["photo"] for line in lines] == ["trip/a.jpg", "trip/b.jpg", "trip/c.jpg"]
    assert ["error" in line for line in lines] == [False, True, True]
    assert answer.err.count("failed: trip/c.jpg: masks are 40 x 40") == 1
    assert answer.err.count("trip/b.jpg") == 1
    assert "1 of 3 photos done: out, maps, all.jsonl" in answer.err


def test_several_photos_go_to_a_folder_which_a_second_run_passes_over(segment, here):
    for name in "ab":
        write_photo(here / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    for _ in range(2):
        assert segment(".", "-c", "cat, wall", "--masks", "masks").code == 0
        assert found(here / "deop-results") == ["a.png", "b.png"]


def test_a_missing_photo_is_a_failure(segment, here):
    arguments = names_of(here)
    answer = segment("gone.jpg", *arguments[1:])
    assert answer.code == 1
    assert "gone.jpg" in answer.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--classes", ""], "--classes"),
        (["--classes", "cat, Cat"], "cat"),
        (["--classes-file", "a.jpg"], "give one of them"),
        (["--proposer", "some/model"], "give one of them"),
        (["--severance", "scissors"], "scissors"),
        (["--anchors", "decoder"], "decoder"),
        (["--anchors", "heavy"], "heavy"),
        (["--mode", "fast"], "fast"),
        (["--classifier", "magic"], "magic"),
        (["--threshold", "2"], "threshold"),
        (["--templates", "no braces"], "no braces"),
        (["--things", "dog"], "dog"),
        (["--dtype", "float64"], "float64"),
        (["--output", "a.jpg"], "would be replaced"),
    ],
)
def test_wrong_usage_is_told_and_writes_nothing(segment, here, change, words):
    arguments = names_of(here)
    if change[0] == "--classes":
        arguments[1:3] = change
        change = []
    answer = segment(*arguments, *change)
    assert answer.code == 2, answer.err
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert found(here) == ["a.jpg", "m.npy"]


@pytest.mark.parametrize("change", [["--output", "a.xyz"], ["--labels", "a.jpg.tif"], ["--json", "a.jpg/x.json"]])
def test_results_that_cannot_be_written_leave_nothing_behind(segment, here, change):
    answer = segment(*names_of(here), *change)
    assert answer.code == 1
    assert answer.err.startswith("error: cannot write")
    assert found(here) == ["a.jpg", "m.npy"]


def test_a_model_without_a_proposer_asks_for_masks(segment, here):
    answer = segment(*names_of(here)[:3])
    assert answer.code == 2
    assert "--masks" in answer.err


def test_an_interrupted_batch_keeps_what_is_done(segment, here, monkeypatch):
    from deop.model import DeOP

    for name in "abc":
        write_photo(here / "trip" / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    done = []
    original = DeOP.encode

    def interrupted(self, photos, *arguments, **options):
        if done:
            raise KeyboardInterrupt
        done.append(photos)
        return original(self, photos, *arguments, **options)

    monkeypatch.setattr(DeOP, "encode", interrupted)
    answer = segment("trip", "-c", "cat", "--masks", "masks", "--json", "all.jsonl", "-o", "out")
    assert answer.code == 130
    assert len((here / "all.jsonl").read_text().splitlines()) == 1
    assert found(here / "out") == ["a.png"]
    assert "1 of 3 photos done" in answer.err
    assert "Traceback" not in answer.err


def test_a_batch_stopped_by_a_place_that_cannot_be_written_keeps_what_is_done(segment, here):
    for name in "abc":
        write_photo(here / "trip" / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    (here / "out" / "b.png").mkdir(parents=True)
    answer = segment("trip", "-c", "cat", "--masks", "masks", "--json", "all.jsonl", "-o", "out")
    assert answer.code == 1
    assert "1 of 3 photos done" in answer.err
    assert "error: cannot write out/b.png" in answer.err
    assert [json.loads(line)["photo"] for line in (here / "all.jsonl").read_text().splitlines()] == ["trip/a.jpg"]


def test_only_json_goes_to_stdout_when_many_names_are_embedded(segment, here):
    write_photo(here / "a.jpg")
    write_masks(here / "a.npy")
    names = ", ".join(f"thing {index}" for index in range(250))
    answer = segment("a.jpg", "-c", names, "--templates", "none", "--masks", "a.npy", "--json", "-")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["photo"] == "a.jpg"
    assert "embedding 250 names" in answer.err


def test_embeddings_are_kept_unless_told_otherwise(deop, tiny_clip, here, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", str(here / "cache"))
    arguments = ["segment", *names_of(here), "--model", tiny_clip, "--device", "cpu"]
    assert deop(*arguments, "--no-cache").code == 0
    assert not (here / "cache").exists()
    assert deop(*arguments).code == 0
    assert found(here / "cache")


@pytest.mark.slow
def test_a_real_interrupt_leaves_no_traceback(tiny_clip, here):
    arguments = [*names_of(here), "--model", str(tiny_clip)]
    command = [sys.executable, "-m", "deop", "segment", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"DEOP_CACHE": "off"})
    time.sleep(1.5)  # at whatever it is then: importing, loading, working
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (0, 130)


def test_a_real_photo(segment, here, data_folder):
    photo = sorted((data_folder / "coco-mini" / "val" / "images").glob("*.jpg"))[0]
    with Image.open(photo) as image:
        size = image.size
    write_masks(here / "m.npy", size)
    answer = segment(
        photo, "-c", "cat, sofa|couch, wall", "--masks", "m.npy", "--labels", "labels.png", "-o", "out.png"
    )
    assert answer.code == 0, answer.err
    with Image.open(here / "labels.png") as labels:
        assert labels.size == size

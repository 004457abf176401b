"""Results are written one by one, with the time that each took, and kept when something stops the command."""

import io
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.cli.jobs import plan_jobs, skip_finished
from deop.cli.output import write_json_lines
from deop.cli.output_options import FileOptions, PictureOptions
from deop.cli.writing import listed_photos, write_results
from deop.errors import ImageError, OutputError, SettingError
from deop.results.formats import encode_json
from deop.results.segmentation import Segmentation
from tests.cli.conftest import write_photo


def result(name="cat", names=("cat", "wall")):
    """A photo whose left half has a name and whose right half has none."""
    label_map = np.full((4, 6), -1)
    label_map[:, :3] = names.index(name)
    return Segmentation.from_semantic(np.zeros((4, 6, 3), np.uint8), names, label_map)


def write(plan, results, files, kept=(), **options):
    """Write results as ``deop segment`` does."""
    options = {"polygon_format": plan.polygon_format, "overlay": {}, "only": len(plan.jobs) == 1} | options
    with write_json_lines(files.json, kept) as write_line:
        return write_results(plan.jobs, iter(results), files, write_line, **options)


def run(here, results, picture=None, files=None, count=None, **options):
    """Write results for the photos a.jpg, b.jpg, ... and return what became of them."""
    names = [f"{letter}.jpg" for letter in "abcdef"[: count or len(results)]]
    for name in names:
        write_photo(here / name, (6, 4))
    files = files or FileOptions()
    plan = plan_jobs(names, picture or PictureOptions(), files, draw=picture is not None)
    return write(plan, results, files, overlay=(picture or PictureOptions()).overlay_options, **options)


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_each_line_is_written_before_the_next_photo_is_computed(here, monkeypatch):
    flushed = threading.Event()

    class Buffer(io.BytesIO):
        def flush(self):
            flushed.set()

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Buffer()))

    def results():
        yield result()
        assert flushed.wait(30), "the line of the first photo waits for the second"
        yield result()

    assert run(here, results(), files=FileOptions(json=Path("-")), count=2).done == 2


def test_seconds_are_those_of_the_photo(here, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def results():
        for seconds in (1.5, 0.25, 3):
            clock[0] += seconds
            yield result()

    run(here, results(), files=FileOptions(json=Path("all.jsonl")), count=3)
    assert [line["seconds"] for line in read_lines("all.jsonl")] == [1.5, 0.25, 3]


def test_a_photo_without_the_name_has_no_cutout(here):
    found = [result("cat"), result("wall"), result("cat")]
    picture = PictureOptions(output=Path("out"), cutout="cat")
    files = FileOptions(json=Path("all.jsonl"))
    names = [f"{letter}.jpg" for letter in "abc"]
    for name in names:
        write_photo(here / name, (6, 4))
    plan = plan_jobs(names, picture, files)
    overlay = picture.overlay_options | {"names": ["cat"]}
    outcome = write(plan, found, files, overlay=overlay)
    assert (outcome.done, [name for name, _ in outcome.empty]) == (3, ["b.jpg"])
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "c.png"]
    assert [line["results"] for line in read_lines("all.jsonl")] == [
        {"picture": str(Path("out") / "a.png")},
        {},
        {"picture": str(Path("out") / "c.png")},
    ]
    with Image.open("out/a.png") as image:
        alpha = np.asarray(image)[..., 3]
    assert (alpha[:, 3:] == 0).all()
    assert (alpha[:, 0] == 255).all()


def test_nothing_is_written_after_an_error_of_writing(here):
    (here / "out" / "b.png").mkdir(parents=True)
    picture, files = PictureOptions(output=Path("out")), FileOptions(json=Path("all.jsonl"))
    outcome = run(here, [result(), result(), result()], picture, files)
    assert isinstance(outcome.error, OutputError)
    assert outcome.done == 1
    assert [line["photo"] for line in read_lines("all.jsonl")] == ["a.jpg"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]


def test_failures_stand_in_the_file_of_results(here):
    files = FileOptions(json=Path("all.jsonl"))
    outcome = run(here, [result(), ImageError("cannot read b.jpg"), result()], files=files)
    assert outcome.failures == [("b.jpg", "cannot read b.jpg")]
    assert [line.get("error") for line in read_lines("all.jsonl")] == [None, "cannot read b.jpg", None]


def test_file_names_that_are_not_utf8_survive(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    line = encode_json({"photo": name, "name": "façade 🐈"})
    assert "façade 🐈".encode() in line
    assert os.fsencode(json.loads(line)["photo"]) == b"caf\xe9.jpg"


def test_table_lists_names_that_are_not_found(here, capfd):
    names = ("cat", *(f"thing {number}" for number in range(15)))
    run(here, [result("cat", names)], PictureOptions(output=Path("o.png")))
    out = capfd.readouterr().out
    assert "thing 0" in out
    assert "thing 11" in out
    assert "thing 12" not in out
    assert "+ 3 more not found" in out
    assert next(line for line in out.splitlines() if line.startswith("thing 0")).split()[2] == "0.0%"


def test_table_lists_files_about_all_photos(here, capfd):
    run(here, [result()], files=FileOptions(json=Path("all.jsonl")))
    assert "wrote all.jsonl in" in capfd.readouterr().out


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet(here, capfd, quiet):
    run(here, [result()], PictureOptions(output=Path("o.png")), quiet=quiet)
    out, err = capfd.readouterr()
    assert (out == "") == quiet
    assert err == ""


@pytest.mark.parametrize("name", ["cup [ceramic]", "cup [/x]", ":cat: [bold]", "a\x1b[31mred"])
def test_a_table_shows_names_as_they_are(here, capfd, name):
    """The result may come from a program that checks names less strictly."""
    run(here, [result(name, (name, "wall"))], PictureOptions(output=Path("[draft] o.png")))
    out = capfd.readouterr().out
    assert name.replace("\x1b", "\\x1b") in out
    assert "wrote [draft] o.png" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_cannot_print_a_name_shows_a_question_mark(here, monkeypatch, encoding):
    from deop.cli import app

    out = io.TextIOWrapper(io.BytesIO(), encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def show(**options):
        app.say("failed: 猫.jpg")
        run(here, [result("☕ cup", ("☕ cup", "wall"))], PictureOptions(output=Path("☕.png")))

    monkeypatch.setattr(app, "application", lambda arguments: show)
    with pytest.raises(SystemExit) as exit_info:
        app.run(["segment"])
    assert exit_info.value.code == 0
    out.flush()
    err.flush()
    rows = out.buffer.getvalue().splitlines()
    assert rows[1].startswith(b"? cup ")
    assert len(rows[0]) == len(rows[1]) == len(rows[2]), "the columns are aligned"
    assert b"wrote ?.png" in out.buffer.getvalue()
    assert b"failed: ?.jpg" in err.buffer.getvalue()


def test_coco_holds_all_photos_and_their_relative_names(here):
    from deop.results.coco import CocoWriter

    for name in ("trip/a.jpg", "trip/sub/b.jpg"):
        write_photo(here / name, (6, 4))
    files = FileOptions(coco=Path("coco.json"))
    plan = plan_jobs(["trip"], PictureOptions(), files, draw=False)
    coco = CocoWriter(files.coco, ("cat", "wall"), rle="compressed")
    write(plan, [result(), result("wall")], files, coco=coco)
    content = json.loads(Path("coco.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "sub/b.jpg"]
    assert [row["category_id"] for row in content["annotations"]] == [1, 2]


@pytest.mark.parametrize(
    ("out", "format", "suffix"),
    [
        ("lines", None, ".geojson"),
        ("lines", "yolo", ".txt"),
        ("lines", "labelme", ".json"),
        ("x.txt", None, ".txt"),
        ("x.json", "labelme", ".json"),
    ],
)
def test_polygons(here, out, format, suffix):
    files = FileOptions(polygons=Path(out), polygon_format=format)
    run(here, [result()], files=files)
    path = Path(out) if Path(out).suffix else Path(out) / f"a{suffix}"
    text = path.read_text(encoding="utf-8")
    if suffix == ".txt":
        assert text == "0 0 0 0.5 0 0.5 1 0 1\n"
    elif suffix == ".json":
        content = json.loads(text)
        assert content["shapes"][0]["label"] == "cat"
        assert (path.parent / content["imagePath"]).resolve() == (here / "a.jpg").resolve()
    else:
        assert json.loads(text)["features"][0]["properties"]["name"] == "cat"


@pytest.mark.parametrize(
    ("picture", "files", "message"),
    [
        (PictureOptions(output=Path("x")), FileOptions(labels=Path("./x")), "--output and --labels would both write"),
        (None, FileOptions(labels=Path("x"), instances=Path("x")), "--labels and --instances would both write"),
        (None, FileOptions(json=Path("x"), coco=Path("x")), "--json and --coco would both write x"),
        (None, FileOptions(json=Path("sub/../a.jpg")), "is one of the photos"),
        (None, FileOptions(labels=Path("x"), json=Path("x/a.png")), "--labels and --json would both write"),
    ],
)
def test_two_results_never_have_one_path(here, picture, files, message):
    (here / "sub").mkdir()
    with pytest.raises(SettingError, match=message):
        run(here, [result(), result()], picture, files)


def test_finished_photos_are_skipped(here):
    for name in "ab":
        write_photo(here / f"{name}.jpg")
    line = {"a.jpg": b"A", "b.jpg": b"B", "elsewhere.jpg": b"C"}

    def left(plan, lines=None):
        jobs, kept = skip_finished(plan.jobs, lines or {}, has_lines=lines is not None)
        return "".join(job.photo.name[0] for job in jobs), b"".join(kept)

    plan = plan_jobs(["a.jpg", "b.jpg"], PictureOptions(output=Path("out")), FileOptions(labels=Path("maps")))
    assert left(plan) == ("ab", b"")
    for job in plan.jobs:
        job.files["picture"].parent.mkdir(exist_ok=True)
        job.files["picture"].touch()
    assert left(plan) == ("ab", b""), "the label maps are missing"
    plan.jobs[0].files["labels"].parent.mkdir()
    plan.jobs[0].files["labels"].touch()
    assert left(plan) == ("b", b"")
    assert left(plan, {}) == ("ab", b""), "the lines of --json are missing"
    assert left(plan, line) == ("b", b"AC"), "lines of other photos are kept"
    only_lines = plan_jobs(["a.jpg", "b.jpg"], PictureOptions(), FileOptions(json=Path("x.jsonl")), draw=False)
    assert left(only_lines, {"b.jpg": b"B"}) == ("a", b"B")


def test_lines_of_finished_photos_are_read(here):
    files = FileOptions(json=Path("all.jsonl"))
    run(here, [result(), ImageError("broken")], files=files)
    lines = listed_photos(files.json)
    assert list(lines) == ["a.jpg"]
    run(here, [result()], files=files, kept=list(lines.values()))
    assert [line["photo"] for line in read_lines("all.jsonl")] == ["a.jpg", "a.jpg"]
    assert listed_photos(None) == listed_photos(Path("gone")) == listed_photos(Path("-")) == {}
    Path("all.jsonl").write_text("no JSON\n")
    with pytest.raises(OutputError, match=r"cannot add to all\.jsonl"):
        listed_photos(files.json)

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo


@pytest.fixture
def segment(deop, tiny_clip, here, monkeypatch):
    """``segment("a.jpg", ...)`` runs the command with the tiny CLIP on the CPU, in an empty working directory."""
    monkeypatch.setenv("DEOP_CACHE", "off")
    return lambda *arguments: deop("segment", *arguments, "--model", tiny_clip, "--device", "cpu")


def write_masks(path, size=(96, 64)):
    """Write two masks, the left and the right half of a photo, and return the path."""
    masks = np.zeros((2, size[1], size[0]), bool)
    masks[0, :, : size[0] // 2] = masks[1, :, size[0] // 2 :] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, masks)
    return path


def write_inputs(here, text="cat, sofa|couch, wall"):
    """Write a photo ``a.jpg`` and its masks, and return arguments for them."""
    write_photo(here / "a.jpg")
    write_masks(here / "m.npy")
    return ["a.jpg", "--classes", text, "--masks", "m.npy"]


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_photo_end_to_end(segment, here):
    arguments = write_inputs(here)
    before = (here / "a.jpg").read_bytes()
    done = segment(*arguments, "--labels", "a.labels.png", "--output", "out/a.webp", "--json", "a.json")
    assert done.code == 0, done.err
    labels = np.asarray(Image.open(here / "a.labels.png"))
    assert labels.shape == (64, 96)
    for half in (labels[:, :48], labels[:, 48:]):
        assert len(np.unique(half)) == 1, "each mask has one name"
    assert set(np.unique(labels)) <= {1, 2, 3}
    with Image.open(here / "out/a.webp") as picture:
        assert picture.format == "WEBP"
    line = json.loads((here / "a.json").read_text(encoding="utf-8"))
    assert line["names"] == ["cat", "sofa", "wall"]
    assert line["results"] == {"picture": "out/a.webp", "labels": "a.labels.png"}
    shares = {segment["name"]: segment["share"] for segment in line["segments"]}
    for name, share in shares.items():
        assert share == pytest.approx((labels == 1 + line["names"].index(name)).mean())
        assert f"{share:.1%}" in next(row for row in done.out.splitlines() if row.startswith(name))
    assert (here / "a.jpg").read_bytes() == before


def test_the_command_line_and_python_agree(segment, here, tiny_clip):
    import deop

    segment(
        *write_inputs(here), "--labels", "a.png", "--severance", "affinity", "--background", "sky", "--threshold", "0.1"
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


def test_by_default_the_image_is_named_after_the_photo(segment, here):
    arguments = write_inputs(here)
    write_photo(here / "far" / "b.jpg")
    assert segment(*arguments).code == 0
    assert segment("far/b.jpg", *arguments[1:]).code == 0
    assert files_in(here) == ["a.deop.png", "a.jpg", "b.deop.png", "far/b.jpg", "m.npy"]


def test_with_json_alone_no_image_is_written(segment, here):
    done = segment(*write_inputs(here), "--json", "-")
    assert files_in(here) == ["a.jpg", "m.npy"]
    assert json.loads(done.out)["photo"] == "a.jpg", "only JSON goes to stdout"


@pytest.mark.parametrize("mode", ["panoptic", "instance"])
def test_modes(segment, here, mode):
    done = segment(*write_inputs(here), "--mode", mode, "--things", "cat, sofa|couch, wall", "--json", "-")
    line = json.loads(done.out)
    assert line["mode"] == mode
    assert all(segment["isthing"] for segment in line["segments"])
    assert done.code == 0


def test_a_table_counts_things(segment, here):
    done = segment(*write_inputs(here, "cat"), "--mode", "panoptic", "--things", "cat")
    row = next(row for row in done.out.splitlines() if row.startswith("cat"))
    assert row.split()[1] == "2"


def test_names_from_a_file(segment, here):
    arguments = write_inputs(here)
    (here / "names.txt").write_text("# kitchen\ncat;\n\na sofa, red|couch\n", encoding="utf-8-sig")
    done = segment("a.jpg", "--classes-file", "names.txt", *arguments[3:], "--json", "-")
    assert json.loads(done.out)["names"] == ["cat", "a sofa, red"]


def test_an_unreadable_photo_does_not_stop_the_others(segment, here):
    for name in "abc":
        write_photo(here / "trip" / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    (here / "trip" / "b.jpg").write_bytes((here / "trip" / "b.jpg").read_bytes()[:300])
    write_masks(here / "masks" / "c.npy", (40, 40))
    done = segment(
        "trip", "-c", "cat, wall", "--masks", "masks", "-o", "out", "--labels", "maps", "--json", "all.jsonl"
    )
    assert done.code == 1
    assert files_in(here / "out") == files_in(here / "maps") == ["a.png"]
    lines = [json.loads(line) for line in (here / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["photo"] for line in lines] == ["trip/a.jpg", "trip/b.jpg", "trip/c.jpg"]
    assert ["error" in line for line in lines] == [False, True, True]
    assert done.err.count("failed: trip/c.jpg: masks are 40 x 40") == 1
    assert done.err.count("trip/b.jpg") == 1
    assert "1 of 3 photos done: out, maps, all.jsonl" in done.err


def test_a_second_run_skips_the_results_of_the_first(segment, here):
    for name in "ab":
        write_photo(here / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    for _ in range(2):
        assert segment(".", "-c", "cat, wall", "--masks", "masks").code == 0
        assert files_in(here / "deop-results") == ["a.png", "b.png"]


def test_a_missing_photo_is_a_failure(segment, here):
    arguments = write_inputs(here)
    done = segment("gone.jpg", *arguments[1:])
    assert done.code == 1
    assert "gone.jpg" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", ""], "--classes"),
        (["--classes", "cat, Cat"], "cat"),
        (["--classes-file", "a.jpg"], "--classes and --classes-file exclude each other"),
        (["--proposer", "some/model"], "omit one of them"),
        (["--severance", "scissors"], "scissors"),
        (["--anchors", "decoder"], "decoder"),
        (["--anchors", "heavy"], "heavy"),
        (["--mode", "fast"], "fast"),
        (["--classifier", "magic"], "magic"),
        (["--threshold", "5"], "threshold 5.0 is not in [0, 1]"),
        (["--threshold", "-0.1"], "not in [0, 1]"),
        (["--threshold", "dog=0.5"], "dog"),
        (["--alpha", "2"], "--alpha 2.0 is not in [0, 1]"),
        (["--alpha", "0.5", "--style", "outline"], "--alpha has no effect"),
        (["--no-legend", "--cutout", "cat"], "a cut-out has no legend"),
        (["--style", "crayon"], "crayon"),
        (["--style", "outline", "--cutout", "cat"], "--style and --cutout exclude each other"),
        (["--heatmap", "cat", "--cutout", "cat"], "--cutout and --heatmap exclude each other"),
        (["--heatmap", "cat, wall"], "--heatmap shows one name"),
        (["--cutout", "dog"], "'dog' is not one of the requested names"),
        (["--rle"], "--rle has no effect: add --json FILE"),
        (["--coco-polygons"], "add --coco FILE"),
        (["--polygon-format", "yolo"], "add --polygons OUT"),
        (["--tolerance", "2"], "add --polygons OUT"),
        (["--tolerance", "-1", "--polygons", "x.geojson"], "negative"),
        (["--instances", "i.png"], "add --mode panoptic or instance"),
        (["--coco", "-"], "--coco - is not supported"),
        (["--json", "-", "--labels", "-"], "--labels and --json both write to standard output"),
        (["--skip-existing", "--coco", "c.json"], "would lose"),
        (["--skip-existing", "--json", "-"], "standard output is none"),
        (["--vocabulary", "coco"], "--classes and --vocabulary exclude each other"),
        (["--labels", "x.png", "--output", "x.png"], "--output and --labels would both write x.png"),
        (["--labels", "x.png", "--json", "./x.png"], "--labels and --json would both write"),
        (["--json", "a.jpg"], "a.jpg is one of the photos"),
        (["--coco", "m.npy"], "m.npy is read by this command"),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--batch", "0"], "Invalid value for '--batch'"),
        (["--classifier", "two-stream", "--severance", "gate"], "omit severance"),
        (["--classifier", "two-stream", "--anchors", "pool"], "omit anchors"),
        (["--classifier", "two-stream", "--severance", "scissors"], "scissors"),
        (["--templates", "no braces"], "no braces"),
        (["--things", "cat"], "--things has no effect: semantic mode"),
        (["--things", "dog", "--mode", "panoptic"], "dog"),
        (["--dtype", "float64"], "float64"),
        (["--output", "a.jpg"], "would be replaced"),
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(segment, here, options, message):
    arguments = write_inputs(here)
    if options[0] == "--classes":
        arguments[1:3] = options
        options = []
    done = segment(*arguments, *options)
    assert done.code == 2, done.err
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert files_in(here) == ["a.jpg", "m.npy"]


@pytest.mark.parametrize("options", [["--output", "a.xyz"], ["--labels", "a.jpg.tif"], ["--json", "a.jpg/x.json"]])
def test_unwritable_results_leave_nothing_behind(segment, here, options):
    done = segment(*write_inputs(here), *options)
    assert done.code == 3
    assert done.err.lstrip().startswith("error: cannot write")  # rich before 14.3 ends the progress bar with a line
    assert files_in(here) == ["a.jpg", "m.npy"]


def test_a_model_without_a_proposer_asks_for_masks(segment, here):
    done = segment(*write_inputs(here)[:3])
    assert done.code == 2
    assert "--masks" in done.err


def test_an_interrupted_batch_keeps_finished_results(segment, here, monkeypatch):
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
    done = segment("trip", "-c", "cat", "--masks", "masks", "--json", "all.jsonl", "-o", "out")
    assert done.code == 130
    assert len((here / "all.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    assert files_in(here / "out") == ["a.png"]
    assert "1 of 3 photos done" in done.err
    assert "Traceback" not in done.err


def test_a_batch_that_cannot_write_a_file_keeps_finished_results(segment, here):
    for name in "abc":
        write_photo(here / "trip" / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    (here / "out" / "b.png").mkdir(parents=True)
    done = segment("trip", "-c", "cat", "--masks", "masks", "--json", "all.jsonl", "-o", "out")
    assert done.code == 3
    assert "1 of 3 photos done" in done.err
    assert "error: cannot write out/b.png" in done.err
    assert [json.loads(line)["photo"] for line in (here / "all.jsonl").read_text(encoding="utf-8").splitlines()] == [
        "trip/a.jpg"
    ]


def test_only_json_goes_to_stdout_when_many_names_are_embedded(segment, here):
    write_photo(here / "a.jpg")
    write_masks(here / "a.npy")
    names = ", ".join(f"thing {index}" for index in range(250))
    done = segment("a.jpg", "-c", names, "--templates", "none", "--masks", "a.npy", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["photo"] == "a.jpg"
    assert "embedding 250 names" in done.err


def test_a_cutout_needs_no_class_names(segment, here):
    arguments = write_inputs(here)
    done = segment("a.jpg", "--cutout", "cat|kitty, wall", *arguments[3:], "--json", "a.json")
    line = json.loads((here / "a.json").read_text(encoding="utf-8"))
    assert line["names"] == ["cat", "wall", "everything else"]
    if done.code == 0:  # random weights may find neither
        with Image.open(line["results"]["picture"]) as picture:
            assert picture.mode == "RGBA"
    else:
        assert "nothing to cut out" in done.err


def test_a_heatmap_has_the_scores_of_one_name(segment, here):
    done = segment(*write_inputs(here), "--heatmap", "couch", "-o", "heat.png")
    assert done.code == 0, done.err
    assert files_in(here) == ["a.jpg", "heat.png", "m.npy"]


def test_a_picture_is_also_written_if_its_options_ask_for_it(segment, here):
    segment(*write_inputs(here), "--json", "a.json", "--style", "labels")
    assert "a.deop.png" in files_in(here)


def test_an_option_on_the_command_line_replaces_that_of_the_file(segment, here):
    arguments = write_inputs(here)
    (here / "deop.toml").write_text('[segment]\nclasses = ["cat", "dog"]\nmasks = "m.npy"\nstyle = "outline"\n')
    done = segment("a.jpg", "--json", "-")
    assert json.loads(done.out)["names"] == ["cat", "dog"]
    assert "a.deop.png" not in files_in(here), "a style in the file does not ask for a picture"
    (here / "names.txt").write_text("wall\nfloor\n")
    done = segment("a.jpg", "--json", "-", "--classes-file", "names.txt")
    assert json.loads(done.out)["names"] == ["wall", "floor"]
    assert segment("a.jpg", "--cutout", "dog", "-o", "x.png").code in (0, 1), "--cutout replaces style"
    done = segment("a.jpg", "--severance", "scissors")
    assert done.code == 2
    assert "note: deop.toml sets classes, masks, style" in done.err
    done = segment(*arguments, "--no-config", "--json", "-")
    assert json.loads(done.out)["names"] == ["cat", "sofa", "wall"]


def test_finished_photos_are_skipped_and_their_lines_kept(segment, here):
    for name in "abc":
        write_photo(here / "trip" / f"{name}.jpg")
        write_masks(here / "masks" / f"{name}.npy")
    common = ["trip", "-c", "cat, wall", "--masks", "masks", "-o", "out", "--json", "all.jsonl"]
    assert segment(*common).code == 0
    (here / "out" / "b.png").unlink()
    before = (here / "out" / "a.png").stat().st_mtime_ns
    done = segment(*common, "--skip-existing")
    assert done.code == 0, done.err
    assert "1 of 3 photos done, 2 skipped because their results exist: out, all.jsonl" in done.err
    assert files_in(here / "out") == ["a.png", "b.png", "c.png"]
    assert (here / "out" / "a.png").stat().st_mtime_ns == before
    lines = [json.loads(line)["photo"] for line in (here / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(lines) == ["trip/a.jpg", "trip/b.jpg", "trip/c.jpg"]
    done = segment(*common, "--skip-existing", "--model", "nowhere/to-be-found")
    assert (done.code, done.err) == (0, "0 of 3 photos done, 3 skipped because their results exist: out, all.jsonl\n")
    assert segment(*common, "--skip-existing", "--quiet").err == ""


def test_files_that_are_left_out_are_counted_at_the_end(segment, here):
    write_photo(here / "trip" / "a.jpg")
    write_photo(here / "trip" / ".hidden.jpg")
    (here / "trip" / "notes.txt").write_text("hello")
    write_masks(here / "masks" / "a.npy")
    done = segment("trip", "-c", "cat", "--masks", "masks")
    assert done.code == 0
    assert "left out 2 files" in done.err


def test_templates_without_effect_are_reported(deop, here):
    write_photo(here / "a.jpg", (64, 64))
    done = deop("segment", "a.jpg", "-c", "cat, wall", "--templates", "photo", "--device", "cpu", "--json", "-")
    assert done.code == 0
    assert "warning: --templates has no effect" in done.err


@pytest.mark.parametrize("name", ["[draft] cup.jpg", "a:cat:.jpg", "café 猫.jpg", "a\x1b[31m.jpg"])
def test_any_name_of_a_photo(segment, here, name):
    try:
        write_photo(here / name)
    except OSError:
        pytest.skip("no such names on this system")
    write_masks(here / "m.npy")
    done = segment(name, "-c", "cat", "--masks", "m.npy", "--json", "a.json")
    assert done.code == 0
    assert json.loads((here / "a.json").read_text(encoding="utf-8"))["photo"] == name
    done = segment(name, "-c", "cat", "--masks", "m.npy")
    assert f"wrote {name[:-4]}.deop.png".replace("\x1b", "\\x1b") in done.out
    (here / name).write_bytes(b"damaged")
    done = segment(name, "-c", "cat", "--masks", "m.npy")
    assert name.replace("\x1b", "\\x1b") in done.err
    assert "\x1b" not in done.out + done.err


def test_embeddings_are_cached_unless_no_cache_is_given(deop, tiny_clip, here, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", str(here / "cache"))
    arguments = ["segment", *write_inputs(here), "--model", tiny_clip, "--device", "cpu"]
    assert deop(*arguments, "--no-cache").code == 0
    assert not (here / "cache").exists()
    assert deop(*arguments).code == 0
    assert files_in(here / "cache")


def test_a_real_photo(segment, here, data_folder):
    photo = sorted((data_folder / "coco-mini" / "val" / "images").glob("*.jpg"))[0]
    with Image.open(photo) as image:
        size = image.size
    write_masks(here / "m.npy", size)
    done = segment(photo, "-c", "cat, sofa|couch, wall", "--masks", "m.npy", "--labels", "labels.png", "-o", "out.png")
    assert done.code == 0, done.err
    with Image.open(here / "labels.png") as labels:
        assert labels.size == size

"""The command ``deop evaluate``."""

import html
import json
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo


@pytest.fixture
def dataset(here):
    """Two photos of two classes; id 0 is background, 255 void."""
    for number in range(2):
        write_photo(here / f"my data/val/images/{number}.jpg", seed=number)
        ids = np.repeat(np.array([[1, 2, 0, 255]], np.uint8), 24, axis=1).repeat(64, axis=0)
        (here / "my data/val/masks").mkdir(exist_ok=True)
        Image.fromarray(ids).save(here / f"my data/val/masks/{number}.png")
    (here / "my data/classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}]))
    (here / "unseen.txt").write_text("wall\n")
    return here / "my data"


def test_results_report_and_maps(deop, dataset, tiny_clip, here):
    outputs = ["--json", "results.json", "--report", "report", "--save-maps", "maps"]
    options = ["--proposals", "oracle", "--unseen", "unseen.txt", "--resamples", 20, "--seed", 3]
    done = deop("evaluate", dataset, "--model", tiny_clip, *options, *outputs)
    assert done.code == 0, done.err
    results = json.loads((here / "results.json").read_text(encoding="utf-8"))
    assert results["protocol"] == "generalized"
    assert (results["resamples"], results["seed"], results["confidence"]) == (20, 3, 0.95)
    # The keys that docs/evaluation.md promises.
    assert {"miou", "pixel_accuracy", "mean_accuracy", "per_class", "seen_miou", "unseen_miou", "hiou",
            "region_accuracy", "images", "seconds_per_image"} <= set(results)  # fmt: skip
    low, high = results["intervals"]["miou"]
    line = next(line for line in done.out.splitlines() if line.startswith("mIoU "))
    assert f"{100 * results['miou']:.1f} %" in line
    assert f"{100 * low:.1f} to {100 * high:.1f}" in line
    assert "hIoU" in done.out
    maps = [np.asarray(Image.open(path)) for path in sorted((here / "maps").glob("*.png"))]
    assert [set(np.unique(label_map)) <= {1, 2, 255} for label_map in maps] == [True, True]
    page = (here / "report" / "index.html").read_text(encoding="utf-8")
    words = shlex.split(printed_command(page))
    assert words[:3] == ["deop", "evaluate", str(dataset)]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "--model": str(tiny_clip), "--proposals": "oracle", "--unseen": "unseen.txt", "--json": "results.json",
        "--report": "report", "--save-maps": "maps", "--resamples": "20", "--seed": "3",
    }  # fmt: skip
    assert "report/index.html" in done.err


def printed_command(page):
    """The command line that a report shows."""
    return html.unescape(page.split("<pre>")[1].split("</pre>")[0])


def test_the_command_in_the_report_runs_and_gives_the_same_results(deop, dataset, tiny_clip, here):
    """With flags, and with values that a shell would split or expand."""
    (dataset / "val/images/1.jpg").write_bytes(b"not a photo")
    options = ["--proposals", "oracle", "--unseen", "unseen.txt", "--background", "road|street, $HOME sky"]
    options += ["--resamples", "5", "--skip-broken", "--report", "my report", "--json", "results.json"]
    done = deop("evaluate", dataset, "--model", tiny_clip, *options)
    assert done.code == 0, done.err
    first = json.loads((here / "results.json").read_text(encoding="utf-8"))
    command = printed_command((here / "my report/index.html").read_text(encoding="utf-8"))
    (here / "results.json").unlink()
    program, *arguments = shlex.split(command)
    assert program == "deop"
    assert "--skip-broken" in arguments
    done = deop(*arguments)
    assert done.code == 0, done.err
    second = json.loads((here / "results.json").read_text(encoding="utf-8"))
    for results in (first, second):
        results.pop("seconds_per_image")
    assert first == second


def test_with_background_from_the_command_line(deop, dataset, here):
    done = deop("evaluate", dataset, "--protocol", "with-background", "--background", "road, sky|clouds", "--json", "-",
                "--device", "cpu", "--limit", 1)  # fmt: skip
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert list(results["per_class"]) == ["cat", "wall", "background"]
    assert results["background"] == ["road", "sky", "clouds"]
    assert results["per_class_images"] == {"cat": 1, "wall": 1, "background": 1}
    assert results["intervals"] == {}  # a single photo has none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "generalized"], "--unseen FILE"),
        (["--protocol", "with-background", "--proposals", "oracle"], "omit proposals='oracle'"),
        (["--unseen", "nothing.txt"], "cannot read names from nothing.txt"),
        (["--protocol", "open"], "'open' is not one of"),
        (["--threshold", "2"], "Invalid value for '--threshold'"),
    ],
)
def test_wrong_usage_is_reported_before_anything_slow(deop, dataset, arguments, message):
    done = deop("evaluate", dataset, *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not done.out


def test_broken_photos_stop_the_evaluation_or_are_skipped(deop, dataset):
    """The photos are checked before the model is loaded: this one does not exist."""
    (dataset / "val/images/1.jpg").write_bytes((dataset / "val/images/1.jpg").read_bytes()[:300])
    (dataset / "val/masks/2.png").write_bytes((dataset / "val/masks/0.png").read_bytes())
    refused = deop("evaluate", dataset, "--model", "nowhere")
    assert refused.code == 1
    assert "2.png" in refused.err
    (dataset / "val/masks/2.png").unlink()
    refused = deop("evaluate", dataset, "--model", "nowhere")
    assert refused.code == 1
    assert "images/1.jpg" in refused.err
    assert "nowhere" not in refused.err
    (dataset / "val/masks/2.png").write_bytes((dataset / "val/masks/0.png").read_bytes())
    done = deop("evaluate", dataset, "--skip-broken", "--json", "-", "--device", "cpu", "--resamples", 2)
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert results["images"] == 1
    assert results["left_out"] == ["masks/2.png", "images/1.jpg"]
    assert "skipped 2 files" in done.err


def test_photos_beyond_the_limit_are_not_read(deop, dataset):
    (dataset / "val/images/1.jpg").write_bytes(b"no photo")
    done = deop("evaluate", dataset, "--limit", 1, "--json", "-", "--device", "cpu", "--resamples", 2)
    assert done.code == 0, done.err


def write_masks(dataset, *values):
    for number, value in enumerate(values):
        Image.fromarray(np.full((64, 96), value, np.uint8)).save(dataset / f"val/masks/{number}.png")


def test_pixels_and_photos_that_do_not_count_are_reported(deop, dataset, here):
    ids = np.repeat(np.array([[1, 7]], np.uint8), 48, axis=1).repeat(64, axis=0)
    write_masks(dataset, 0, 0)
    Image.fromarray(ids).save(dataset / "val/masks/0.png")
    (dataset / "val/images/._0.jpg").write_bytes(b"Mac OS X")
    done = deop("evaluate", dataset, "--json", "-", "--report", "report", "--device", "cpu", "--resamples", 2)
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert results["unlisted"] == {"share": 0.25, "ids": {"7": 0.25}}
    assert results["without_truth"] == ["1"]
    assert results["images_without_truth"] == 1
    assert results["counted_share"] == 0.25
    lines = done.err.splitlines()
    assert "25.0 % of the pixels do not count, because classes.json does not list their ids: 7 (25.0 %)" in lines
    assert "1 photo has no pixel that counts: 1" in lines
    assert "left out 1 file: hidden: ._0.jpg" in lines
    assert "25.0 % of the pixels do not count" in (here / "report/index.html").read_text(encoding="utf-8")


def test_nothing_counted_is_an_error_before_the_model_is_loaded(deop, dataset):
    write_masks(dataset, 17, 34)
    done = deop("evaluate", dataset, "--model", "nowhere")
    assert done.code == 1
    assert "no pixel of its masks has an id of classes.json. The masks have 17, 34" in " ".join(done.err.split())
    assert "nowhere" not in done.err
    checked = deop("prepare", "check", dataset)
    assert checked.code == 1
    assert "no mask has an id of classes.json (1, 2), they have 17, 34" in " ".join(checked.out.split())


def test_masks_of_few_bits_and_in_upper_case(deop, dataset):
    """All ids are 1, stored with 4 bits, which Pillow scales to 17."""
    from tests.images.test_id_maps import png

    for number in range(2):
        (dataset / f"val/masks/{number}.png").unlink()
        (dataset / f"val/masks/{number}.PNG").write_bytes(png(np.ones((64, 96), int), 4))
    done = deop("evaluate", dataset, "--json", "-", "--proposals", "oracle", "--names", "present", "--resamples", 2)
    assert done.code == 0, done.err
    assert json.loads(done.out)["per_class"] == {"cat": 1.0, "wall": None}
    assert deop("prepare", "check", dataset).code == 0

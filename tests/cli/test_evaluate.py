"""``deop evaluate`` as people type it."""

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
    wanted = ["--json", "found.json", "--report", "report", "--save-maps", "maps"]
    asked = ["--proposals", "oracle", "--unseen", "unseen.txt", "--resamples", 20, "--seed", 3]
    done = deop("evaluate", dataset, "--model", tiny_clip, *asked, *wanted)
    assert done.code == 0, done.err
    found = json.loads((here / "found.json").read_text())
    assert found["protocol"] == "generalized"
    assert (found["resamples"], found["seed"], found["confidence"]) == (20, 3, 0.95)
    # What DESIGN promises to programs.
    assert {"miou", "pixel_accuracy", "mean_accuracy", "per_class", "seen_miou", "unseen_miou", "hiou",
            "region_accuracy", "images", "seconds_per_image"} <= set(found)  # fmt: skip
    low, high = found["intervals"]["miou"]
    line = next(line for line in done.out.splitlines() if line.startswith("mIoU "))
    assert f"{100 * found['miou']:.1f} %" in line
    assert f"{100 * low:.1f} to {100 * high:.1f}" in line
    assert "hIoU" in done.out
    maps = [np.asarray(Image.open(path)) for path in sorted((here / "maps").glob("*.png"))]
    assert [set(np.unique(one)) <= {1, 2, 255} for one in maps] == [True, True]
    page = (here / "report" / "index.html").read_text(encoding="utf-8")
    command = page.split("<pre>")[1].split("</pre>")[0].replace("&#39;", "'")
    words = shlex.split(command)
    assert words[:3] == ["deop", "evaluate", str(dataset)]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "--model": str(tiny_clip), "--proposals": "oracle", "--unseen": "unseen.txt", "--json": "found.json",
        "--report": "report", "--save-maps": "maps", "--resamples": "20", "--seed": "3",
    }  # fmt: skip
    assert "report/index.html" in done.err


def test_with_background_from_the_command_line(deop, dataset, here):
    done = deop("evaluate", dataset, "--protocol", "with-background", "--background", "road, sky|clouds", "--json", "-",
                "--device", "cpu", "--limit", 1)  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert list(found["per_class"]) == ["cat", "wall", "background"]
    assert found["background"] == ["road", "sky", "clouds"]
    assert found["per_class_images"] == {"cat": 1, "wall": 1, "background": 1}
    assert found["intervals"] == {}  # of one photo


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "generalized"], "--unseen FILE"),
        (["--protocol", "with-background", "--proposals", "oracle"], "needs the model's own"),
        (["--unseen", "nothing.txt"], "cannot read names from nothing.txt"),
        (["--protocol", "open"], "'open' is not one of"),
        (["--threshold", "2"], "Invalid value for '--threshold'"),
    ],
)
def test_wrong_usage_is_told_before_anything_slow(deop, dataset, arguments, message):
    done = deop("evaluate", dataset, *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not done.out


def test_broken_photos_are_refused_or_left_out(deop, dataset):
    """Before anything is loaded: the model that is asked for does not exist."""
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
    found = json.loads(done.out)
    assert found["images"] == 1
    assert found["left_out"] == ["masks/2.png", "images/1.jpg"]
    assert "left out 2" in done.err


def test_a_limit_looks_no_further(deop, dataset):
    (dataset / "val/images/1.jpg").write_bytes(b"no photo")
    done = deop("evaluate", dataset, "--limit", 1, "--json", "-", "--device", "cpu", "--resamples", 2)
    assert done.code == 0, done.err

"""``deop segment --tiles``, with the model inside the package."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.tiles import opening
from tests.cli.conftest import write_photo

tifffile = pytest.importorskip("tifffile")
NAMES = ["-c", "person, sky, wall"]


@pytest.fixture
def segment(deop, here):
    write_photo(here / "a.jpg", (300, 200))
    return lambda *arguments: deop("segment", *arguments, "--device", "cpu")


def test_a_label_map_with_polygons_and_json(segment, here):
    done = segment(
        "a.jpg", *NAMES, "--tiles", "128,32", "--labels", "out/a.tif", "--polygons", "a.gpkg", "--json", "a.json"
    )
    assert done.code == 0, done.err
    labels = tifffile.imread(here / "out/a.tif")
    assert labels.shape == (200, 300)
    line = json.loads((here / "a.json").read_text())
    assert line["results"] == {"labels": "out/a.tif", "polygons": "a.gpkg"}
    assert line["tiles"] == {"size": 128, "overlap": 32, "count": 6}
    for number, entry in enumerate(line["classes"], 1):
        assert entry["share"] == pytest.approx((labels == number).mean(), abs=1e-6)
    assert "300 x 200 px in 6 tiles" in done.out
    assert sorted(path.name for path in here.iterdir()) == ["a.gpkg", "a.jpg", "a.json", "out"]


def test_the_default_place_and_an_existing_output(segment, here):
    assert segment("a.jpg", *NAMES, "--tiles", "auto", "-q").code == 0
    first = (here / "a.deop.tif").read_bytes()
    again = segment("a.jpg", *NAMES, "--tiles", "auto")
    assert again.code == 3
    assert "a.deop.tif exists" in again.err
    assert "--overwrite" in again.err
    assert segment("a.jpg", *NAMES, "--tiles", "auto", "--overwrite", "-q").code == 0
    assert (here / "a.deop.tif").read_bytes() == first


def test_several_images_go_to_a_directory_and_failures_are_listed(segment, here):
    write_photo(here / "b.jpg", (150, 100))
    (here / "c.jpg").write_bytes((here / "b.jpg").read_bytes()[:500])
    done = segment("a.jpg", "b.jpg", "c.jpg", *NAMES, "--tiles", "auto", "--labels", "maps", "--json", "-")
    assert done.code == 1
    assert "failed" in done.err
    assert "c.jpg" in done.err
    assert sorted(path.name for path in (here / "maps").iterdir()) == ["a.tif", "b.tif"]
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert ["error" in line for line in lines] == [False, False, True]


def test_pictures_of_photos_in_tiles(segment, here):
    done = segment("a.jpg", *NAMES, "--tiles", "128", "-o", "a.png", "--labels", "labels.png")
    assert done.code == 0, done.err
    assert (here / "a.png").exists()
    assert np.asarray(Image.open(here / "labels.png")).shape == (200, 300)


def test_the_command_line_and_python_agree(segment, here):
    from deop import load
    from deop.tiles import segment_photo

    segment("a.jpg", *NAMES, "--tiles", "128", "--labels", "a.tif")
    result = segment_photo(load("nano", device="cpu"), here / "a.jpg", "person, sky, wall", tiles=128)
    np.testing.assert_array_equal(tifffile.imread(here / "a.tif").astype(int) - 1, result.label_map)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tiles", "big"], "SIZE,OVERLAP"),
        (["--tiles", "512,400"], "at most 256"),
        (["--tiles", "512", "--mode", "panoptic"], "semantic mode only.*--polygons"),
        (["--tiles", "512", "--masks", "m.png"], "--masks"),
        (["--tiles", "512", "--heatmap", "person"], "--heatmap"),
        (["--tiles", "512", "--instances", "i.png"], "--instances"),
        (["--tiles", "512", "--tile-context", "1"], "--tile-context"),
        (["--tiles", "512", "--bands", "1,2"], "--bands"),
        (["--tiles", "512", "--value-range", "5"], "--value-range"),
        (["--tiles", "512", "--polygons", "-"], "standard output"),
        (["--tiles", "512", "--labels", "a.tif", "--skip-existing"], "--skip-existing"),
        (["--tiles", "512", "--labels", "a.tif", "--coco", "c.json"], "--coco"),
        (["--tiles", "512", "-o", "a.png", "--overwrite"], "--overwrite"),
        (["--overwrite"], "--tiles auto"),
        (["--bands", "1,2,3"], "--tiles auto"),
        (["--tiles", "512", "--polygons", "a.txt", "--polygon-format", "yolo"], "gpkg"),
    ],
)
def test_wrong_options_are_refused(segment, arguments, message):
    import re

    done = segment("a.jpg", *NAMES, *arguments)
    assert done.code in (2, 3), done.err
    assert re.search(message, " ".join(done.err.split())), done.err


def test_a_photo_that_is_too_large_for_one_piece_names_tiles(segment, here, monkeypatch):
    from deop.images import reading

    monkeypatch.setattr(reading.read_photo, "__defaults__", (1000,))
    done = segment("a.jpg", *NAMES)
    assert done.code == 1
    assert "--tiles auto" in done.err
    assert segment("a.jpg", *NAMES, "--tiles", "auto", "-q").code == 0


def test_tiles_are_suggested_for_georeferenced_and_for_large_images(segment, here, monkeypatch):
    from deop.cli import tiles

    assert "hint" not in segment("a.jpg", *NAMES).err
    monkeypatch.setattr(tiles, "LARGE", 200)
    assert "hint: a.jpg: the model sees its 300 x 200 px much reduced; --tiles auto" in segment("a.jpg", *NAMES).err
    assert "hint" not in segment("a.jpg", *NAMES, "-q").err
    scale = (33550, "d", 3, (1.0, 1.0, 0.0), False)
    pixels = np.asarray(Image.open(here / "a.jpg").convert("RGB"))
    tifffile.imwrite(here / "b.tif", pixels, photometric="rgb", extratags=[scale], metadata=None)
    done = segment("b.tif", *NAMES)
    assert done.code == 0
    assert "hint: b.tif: pictures and PNG files lose its georeference; --tiles auto" in done.err


def test_an_image_beyond_every_limit_names_the_remedy(segment, monkeypatch):
    monkeypatch.setattr(opening, "MAX_DECODED", 1000)
    done = segment("a.jpg", *NAMES, "--tiles", "auto")
    assert done.code == 1
    assert "convert it to a tiled TIFF" in " ".join(done.err.split())


def test_an_interrupted_run_says_how_to_resume(segment, here, monkeypatch):
    from deop.tiles.run import Run

    def interrupt(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "clean", interrupt)
        done = segment("a.jpg", *NAMES, "--tiles", "128", "--labels", "a.tif")
    assert done.code == 130
    assert "repeat the command to resume" in done.err
    assert (here / ".a.tif.tiles").exists()
    done = segment("a.jpg", *NAMES, "--tiles", "128", "--labels", "a.tif")
    assert done.code == 0
    assert "6 tiles were finished before" in done.out
    assert not (here / ".a.tif.tiles").exists()


def test_options_of_tiles_can_be_in_the_configuration_file(segment, here):
    (here / "deop.toml").write_text('[segment]\ntiles = "128,16"\nclasses = ["person", "sky"]\n')
    done = segment("a.jpg", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["tiles"]["overlap"] == 16

"""Videos as inputs of ``deop segment``."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import write_photo

av = pytest.importorskip("av")


@pytest.fixture
def segment(deop, here, monkeypatch):
    """``segment("clip.mp4", ...)`` runs the command with the built-in model, in a directory with a short video."""
    from tests.video.test_video import make_video

    monkeypatch.setenv("DEOP_CACHE", "off")
    make_video(here / "clip.mp4", frames=3)
    write_photo(here / "a.jpg", (64, 48))
    return lambda *arguments: deop("segment", *arguments, "-c", "cat, wall", "--device", "cpu")


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_video_and_a_photo_in_one_command(segment, here):
    done = segment("clip.mp4", "a.jpg", "-o", "out", "--labels", "maps", "--json", "all.jsonl")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (here / "out").iterdir()) == ["a.png", "clip.mp4"]
    lines = read_lines("all.jsonl")
    assert [line.get("photo") for line in lines] == ["a.jpg", None, None, None]
    assert [line.get("frame") for line in lines] == [None, 0, 1, 2]
    with Image.open(here / "maps" / "clip" / "000002.png") as labels:
        assert labels.size == (64, 48)
    with av.open(str(here / "out" / "clip.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3
    assert "1 of 1 photos done" in done.err


def test_videos_of_one_name_have_numbered_results(segment, here):
    """Also if the name has a dot, and if a number is taken by a video that is called so."""
    from tests.video.test_video import make_video

    videos = ["a/x.1.mp4", "b/x.1.mp4", "c/x.1.mp4", "d/x.1-2.mp4"]
    for count, name in enumerate(videos, 1):
        (here / name).parent.mkdir()
        make_video(here / name, frames=count)
    done = segment(*videos, "--labels", "maps", "--output", "drawn")
    assert done.code == 0, done.err
    frames = {folder.name: len(list(folder.iterdir())) for folder in (here / "maps").iterdir()}
    assert frames == {"x.1": 1, "x.1-2": 2, "x.1-3": 3, "x.1-2-2": 4}
    assert {path.stem for path in (here / "drawn").iterdir()} == set(frames)


def test_the_default_name_of_a_video_has_the_suffix_in_lower_case(segment, here):
    (here / "clip.mp4").rename(here / "clip.MP4")
    assert segment("clip.MP4").code == 0
    assert (here / "clip.deop.mp4").exists()


def test_one_video(segment, here):
    done = segment("clip.mp4", "--every", "3", "--smoothing", "0.5", "--style", "side-by-side")
    assert done.code == 0, done.err
    assert (here / "clip.deop.mp4").exists()
    assert "clip.mp4: 3 frames" in done.err
    assert segment("clip.mp4", "--quiet").err == ""


def test_the_result_of_one_video_can_be_named(segment, here):
    done = segment("clip.mp4", "-o", "drawn.mp4", "--labels", "maps")
    assert done.code == 0, done.err
    with av.open(str(here / "drawn.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3
    assert len(list((here / "maps").iterdir())) == 3


def test_a_damaged_video_does_not_stop_the_photos(segment, here):
    (here / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    done = segment("clip.mp4", "a.jpg", "--json", "all.jsonl")
    assert done.code == 1
    assert "failed: cannot read the video clip.mp4" in done.err
    assert ["error" in line for line in read_lines("all.jsonl")] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coco", "c.json"], "--coco does not apply to videos"),
        (["--cutout", "cat"], "--cutout does not apply to videos"),
        (["--skip-existing"], "--skip-existing does not apply to videos"),
        (["--masks", "m.npy"], "--masks does not apply to videos"),
        (["-o", "-"], "cannot go to standard output"),
        (["--json", "clip.mp4"], "clip.mp4 is read by this command"),
        (["-o", "clip.mp4"], "would be replaced"),
    ],
)
def test_options_that_do_not_apply_to_videos(segment, here, options, message):
    before = (here / "clip.mp4").read_bytes()
    done = segment("clip.mp4", *options)
    assert done.code == 2, done.err
    assert message in done.err
    assert (here / "clip.mp4").read_bytes() == before


@pytest.mark.parametrize("option", [["--every", "2"], ["--smoothing", "0.5"]])
def test_options_of_videos_have_no_effect_on_photos(segment, option):
    done = segment("a.jpg", *option)
    assert done.code == 2
    assert "no video is given" in done.err

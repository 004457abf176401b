import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.cli.photos import PhotoFile, find_masks, find_photos, is_done, place_results
from deop.errors import ImageError, ProposalError, SettingError
from tests.cli.conftest import write_photo


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def paths(*arguments, results=()):
    return [photo.name for photo in find_photos(arguments, results).photos]


def test_files_folders_and_patterns(here):
    touch("a.jpg", "trip/b.JPG", "trip/sub/c.png", "trip/notes.txt", "other/d.webp", "other/e.gif")
    assert paths("a.jpg") == ["a.jpg"]
    assert paths("trip") == ["trip/b.JPG", "trip/sub/c.png"]
    assert paths("other/*.webp", "a.jpg") == ["other/d.webp", "a.jpg"]
    assert paths("trip/**/*.png") == ["trip/sub/c.png"]
    assert paths(str(here / "o*" / "*.gif")) == [str(here / "other/e.gif")], (
        "files that are named explicitly may have any suffix"
    )


def test_every_photo_is_used_once(here):
    touch("trip/a.jpg", "trip/b.jpg")
    assert paths("trip/b.jpg", "trip", "./trip/a.jpg") == ["trip/b.jpg", "trip/a.jpg"]


def test_an_existing_file_with_a_bracket_in_its_name_is_not_a_pattern(here):
    touch("a[1].jpg")
    assert paths("a[1].jpg") == ["a[1].jpg"]


def test_a_missing_file_is_kept_so_that_it_can_be_reported(here):
    assert paths("gone.jpg") == ["gone.jpg"]


@pytest.mark.parametrize("argument", ["empty", "*.jpg"])
def test_an_argument_without_photos_is_named_in_the_error(here, argument):
    Path("empty").mkdir()
    with pytest.raises(ImageError) as caught:
        find_photos([argument])
    assert argument in str(caught.value)


def test_results_below_the_photos_are_skipped(here):
    touch("a.jpg", "a.deop.png", "deop-results/a.png", "maps/a.png")
    assert paths(".", results=[Path("deop-results"), Path("maps")]) == ["a.jpg"]
    assert paths("deop-results", results=[Path("deop-results")]) == ["deop-results/a.png"], "named explicitly"


def test_results_keep_the_folders_of_the_photos(here):
    touch("trip/a.jpg", "trip/sub/a.jpg", "a.png", "b.v2.jpg")
    photos = find_photos(["trip", "a.png", "b.v2.jpg"]).photos
    places = place_results(photos, Path("out"))
    assert [str(place) for place in places] == ["out/a.jpg.png", "out/sub/a.png", "out/a.png.png", "out/b.v2.png"]


def test_results_of_photos_with_one_name_do_not_depend_on_the_other_photos(here):
    """A result keeps its name when a photo is added, so that no photo is taken for done that is not."""
    touch("x/a.png", "x/b.jpg", "x/b.png", "y/b.jpg", "z/B.JPG")
    assert [str(photo.result) for photo in find_photos(["x"]).photos] == ["a", "b.jpg", "b.png"]
    touch("x/a.jpg")
    assert [str(photo.result) for photo in find_photos(["x"]).photos] == ["a.jpg", "a.png", "b.jpg", "b.png"]
    results = [str(photo.result) for photo in find_photos(["x/b.jpg", "y", "z"]).photos]
    assert results == ["b.jpg", "b.jpg-2", "B.JPG-3"], "also on a file system that ignores case"


def test_one_photo_takes_a_file_or_a_directory(here):
    touch("a.jpg")
    photos = find_photos(["a.jpg"]).photos
    assert place_results(photos, Path("x.webp")) == [Path("x.webp")]
    assert place_results(photos, Path("out")) == [Path("out/a.png")]
    Path("v1.0").mkdir()
    assert place_results(photos, Path("v1.0")) == [Path("v1.0/a.png")]


def test_several_photos_need_a_directory(here):
    touch("a.jpg", "b.jpg", "file")
    for out in ("x.png", "file"):
        with pytest.raises(SettingError, match="give a directory"):
            place_results(find_photos(["a.jpg", "b.jpg"]).photos, Path(out))


@pytest.mark.parametrize("out", ["a.png", "./sub/../a.png", "."])
def test_a_photo_is_never_replaced(here, out):
    touch("a.png", "sub/x")
    with pytest.raises(SettingError, match="would be replaced"):
        place_results(find_photos(["a.png"]).photos, Path(out))


def test_masks_are_named_like_their_photo(here):
    touch("p/a.jpg", "p/sub/b.jpg", "m/a.npy", "m/sub/b/1.png")
    photos = find_photos(["p"]).photos
    assert find_masks(photos, Path("m")) == [Path("m/a.npy"), Path("m/sub/b")]
    assert find_masks(photos[:1], Path("m/a.npy")) == [Path("m/a.npy")]
    assert find_masks(photos[1:], Path("m")) == [Path("m/sub/b")]
    with pytest.raises(SettingError, match="give a directory"):
        find_masks(photos, Path("m/a.npy"))
    Path("m/a.npy").unlink()
    with pytest.raises(ProposalError, match=r"no masks for p/a\.jpg"):
        find_masks(photos, Path("m"))
    with pytest.raises(ProposalError, match="no masks at gone"):
        find_masks(photos, Path("gone"))


def test_patterns_and_directories_follow_one_rule(here):
    """Neither ``*`` nor a search finds hidden files, other types or results, and both say what they leave out."""
    touch("p/a.jpg", "p/._a.jpg", "p/.hidden/b.jpg", "p/a.deop.png", "p/notes.txt")
    (here / "p" / "c.jfif").write_bytes(b"\xff\xd8\xff\xe0")
    for argument in ("p", "p/*"):
        found = find_photos([argument])
        assert [photo.name for photo in found.photos] == ["p/a.jpg", "p/c.jfif"], argument
        reasons = {entry.path.name: entry.reason for entry in found.left_out}
        assert reasons == {
            "._a.jpg": "hidden",
            ".hidden": "hidden",
            "a.deop.png": "result of deop",
            "notes.txt": "not an image",
        }
        assert found.summary.startswith("left out 4 files: hidden: ")
    assert paths("p/.hidden/*.jpg") == ["p/.hidden/b.jpg"], "named explicitly"
    assert paths("p/._a.jpg") == ["p/._a.jpg"], "named explicitly"
    assert find_photos(["p/a.jpg"]).summary == ""


def test_the_error_of_a_directory_without_photos_says_what_is_in_it(here):
    touch("p/notes.txt", "p/.a.jpg")
    with pytest.raises(ImageError, match=r"no photos in p: left out 2 files: hidden: \.a\.jpg; not an image: notes"):
        find_photos(["p"])


def test_the_default_directory_of_results_is_never_searched(here):
    touch("a.jpg", "deop-results/b.png", "sub/deop-results/c.png")
    assert paths(".") == ["a.jpg"]
    assert paths("deop-results") == ["deop-results/b.png"], "named explicitly"


def test_a_photo_behind_a_link_is_used_once(here):
    touch("p/a.jpg", "ext/b.jpg")
    (here / "p" / "ext").symlink_to(here / "ext", target_is_directory=True)
    (here / "link.jpg").symlink_to("p/a.jpg")
    assert paths("p", "link.jpg", "ext") == ["p/a.jpg", "p/ext/b.jpg"]
    (here / "gone.jpg").symlink_to("nowhere")
    assert paths("gone.jpg") == ["gone.jpg"], "reported like a missing file"


class Stdin:
    def __init__(self, content, terminal=False):
        self.buffer = io.BytesIO(content)
        self.isatty = lambda: terminal


def test_a_photo_from_standard_input(here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"content"))
    (photo,) = find_photos(["-"]).photos
    assert (photo.source, photo.name, photo.result, photo.is_file) == (
        b"content",
        "standard input",
        Path("stdin"),
        False,
    )
    assert place_results([photo], Path("out")) == [Path("out/stdin.png")]
    with pytest.raises(ImageError, match="standard input is empty"):
        find_photos(["-"])
    with pytest.raises(SettingError, match="named twice"):
        find_photos(["-", "-"])
    monkeypatch.setattr(sys, "stdin", Stdin(b"", terminal=True))
    with pytest.raises(ImageError, match="nothing is piped"):
        find_photos(["-"])


def test_web_addresses(here):
    urls = ["https://example.org/x/my%20cat.jpg?size=2", "https://example.org", "https://example.org/..%2F..%2Fetc"]
    photos = find_photos([*urls, urls[0]]).photos
    assert [photo.source for photo in photos] == [photo.name for photo in photos] == urls
    assert [str(photo.result) for photo in photos] == ["my cat", "photo", "etc"]
    assert not photos[0].is_file


def test_a_photo_is_done_if_all_results_are_there_and_none_is_older(here):
    touch("a.jpg", "x.png", "y.png")
    photo = PhotoFile(Path("a.jpg"), Path("a"))
    os.utime("a.jpg", (100, 100))
    for name, time in (("x.png", 100), ("y.png", 200)):
        os.utime(name, (time, time))
    assert is_done(photo, [Path("x.png"), Path("y.png")])
    assert not is_done(photo, [Path("x.png"), Path("absent.png")])
    assert not is_done(photo, [])
    os.utime("a.jpg", (150, 150))
    assert not is_done(photo, [Path("x.png"), Path("y.png")])
    assert not is_done(PhotoFile(Path("gone.jpg"), Path("gone")), [Path("x.png")])
    assert not is_done(PhotoFile(Path("-"), Path("stdin"), data=b"x"), [Path("x.png")])


@pytest.fixture
def one_photo(here):
    """A photo, and the label maps of it and of another photo of the same size."""
    for name in ("photos", "masks"):
        (here / name).mkdir()
    Image.new("RGB", (15, 10)).save("photos/coffee.jpg")
    ids = np.ones((10, 15), np.uint8)
    ids[:5], ids[5:, :3] = 2, 3
    Image.fromarray(ids).save("masks/coffee.png")
    Image.fromarray((ids == 2).astype(np.uint8)).save("masks/rocket.png")
    return find_photos(["photos/coffee.jpg"]).photos


def test_one_photo_takes_the_masks_that_are_named_like_it(one_photo):
    assert find_masks(one_photo, Path("masks")) == [Path("masks/coffee.png")]
    Path("masks/coffee.png").rename("masks/coffee.PNG")
    assert find_masks(one_photo, Path("masks")) == [Path("masks/coffee.PNG")]


def test_a_directory_of_masks_means_the_same_for_one_photo_as_for_several(one_photo):
    """The masks of a photo in a directory are named like it, however many photos there are."""
    for argument in ("photos", "photos/*.jpg"):
        assert find_masks(find_photos([argument]).photos, Path("masks")) == [Path("masks/coffee.png")]
    Path("masks/coffee.png").unlink()
    for argument in ("photos", "photos/*.jpg"):
        with pytest.raises(ProposalError, match=r"no masks for photos/coffee\.jpg: searched for masks/coffee\.png"):
            find_masks(find_photos([argument]).photos, Path("masks"))


def test_a_named_photo_takes_a_directory_with_one_mask_per_file(one_photo, capsys):
    Path("masks/coffee.png").unlink()
    Image.new("1", (15, 10), 1).save("masks/all.png")
    assert find_masks(one_photo, Path("masks")) == [Path("masks")]
    assert "the 2 images in masks are the masks of photos/coffee.jpg, one each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Path("masks/coffee.png").rename("masks/tea.png"), "tea.png has 3 different ids"),
        (lambda: Image.new("RGB", (15, 10)).save("photos/rocket.png"), "named like another photo"),
        (lambda: Image.new("L", (14, 10)).save("masks/other.png"), "14 x 10.*15 x 10"),
        (lambda: Image.new("L", (15, 10)).save("masks/lossy.jpg"), "compression changes"),
    ],
    ids=["label map", "other photo", "size", "lossy"],
)
def test_masks_that_may_be_of_another_photo_are_refused(one_photo, change, message):
    if message.startswith(("named", "14", "compression")):
        Path("masks/coffee.png").unlink()
    change()
    with pytest.raises(ProposalError, match=message):
        find_masks(one_photo[:1], Path("masks"))


def test_two_masks_for_a_photo_are_refused(here):
    touch("p/a.jpg", "p/b.jpg", "m/a.png", "m/a.npy", "m/b.png")
    with pytest.raises(ProposalError, match=r"two masks for p/a\.jpg: m/a\.npy and m/a\.png"):
        find_masks(find_photos(["p"]).photos, Path("m"))


def test_masks_beside_the_photos(here):
    touch("p/a.jpg", "p/a.npy", "p/b.jpg", "p/b.npz")
    photos = find_photos(["p"]).photos
    assert find_masks(photos, Path("p")) == [Path("p/a.npy"), Path("p/b.npz")]


def test_a_directory_of_all_sorts_is_segmented_and_what_is_left_out_is_said(deop, here):
    """Hidden files, links, unusual suffixes, and 12 bits in a file of 16."""
    write_photo(here / "p/a.jpg").replace(here / "p/a.jfif")
    write_photo(here / "p/.ipynb_checkpoints/a-checkpoint.jpg")
    write_photo(here / "ext/b.jpg")
    (here / "p/._a.jpg").write_bytes(b"Mac OS X")
    (here / "p/e.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (here / "p/link").symlink_to(here / "ext", target_is_directory=True)
    (here / "p/gone.jpg").symlink_to("nowhere.jpg")
    dark = np.linspace(0, 4095, 96 * 64).astype(np.uint16).reshape(64, 96)
    Image.fromarray(dark).save(here / "p/microscope.tif")
    done = deop("segment", "p", "--classes", "cup, sky", "--labels", "maps", "--device", "cpu")
    assert done.code == 0, done.err
    found = sorted(path.relative_to(here / "maps").as_posix() for path in (here / "maps").rglob("*.png"))
    assert found == ["a.png", "link/b.png", "microscope.png"]
    assert (
        "left out 4 files: hidden: ._a.jpg, .ipynb_checkpoints; HEIC image: e.heic (`pip install pillow-heif`, or "
        "convert it to JPEG); link to a file that does not exist: gone.jpg"
    ) in " ".join(done.err.split())
    assert "they are read as values of 12 bits" in " ".join(done.err.split())

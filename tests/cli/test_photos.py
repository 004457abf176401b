from pathlib import Path

import pytest

from deop.cli.photos import find_masks, find_photos, place_results
from deop.errors import ImageError, ProposalError, SettingError


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def paths(*arguments, results=()):
    return [str(photo.path) for photo in find_photos(arguments, results)]


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
    photos = find_photos(["trip", "a.png", "b.v2.jpg"])
    places = place_results(photos, Path("out"))
    assert [str(place) for place in places] == ["out/a.png", "out/sub/a.png", "out/a-2.png", "out/b.v2.png"]
    assert len(set(places)) == len(photos)


def test_one_photo_takes_a_file_or_a_directory(here):
    touch("a.jpg")
    photos = find_photos(["a.jpg"])
    assert place_results(photos, Path("x.webp")) == [Path("x.webp")]
    assert place_results(photos, Path("out")) == [Path("out/a.png")]
    Path("v1.0").mkdir()
    assert place_results(photos, Path("v1.0")) == [Path("v1.0/a.png")]


def test_several_photos_need_a_directory(here):
    touch("a.jpg", "b.jpg", "file")
    for out in ("x.png", "file"):
        with pytest.raises(SettingError, match="give a directory"):
            place_results(find_photos(["a.jpg", "b.jpg"]), Path(out))


@pytest.mark.parametrize("out", ["a.png", "./sub/../a.png", "."])
def test_a_photo_is_never_replaced(here, out):
    touch("a.png", "sub/x")
    with pytest.raises(SettingError, match="would be replaced"):
        place_results(find_photos(["a.png"]), Path(out))


def test_masks_are_named_like_their_photo(here):
    touch("p/a.jpg", "p/sub/b.jpg", "m/a.npy", "m/sub/b/1.png")
    photos = find_photos(["p"])
    assert find_masks(photos, Path("m")) == [Path("m/a.npy"), Path("m/sub/b")]
    assert find_masks(photos[:1], Path("m/a.npy")) == [Path("m/a.npy")]
    with pytest.raises(SettingError, match="give a directory"):
        find_masks(photos, Path("m/a.npy"))
    Path("m/a.npy").unlink()
    with pytest.raises(ProposalError, match=r"no masks for p/a\.jpg"):
        find_masks(photos, Path("m"))
    with pytest.raises(ProposalError, match="no masks at gone"):
        find_masks(photos, Path("gone"))

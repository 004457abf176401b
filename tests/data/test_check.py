"""The check reads every file, names every problem, and leaves out what cannot be used."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from deop.data.check import checked_folder, only_seen, survey
from deop.data.folder import open_folder, splits_of
from deop.errors import DataError
from tests.data.test_folder import write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEOP_CACHE", str(folder))
    return folder


@pytest.fixture
def damaged(tmp_path):
    """A folder with one intact pair and one file for each kind of damage."""
    root = tmp_path / "set"
    write(root, count=7, classes=((1, "cat"), (7, "wall"), (9, "dog")))
    (root / "images/p1.jpg").write_bytes((root / "images/p1.jpg").read_bytes()[:300])
    (root / "masks/p2.png").write_bytes(b"not an image")
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(root / "masks/p3.png")
    Image.fromarray(np.full((4, 6), 99, np.uint8)).save(root / "masks/p4.png")
    (root / "masks/p5.png").unlink()
    (root / "images/p6.jpg").unlink()
    return root


def test_every_problem_is_named(damaged):
    with pytest.raises(DataError, match=r"p5\.jpg has no mask, and 1 more"):
        open_folder(damaged)
    actual = survey(open_folder(damaged, skip_unpaired=True))
    assert {(finding.kind, finding.file) for finding in actual.findings} == {
        ("unpaired", "images/p5.jpg"), ("unpaired", "masks/p6.png"), ("broken photo", "images/p1.jpg"),
        ("broken mask", "masks/p2.png"), ("size", "masks/p3.png"), ("unlisted id", "masks/p4.png"),
    }  # fmt: skip
    details = {finding.kind: finding.detail for finding in actual.findings}
    assert details["size"] == "6 x 5, its photo p3.jpg 6 x 4"
    assert "truncated" in details["broken photo"]
    assert "99" in details["unlisted id"]
    assert actual.photos == 5
    assert actual.present["p0"] == (0, 1, 7, 9, 255)


def test_void_ids_need_not_be_listed(damaged):
    kinds = {finding.kind for finding in survey(open_folder(damaged, skip_unpaired=True), void=[99]).findings}
    assert "unlisted id" not in kinds


def test_broken_files_are_refused_or_left_out(damaged):
    folder = open_folder(damaged, skip_unpaired=True)
    with pytest.raises(DataError, match=r"p\d\.(jpg|png): .*, and 2 more.*deop prepare check"):
        checked_folder(folder)
    kept = checked_folder(folder, skip_broken=True)
    assert [pair.photo.name for pair in kept.pairs] == ["p0.jpg", "p4.jpg"]
    assert checked_folder(kept) is kept
    (damaged / "images/p0.jpg").write_bytes(b"")
    (damaged / "images/p4.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 2 photos"):
        checked_folder(kept, skip_broken=True)


def test_photos_that_share_a_name(tmp_path):
    write(tmp_path / "set")
    Image.new("RGB", (6, 4)).save(tmp_path / "set/images/p0.png")
    with pytest.raises(DataError, match="shares its name"):
        open_folder(tmp_path / "set")
    folder = open_folder(tmp_path / "set", skip_unpaired=True)
    assert [pair.photo.stem for pair in folder.pairs] == ["p1"]
    assert [entry.path.name for entry in folder.unpaired] == ["p0.jpg", "p0.png"]


def test_the_size_of_a_rotated_photo_is_that_of_the_upright_one(tmp_path):
    write(tmp_path / "set", count=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(tmp_path / "set/images/p0.jpg", exif=exif)
    assert survey(open_folder(tmp_path / "set"), void=[9]).findings == ()


def test_the_result_is_cached_until_a_file_changes(tmp_path, cache, monkeypatch):
    write(tmp_path / "set")
    folder = open_folder(tmp_path / "set")
    first = survey(folder, use_cache=True)
    assert len(list((cache / "checks").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("deop.data.check._inspect", lambda pair, colours: pytest.fail("read again"))
        assert survey(folder, use_cache=True) == first
    (tmp_path / "set/masks/p0.png").write_bytes(b"not an image")
    assert [finding.kind for finding in survey(folder, use_cache=True).unusable()] == ["broken mask"]
    next(iter((cache / "checks").iterdir())).write_text("{")
    assert [finding.kind for finding in survey(folder, use_cache=True).unusable()] == ["broken mask"]


def test_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", "off")
    write(tmp_path / "set")
    assert checked_folder(open_folder(tmp_path / "set")).pairs
    monkeypatch.setenv("DEOP_CACHE", "/proc/nowhere")
    assert checked_folder(open_folder(tmp_path / "set")).pairs


def test_only_seen_classes_and_photos_that_show_them(tmp_path):
    write(tmp_path / "set", count=3)
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(tmp_path / "set/masks/p1.png")
    folder = open_folder(tmp_path / "set")
    assert only_seen(folder) == folder
    with pytest.raises(DataError, match="no photo shows any of the 0 seen classes"):
        only_seen(folder, folder.names)
    with pytest.raises(DataError, match="no class named dog"):
        only_seen(folder, ["dog"])
    seen = only_seen(folder, ["wall"])
    assert seen.names == ("cat",)
    assert [pair.photo.stem for pair in seen.pairs] == ["p0", "p2"]
    assert seen.labels(seen.pairs[0])[0].tolist() == [0, -1, -1, -1, -1, -1]
    entries = [{"id": 1, "name": "cat", "seen": True}, {"id": 7, "name": "wall", "seen": False}]
    (tmp_path / "set/classes.json").write_text(json.dumps(entries))
    marked = only_seen(open_folder(tmp_path / "set"))
    assert (marked.names, marked.pairs) == (seen.names, seen.pairs)


def test_splits(tmp_path):
    assert splits_of(tmp_path) == (None,)
    write(tmp_path / "set/train")
    write(tmp_path / "set/val")
    assert splits_of(tmp_path / "set") == ("train", "val")
    assert splits_of(tmp_path / "set/val") == (None,)


def test_a_folder_without_any_listed_id_is_refused(tmp_path):
    write(tmp_path / "set", classes=((3, "cat"), (4, "dog")))
    with pytest.raises(DataError, match=r"The masks have 0, 1, 7, 9, 255, and classes\.json lists 3, 4"):
        checked_folder(open_folder(tmp_path / "set"))
    assert checked_folder(open_folder(tmp_path / "set"), counted=[0]).pairs


def test_ids_that_are_not_listed_are_warned_of_on_request(tmp_path):
    write(tmp_path / "set", count=3)
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(tmp_path / "set/masks/p1.png")
    folder = open_folder(tmp_path / "set")
    with pytest.warns(UserWarning, match=r"2 of 3 masks have ids that classes\.json does not list \(9\)"):
        checked_folder(folder, warn=True)


def test_files_that_training_leaves_out_are_warned_of(tmp_path):
    write(tmp_path / "set", classes=((1, "cat"), (7, "wall"), (9, "dog")))
    for name in ("notes.txt", "._p0.jpg"):
        (tmp_path / "set/images" / name).write_bytes(b"x")
    folder = open_folder(tmp_path / "set")
    with pytest.warns(UserWarning, match=r"left out 1 file: not an image: notes\.txt$"):
        checked_folder(folder, warn=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked_folder(folder)
    (tmp_path / "set/masks/p1.png").rename(tmp_path / "set/masks/p2.png")
    folder = open_folder(tmp_path / "set", skip_unpaired=True)
    with pytest.warns(
        UserWarning, match=r"left out 3 files: photo or mask without exactly one partner: p1.jpg, p2.png;"
    ):
        checked_folder(folder, warn=True)
    (tmp_path / "set/masks/p0.png").unlink()
    with pytest.raises(
        DataError, match=r"no photos with masks in .*: left out 5 files: hidden: \._p0\.jpg; photo or mask"
    ):
        open_folder(tmp_path / "set", skip_unpaired=True)


def test_colours_that_are_not_listed_are_found_and_the_cache_knows_the_colours(tmp_path):
    write(tmp_path / "set", count=1)
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[0], rgb[1] = (220, 20, 60), (1, 2, 3)
    Image.fromarray(rgb).save(tmp_path / "set/masks/p0.png")
    assert [finding.kind for finding in survey(open_folder(tmp_path / "set"), use_cache=True).findings] == [
        "broken mask"
    ]
    entries = [{"id": 1, "name": "cat", "color": "#dc143c"}, {"id": 7, "name": "wall"}]
    (tmp_path / "set/classes.json").write_text(json.dumps(entries))
    (finding,) = survey(open_folder(tmp_path / "set"), use_cache=True).findings
    assert (finding.kind, finding.detail) == ("unlisted id", "colours not in classes.json")

"""Which files of a directory are images: hidden files, links, cycles, types by content, and what is said."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image, features

from deop.images.collection import HIDDEN, NOT_AN_IMAGE, LeftOut, collect, describe_left_out
from deop.images.file_types import file_type, file_type_at, has_heif_plugin, register_plugins
from deop.images.reading import read_photo


def picture(form="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 30, 60)).save(buffer, form)
    return buffer.getvalue()


def write(folder, **files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(folder, **options):
    return [path.relative_to(folder).as_posix() for path in collect(folder, **options).files]


def reasons(folder, **options):
    return {entry.path.relative_to(folder).as_posix(): entry.reason for entry in collect(folder, **options).left_out}


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_hidden_files_and_directories_are_left_out(tmp_path):
    write(tmp_path, **{
        "a.jpg": picture(), "._a.jpg": b"Mac OS X", ".DS_Store": b"1", ".ipynb_checkpoints/a-checkpoint.jpg": picture(),
        "__MACOSX/a.jpg": picture(), "sub/@eaDir/a.jpg": picture(), "sub/.thumbs/a.jpg": picture(),
    })  # fmt: skip
    assert names(tmp_path) == ["a.jpg"]
    hidden = ["._a.jpg", ".DS_Store", ".ipynb_checkpoints", "__MACOSX", "sub/.thumbs", "sub/@eaDir"]
    assert reasons(tmp_path) == dict.fromkeys(hidden, HIDDEN)
    write(tmp_path, **{".photos/b.jpg": picture()})
    assert names(tmp_path / ".photos") == ["b.jpg"], "a hidden directory that is named is searched"


def test_the_content_decides_for_unusual_suffixes(tmp_path):
    write(tmp_path, **{
        "a.jfif": picture(), "b.HEIC": picture(), "c": picture("PNG"), "d.jpg_original": picture("WEBP"),
        "e.jp2": picture("JPEG2000"), "f.ppm": picture("PPM"), "h.gif": picture("GIF"),
        "i.dat": picture("BMP"), "j.x": picture("TIFF"),
        "notes.txt": b"P6 is a format", "BM.txt": b"BM is short for bitmap, and this is a text", "Thumbs.db": b"12",
        "phone.heic": HEIC, "page.pdf": b"%PDF-1.7", "clip.mp4": b"\0\0\0\x20ftypisom" + bytes(20),
        "clip.avi": b"RIFF....AVI LIST", "empty": b"", "raw.NEF": picture("TIFF"), "new.jxl": b"\xff\x0a" + bytes(9),
    })  # fmt: skip
    assert names(tmp_path) == [
        "a.jfif", "b.HEIC", "c", "d.jpg_original", "e.jp2", "f.ppm", "h.gif", "i.dat", "j.x",
    ]  # fmt: skip
    for path in collect(tmp_path).files:
        assert read_photo(path).shape == (10, 20, 3)
    left = reasons(tmp_path)
    assert {left[name] for name in ("notes.txt", "BM.txt", "Thumbs.db", "empty")} == {NOT_AN_IMAGE}
    assert left["phone.heic"].startswith("HEIC image: `pip install pillow-heif`")
    assert left["page.pdf"].startswith("PDF: ")
    assert left["clip.mp4"] == left["clip.avi"] == "video: extract the frames you need"
    assert left["raw.NEF"].startswith("camera raw file: ")
    assert left["new.jxl"].startswith("JPEG XL image: ")


def test_avif_images_are_read_where_pillow_can(tmp_path):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x20ftypavif" + bytes(20))
    supported = "avif" in features.get_supported()
    assert (names(tmp_path) == ["a.avif"]) == supported
    if supported:
        (tmp_path / "a.avif").write_bytes(picture("AVIF"))
        assert read_photo(tmp_path / "a.avif").shape == (10, 20, 3)


def test_a_damaged_photo_is_kept_so_that_it_is_reported(tmp_path):
    write(tmp_path, **{"a.jpg": b"not an image", "b.PNG": b"", "c.jpeg": HEIC})
    assert names(tmp_path) == ["a.jpg", "b.PNG", "c.jpeg"]


def test_links_are_followed_and_each_directory_is_used_once(tmp_path):
    write(tmp_path, **{"photos/a.jpg": picture(), "photos/sub/b.jpg": picture(), "ext/c.jpg": picture()})
    photos = tmp_path / "photos"
    (photos / "ext").symlink_to(tmp_path / "ext", target_is_directory=True)
    (photos / "again").symlink_to(tmp_path / "ext", target_is_directory=True)
    (photos / "to-sub").symlink_to("sub", target_is_directory=True)
    (photos / "z.jpg").symlink_to(tmp_path / "ext" / "d.jpg")
    write(tmp_path, **{"ext/d.jpg": picture()})
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "circle").symlink_to(photos, target_is_directory=True)
    (photos / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (photos / "self").symlink_to("self")
    assert names(photos) == ["a.jpg", "again/c.jpg", "again/d.jpg", "sub/b.jpg"]
    left = reasons(photos)
    assert left["gone.jpg"] == "link to a file that does not exist"
    assert left["circle"] == left["sub/up"] == "link to a directory that contains it"
    assert left["ext"] == left["to-sub"] == left["z.jpg"] == "link to files that are used already"
    assert left["self"] == "link in a circle"
    assert names(photos, unique=False) == ["a.jpg", "again/c.jpg", "again/d.jpg", "sub/b.jpg", "z.jpg"]
    assert names(photos, recursive=False) == ["a.jpg", "z.jpg"]


def test_directories_that_link_to_each_other_are_no_endless_search(tmp_path):
    write(tmp_path, **{"x/a.jpg": picture(), "y/b.jpg": picture()})
    (tmp_path / "x" / "y").symlink_to(tmp_path / "y", target_is_directory=True)
    (tmp_path / "y" / "x").symlink_to(tmp_path / "x", target_is_directory=True)
    assert names(tmp_path / "x") == ["a.jpg", "y/b.jpg"]
    assert names(tmp_path) == ["x/a.jpg", "y/b.jpg"]


def test_a_linked_directory_can_be_the_start(tmp_path):
    write(tmp_path, **{"real/a.jpg": picture()})
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    assert [str(path) for path in collect(tmp_path / "link").files] == [str(tmp_path / "link" / "a.jpg")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_not_a_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reasons(tmp_path) == {"pipe.jpg": "not a regular file"}


def test_directories_can_be_skipped_with_a_reason(tmp_path):
    write(tmp_path, **{"a.jpg": picture(), "out/b.jpg": picture(), "c.png": picture("PNG")})
    found = collect(tmp_path, skip=lambda path: "result" if path.name in ("out", "c.png") else None)
    assert [path.name for path in found.files] == ["a.jpg"]
    assert [entry.path.name for entry in found.left_out] == ["c.png", "out"]


def test_one_line_says_what_was_left_out():
    hidden = [LeftOut(Path(f".{number}"), HIDDEN) for number in range(5)]
    others = [LeftOut(Path("x/notes.txt"), NOT_AN_IMAGE), LeftOut(Path("e.heic"), "HEIC image: convert it")]
    assert describe_left_out([*others, *hidden]) == (
        "left out 7 files: hidden: .0, .1, .2 and 2 more; HEIC image: e.heic (convert it); not an image: notes.txt"
    )
    assert describe_left_out([]) == ""
    assert describe_left_out(others[:1]) == "left out 1 file: not an image: notes.txt"


def test_heic_images_are_read_if_the_plugin_is_installed(tmp_path, monkeypatch):
    """The module is replaced by one that reads these bytes as a picture of one colour."""
    import sys
    import types

    from PIL import ImageFile

    class Opener(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._mode, self._size = "RGB", (6, 4)

        def load(self):
            self.im = Image.new("RGB", (6, 4), (9, 8, 7)).im

    plugin = types.ModuleType("pillow_heif")
    plugin.__spec__ = object()
    plugin.register_heif_opener = lambda: Image.register_open("HEIF", Opener, lambda start: start[4:12] == b"ftypheic")
    path = tmp_path / "phone.heic"
    path.write_bytes(HEIC)
    has_heif_plugin.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    try:
        assert file_type(HEIC).readable
        assert file_type_at(path).name == "HEIC image"
        assert names(tmp_path) == ["phone.heic"]
        register_plugins()
        assert read_photo(path).shape == (4, 6, 3)
    finally:
        has_heif_plugin.cache_clear()
        Image.OPEN.pop("HEIF", None)
        if "HEIF" in Image.ID:
            Image.ID.remove("HEIF")

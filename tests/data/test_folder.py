"""Data sets as folders: photos, masks and classes are read, and every problem is named."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deop.data.folder import open_folder
from deop.data.labelled import LabelClass, photo_size, read_mask
from deop.errors import DataError
from deop.images.reading import read_photo


def write(folder, count=2, size=(4, 6), classes=((1, "cat"), (7, "wall"))):
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        Image.new("RGB", size[::-1]).save(folder / "images" / f"p{index}.jpg")
        ids = np.zeros(size, np.uint8)
        ids[0, :4] = 1, 7, 255, 9
        Image.fromarray(ids).save(folder / "masks" / f"p{index}.png")
    entries = [{"id": number, "name": name, "isthing": True} for number, name in classes]
    (folder / "classes.json").write_text(json.dumps(entries))


def test_ids_become_indices_and_unlisted_ids_are_ignored(tmp_path):
    write(tmp_path)
    data = open_folder(tmp_path)
    assert data.names == ("cat", "wall")
    labels = data.labels(data.pairs[0])
    assert labels[0].tolist() == [0, 1, -1, -1, -1, -1]
    assert (labels[1:] == -1).all()


def test_zero_and_255_count_if_they_are_listed(tmp_path):
    write(tmp_path, classes=((0, "floor"), (255, "sky")))
    data = open_folder(tmp_path)
    assert data.labels(data.pairs[0])[0].tolist() == [-1, -1, 1, -1, 0, 0]


def test_masks_of_sixteen_bits(tmp_path):
    write(tmp_path, count=1, classes=((300, "rare"), (1, "cat")))
    ids = np.full((4, 6), 300, np.uint16)
    Image.fromarray(ids).save(tmp_path / "masks" / "p0.png")
    data = open_folder(tmp_path)
    assert (data.labels(data.pairs[0]) == 0).all()


def test_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        write(tmp_path / split, count)
    (tmp_path / "val" / "classes.json").rename(tmp_path / "classes.json")
    (tmp_path / "train" / "classes.json").unlink()
    assert len(open_folder(tmp_path).pairs) == 2
    assert len(open_folder(tmp_path, "train").pairs) == 3
    with pytest.raises(DataError, match="it has the splits train, val"):
        open_folder(tmp_path, "test")


def test_every_problem_is_named(tmp_path):
    with pytest.raises(DataError, match="neither images/ nor splits"):
        open_folder(tmp_path)
    write(tmp_path)
    data = open_folder(tmp_path)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "masks" / "p0.png")
    with pytest.raises(DataError, match=r"p0\.png is 6 x 5, its photo p0\.jpg 6 x 4"):
        data.labels(data.pairs[0])
    Image.new("RGB", (6, 4), "red").save(tmp_path / "masks" / "p0.png")
    with pytest.raises(DataError, match=r"in colour \(mode RGB\).*classes\.json"):
        data.labels(data.pairs[0])
    (tmp_path / "masks" / "p0.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cannot read the mask .*p0\.png"):
        data.labels(data.pairs[0])
    (tmp_path / "masks" / "p1.png").unlink()
    with pytest.raises(DataError, match=r"photo p1\.jpg has no mask"):
        open_folder(tmp_path)
    (tmp_path / "classes.json").write_text("[]")
    (tmp_path / "images" / "p1.jpg").unlink()
    with pytest.raises(DataError, match="is empty: list at least one class"):
        open_folder(tmp_path)
    (tmp_path / "classes.json").write_text('[{"id": 1}]')
    with pytest.raises(DataError, match="cannot read"):
        open_folder(tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DataError, match=r"no classes\.json"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "not a list"),
        (b'["cat"]', "not a class"),
        (b'[{"id": 1}]', "not a class"),
        (b'[{"name": "cat"}]', "the id of 'cat' is None"),
        (b'[{"id": 1.5, "name": "cat"}]', "the id of 'cat' is 1.5"),
        (b'[{"id": Infinity, "name": "cat"}]', "the id of 'cat' is inf"),
        (b'[{"id": true, "name": "cat"}]', "the id of 'cat' is True"),
        (b'[{"id": 99999999999999, "name": "cat"}]', "from 0 to 65535"),
        (b'[{"id": 1, "name": null}]', "not a class"),
        (b'[{"id": 1, "name": "cat", "isthing": "yes"}]', "'isthing' of 'cat'"),
        (b'[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]', "lists the id 1 more than once"),
        (b'[{"id": 1, "name": "cat", "color": "red"}]', "the color of 'cat' is 'red'"),
        (b'[{"id": 1, "name": "cat", "color": [1, 2, 256]}]', "the color of 'cat'"),
        (b'[{"id": 1, "name": "cat", "color": [1, 2, 2.5]}]', "the color of 'cat'"),
        (b'[{"id": 1, "name": "a", "color": "#0a0b0c"}, {"id": 2, "name": "b", "color": [10, 11, 12]}]', "#0a0b0c"),
    ],
    ids=range(17),
)
def test_a_damaged_list_of_classes_is_reported(tmp_path, content, message):
    write(tmp_path)
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"classes\.json.*{message}"):
        open_folder(tmp_path)


def test_a_list_of_classes_may_start_with_a_byte_order_mark(tmp_path):
    write(tmp_path)
    content = '[{"id": 1, "name": "Bär", "isthing": 1}]'
    (tmp_path / "classes.json").write_text(content, encoding="utf-8-sig")
    assert open_folder(tmp_path).classes == (LabelClass(1, "Bär", True),)


@pytest.mark.parametrize("name", ["photo", "mask"])
@pytest.mark.parametrize("damage", ["bomb", "zlib", "text chunk", "header"])
def test_images_that_pillow_rejects_are_reported(tmp_path, monkeypatch, name, damage):
    """A decompression bomb is neither an OSError nor a SyntaxError, nor is a damaged header."""
    write(tmp_path, count=1)
    pair = open_folder(tmp_path).pairs[0]
    path = pair.mask if name == "mask" else pair.photo
    image = Image.new("L", (6, 4))
    info = PngInfo()
    if damage == "text chunk":
        info.add_text("note", "x" * 10_000_000, zip=True)
    image.save(path, "PNG", pnginfo=info)
    content = bytearray(path.read_bytes())
    if damage == "bomb":
        for module in ("deop.data.labelled", "deop.images.id_maps"):
            monkeypatch.setattr(f"{module}.MAX_PIXELS", 20)
    elif damage == "zlib":
        start = content.index(b"IDAT") + 4
        content[start : start + 4] = b"\xff" * 4
    elif damage == "header":
        content[16:24] = b"\0" * 8  # 0 x 0 pixels, and a wrong checksum
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        photo_size(path) if name == "photo" else read_mask(path)


def test_a_photo_above_the_limit_of_pillow_is_read(tmp_path, monkeypatch):
    """Photos may have as many pixels as ``read_photo`` allows, which is more than Pillow's own limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    write(tmp_path, count=1)
    data = open_folder(tmp_path)
    assert data.labels(data.pairs[0]).shape == (4, 6)


def test_a_mask_with_ids_out_of_range_is_refused(tmp_path):
    write(tmp_path, count=1)
    for value in (-1, 70_000):
        Image.fromarray(np.full((4, 6), value, np.int32)).save(tmp_path / "masks" / "p0.png", "TIFF")
        with pytest.raises(DataError, match="expected 0 to 65535"):
            read_mask(tmp_path / "masks" / "p0.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ids_of_few_bits_are_those_of_the_file(tmp_path, bits):
    """Pillow scales grey values of 1, 2 and 4 bits to 0..255."""
    from tests.images.test_id_maps import png

    ids = np.arange(24).reshape(4, 6) % (1 << bits)
    write(tmp_path, count=1, classes=((0, "floor"), (1, "cat"), (15, "dog")))
    (tmp_path / "masks" / "p0.png").write_bytes(png(ids, bits))
    data = open_folder(tmp_path)
    expected = np.select([ids == 0, ids == 1, ids == 15], [0, 1, 2], -1)
    np.testing.assert_array_equal(data.labels(data.pairs[0]), expected)


def test_masks_in_colour_are_read_through_the_colours_of_the_classes(tmp_path):
    write(tmp_path, count=2)
    entries = [{"id": 1, "name": "cat", "color": "#dc143c"}, {"id": 7, "name": "wall", "color": [0, 64, 128]}]
    (tmp_path / "classes.json").write_text(json.dumps(entries))
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[0], rgb[1], rgb[2] = (220, 20, 60), (0, 64, 128), (1, 2, 3)
    Image.fromarray(rgb).save(tmp_path / "masks" / "p0.png")
    data = open_folder(tmp_path)
    assert data.classes[0] == LabelClass(1, "cat", colour=(220, 20, 60))
    assert data.labels(data.pairs[0])[:, 0].tolist() == [0, 1, -1, -1]
    assert data.ids(data.pairs[0])[:, 0].tolist() == [1, 7, -1, 0]
    assert data.labels(data.pairs[1])[0, :4].tolist() == [0, 1, -1, -1], "grey masks are still read by their ids"


def test_suffixes_in_upper_case_and_other_formats(tmp_path):
    write(tmp_path, count=3)
    (tmp_path / "masks" / "p0.png").rename(tmp_path / "masks" / "p0.PNG")
    Image.open(tmp_path / "masks" / "p1.png").save(tmp_path / "masks" / "p1.tif")
    (tmp_path / "masks" / "p1.png").unlink()
    (tmp_path / "images" / "p0.jpg").rename(tmp_path / "images" / "p0.JPG")
    (tmp_path / "images" / "p1.jpg").rename(tmp_path / "images" / "p1.jfif")
    Image.open(tmp_path / "images" / "p2.jpg").save(tmp_path / "images" / "p2.webp")
    (tmp_path / "images" / "p2.jpg").unlink()
    data = open_folder(tmp_path)
    assert [(pair.photo.name, pair.mask.name) for pair in data.pairs] == [
        ("p0.JPG", "p0.PNG"), ("p1.jfif", "p1.tif"), ("p2.webp", "p2.png"),
    ]  # fmt: skip
    for pair in data.pairs:
        assert data.labels(pair)[0].tolist() == [0, 1, -1, -1, -1, -1]


def test_folders_below_images_and_links(tmp_path):
    write(tmp_path / "set", count=1)
    write(tmp_path / "other", count=2)
    for name in ("images", "masks"):
        (tmp_path / "set" / name / "city").symlink_to(tmp_path / "other" / name, target_is_directory=True)
        (tmp_path / "set" / name / "._p0.png").write_bytes(b"Mac OS X")
        (tmp_path / "set" / name / ".cache").mkdir()
        (tmp_path / "set" / name / ".cache" / "p9.png").write_bytes(b"")
    (tmp_path / "set" / "masks" / "notes.txt").write_text("who drew them")
    data = open_folder(tmp_path / "set")
    assert [pair.key for pair in data.pairs] == ["city/p0", "city/p1", "p0"]
    assert {entry.path.name for entry in data.left_out} == {"._p0.png", ".cache", "notes.txt"}
    assert data.unpaired == ()


def test_several_photos_may_have_one_mask_through_links(tmp_path):
    write(tmp_path, count=2)
    (tmp_path / "masks" / "p1.png").unlink()
    (tmp_path / "masks" / "p1.png").symlink_to("p0.png")
    assert len(open_folder(tmp_path).pairs) == 2


def test_masks_without_a_usable_photo_say_why(tmp_path):
    write(tmp_path)
    (tmp_path / "images" / "p1.jpg").unlink()
    (tmp_path / "images" / "p1.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(DataError, match=r"mask p1\.png has no photo: p1\.heic is not used \(HEIC image: .*pillow-heif"):
        open_folder(tmp_path)
    (tmp_path / "masks" / "p0.TIF").write_bytes((tmp_path / "masks" / "p0.png").read_bytes())
    unpaired = {entry.path.name: entry.reason for entry in _unpaired(tmp_path)}
    assert unpaired["p0.jpg"] == "photo p0.jpg has 2 masks, p0.TIF, p0.png: keep one"


def _unpaired(folder):
    Image.new("RGB", (6, 4)).save(folder / "images" / "p5.jpg")
    (folder / "masks" / "p5.png").write_bytes((folder / "masks" / "p0.png").read_bytes())
    return open_folder(folder, skip_unpaired=True).unpaired


def test_a_rotated_tiff_has_the_size_of_the_upright_photo(tmp_path):
    for orientation in (1, 6):
        Image.new("RGB", (6, 4)).save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
        assert photo_size(tmp_path / "a.tif") == read_photo(tmp_path / "a.tif").shape[:2]

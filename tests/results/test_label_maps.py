"""Label maps and instance maps as PNG files, read back, as other programs read them, and damaged."""

import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deop.errors import ImageError, OutputError
from deop.results import label_maps, read_instances, read_labels
from deop.results.segmentation import Segmentation
from tests.results.test_segmentation import LABELS, NAMES, overlapping, photo_of


@pytest.mark.parametrize("count", [3, 255, 256, 65_535])
def test_label_maps_can_be_read_again(count, tmp_path):
    names = [f"名 {k}" for k in range(count)]
    labels = LABELS.copy()
    labels[0, 0] = count - 1
    result = Segmentation.from_semantic(photo_of(labels.shape), names, labels)
    path = result.save_labels(tmp_path / "new" / "a.png")
    read, read_names = read_labels(path)
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == np.int32
    assert read_names == names
    with Image.open(path) as image:
        assert image.mode == ("P" if count <= 255 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), labels + 1)  # as other programs read it


def test_label_maps_that_cannot_be_written(tmp_path):
    labels = np.zeros((2, 2), np.int32)
    with pytest.raises(OutputError, match="65,535"):
        Segmentation.from_semantic(photo_of((2, 2)), [str(k) for k in range(65_536)], labels).save_labels(
            tmp_path / "a.png"
        )
    with pytest.raises(OutputError, match=r"\.png"):
        Segmentation.from_semantic(photo_of((2, 2)), NAMES, labels).save_labels(tmp_path / "a.jpg")


def grey_png(path, names, values=((0, 1), (2, 3)), dtype=np.uint8):
    """A PNG like those of ``save_labels``, with any text as its names."""
    info = PngInfo()
    if names is not None:
        info.add_itxt("names", names)
    Image.fromarray(np.array(values, dtype)).save(path, "PNG", pnginfo=info)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "has no names of classes"),
        ("not JSON", "Expecting value"),
        ("", "Expecting value"),
        ("3", "not a list of strings"),
        ('{"a": 1}', "not a list of strings"),
        ("[1, 2, 3]", "not a list of strings"),
        ('["a", "b"]', "not indices of its 2 names"),
    ],
)
def test_label_maps_with_wrong_names(tmp_path, names, message):
    grey_png(tmp_path / "a.png", names)
    with pytest.raises(ImageError, match=message) as caught:
        read_labels(tmp_path / "a.png")
    assert "a.png" in str(caught.value)
    assert "Segmentation.save_labels" in str(caught.value)


def test_files_that_are_not_label_maps(tmp_path):
    names = '["a", "b", "c"]'
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    (tmp_path / "empty.png").write_bytes(b"")
    grey_png(tmp_path / "colour.png", names, np.zeros((2, 2, 3)))
    grey_png(tmp_path / "whole.png", names, np.ones((50, 50)))
    whole = (tmp_path / "whole.png").read_bytes()
    assert read_labels(tmp_path / "whole.png")[1] == ["a", "b", "c"]
    for share in (0.3, 0.6):
        (tmp_path / f"cut{share}.png").write_bytes(whole[: int(len(whole) * share)])
    (tmp_path / "noise.png").write_bytes(whole[:40] + bytes(200) + whole[40:])
    for path in tmp_path.iterdir():
        if path.name != "whole.png":
            with pytest.raises(ImageError, match=path.name):
                read_labels(path)
    with pytest.raises(ImageError, match="no such file"):
        read_labels(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot read"):
        read_labels(tmp_path)


def test_large_label_maps_are_read_and_bombs_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow raises DecompressionBombError above twice this
    grey_png(tmp_path / "a.png", '["a"]', np.ones((5, 6)))
    assert read_labels(tmp_path / "a.png")[0].shape == (5, 6)
    monkeypatch.setattr(label_maps, "MAX_PIXELS", 29)
    with pytest.raises(ImageError, match="6 x 5 px is more than"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("count", [1, 3, 15, 16, 255])
def test_palettes_show_the_colours_of_the_names(count, tmp_path):
    names = [f"name {k}" for k in range(count)]
    labels = np.array([[-1, 0], [count - 1, count // 2]])
    result = Segmentation.from_semantic(photo_of(labels.shape), names, labels)
    path = result.save_labels(tmp_path / "a.png")
    with Image.open(path) as image:
        seen = np.asarray(image.convert("RGB"))  # what viewers show, and what OpenCV reads
    for place, label in np.ndenumerate(labels):
        assert seen[place].tolist() == ([0, 0, 0] if label < 0 else result.colours[label].tolist())
    head = struct.unpack(">IIBB", path.read_bytes()[16:26])
    assert head == (2, 2, 8, 3)  # a palette with 8 bits per pixel, however few colours it has


def test_grey_label_maps(tmp_path):
    result = Segmentation.from_semantic(photo_of(LABELS.shape), NAMES, LABELS)
    path = result.save_labels(tmp_path / "a.png", palette=False)
    with Image.open(path) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), LABELS + 1)
    np.testing.assert_array_equal(read_labels(path)[0], LABELS)


def test_label_maps_of_earlier_versions(tmp_path):
    grey_png(tmp_path / "8.png", '["a", "b", "c"]')
    grey_png(tmp_path / "16.png", '["a", "b", "c"]', dtype=np.uint16)
    for name in ("8.png", "16.png"):
        values, names = read_labels(tmp_path / name)
        assert values.tolist() == [[-1, 0], [1, 2]]
        assert names == ["a", "b", "c"]


def test_instance_maps(tmp_path):
    result = overlapping()
    result.save_labels(tmp_path / "a.png", instances=tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(image), result.segment_map + 1)
    values, rows = read_instances(tmp_path / "b.png")
    np.testing.assert_array_equal(values, result.segment_map)
    assert values.dtype == np.int32
    assert rows == [
        {"id": 1, "name": "cat", "class_id": 0, "score": 0.9, "isthing": True},
        {"id": 2, "name": "cat", "class_id": 0, "score": 0.4, "isthing": True},
    ]
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png")[0], result.label_map)
    for path in ("a.png", "c.png"):
        with pytest.raises(ImageError, match=path):
            read_instances(tmp_path / path)
    with pytest.raises(ImageError, match="names of classes"):
        read_labels(tmp_path / "b.png")


def test_nothing_is_written_if_one_of_two_files_has_a_wrong_suffix(tmp_path):
    with pytest.raises(OutputError, match=r"\.png"):
        overlapping().save_labels(tmp_path / "a.tif", instances=tmp_path / "b.png")
    assert list(tmp_path.iterdir()) == []


def test_more_segments_than_16_bits_hold(tmp_path):
    values = np.arange(65_536).reshape(256, 256)
    result = Segmentation.from_panoptic(photo_of((256, 256)), NAMES, values, [(0, 0.5, True)] * 65_536)
    with pytest.raises(OutputError, match="65,535 segments"):
        result.save_labels(tmp_path / "a.png", instances=tmp_path / "b.png")

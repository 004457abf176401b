"""Files of results: which format a path means, options, JSON, and writing completely or not at all."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deop.errors import OutputError, SettingError
from deop.files import replacing
from deop.images.panoptic_ids import colours_to_ids
from deop.results import read_labels
from deop.results.formats import save_picture
from deop.results.saving import FORMATS
from deop.results.segmentation import Segmentation
from tests.results.test_segmentation import LABELS, NAMES, overlapping, photo_of


def jsonable(content):
    return json.loads(json.dumps(content))


def test_formats_by_name(tmp_path):
    result = overlapping()

    def content(name, path, **options):
        return json.loads(result.save(tmp_path / path, name, **options).read_bytes())

    assert content("coco", "a.json", rle="compressed") == jsonable(result.to_coco(rle="compressed"))
    assert content("json", "b.txt", rle=True) == jsonable(result.summary(rle=True))
    assert content("labelme", "c.json", masks=True) == jsonable(result.to_labelme(masks=True))
    assert content("labelstudio", "d.json") == [jsonable(result.to_labelstudio())]
    assert content("geojson", "e.json", tolerance=1) == jsonable(result.to_geojson(tolerance=1))
    assert result.save(tmp_path / "f", format="yolo").read_text(encoding="utf-8") == result.to_yolo()
    np.testing.assert_array_equal(read_labels(result.save(tmp_path / "g.png", "labels"))[0], result.label_map)
    panoptic = content("panoptic", "h.json", image_id=4)
    assert [image["id"] for image in panoptic["images"]] == [panoptic["annotations"][0]["image_id"]] == [4]
    picture = Image.open(tmp_path / panoptic["annotations"][0]["file_name"])
    np.testing.assert_array_equal(colours_to_ids(np.asarray(picture)), result.segment_map + 1)
    assert Image.open(result.save(tmp_path / "i.png", "picture", legend=False)).mode == "RGB"


def test_formats_by_suffix(tmp_path):
    result = overlapping()
    assert result.save(tmp_path / "a.TXT").read_text(encoding="utf-8") == result.to_yolo()
    assert json.loads(result.save(tmp_path / "a.geojson").read_bytes()) == jsonable(result.to_geojson())
    assert json.loads(result.save(tmp_path / "a.json").read_bytes()) == jsonable(result.summary())
    assert Segmentation.load(result.save(tmp_path / "a.npz")).summary() == result.summary()


def test_errors_name_the_known_formats(tmp_path):
    result = overlapping()
    with pytest.raises(SettingError, match=r"unknown format 'voc': choose one of picture, .*, labelstudio"):
        result.save(tmp_path / "a.xml", format="voc")
    with pytest.raises(OutputError, match=r"unknown suffix '\.xml'; use one of \.png, .* format= \(labels, coco,"):
        result.save(tmp_path / "a.xml")
    with pytest.raises(OutputError, match=r"'\.json' is not a suffix of pictures"):
        result.save(tmp_path / "a.json", format="picture")
    with pytest.raises(OutputError, match=r"use the suffix \.json"):
        result.save(tmp_path / "a.png", format="panoptic")
    with pytest.raises(SettingError, match=r"option 'alpha' applies only to the format picture: omit it for a\.json"):
        result.save(tmp_path / "a.json", format="coco", alpha=0.3)
    with pytest.raises(SettingError, match="unknown option 'alhpa' of save for the format npz: it has no options"):
        result.save(tmp_path / "a.npz", alhpa=0.3)
    assert list(tmp_path.iterdir()) == []


def test_every_format_is_documented():
    for name, form in FORMATS.items():
        assert f'"{name}"' in Segmentation.save.__doc__
        assert all(f"``{suffix}``" in Segmentation.save.__doc__ for suffix in form.suffixes)


def test_json_of_a_photo_whose_name_is_not_utf_8(tmp_path):
    source = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    result = Segmentation.from_semantic(photo_of(LABELS.shape), ["é", *NAMES[1:]], LABELS, source=source)
    content = result.save(tmp_path / "a.json").read_bytes().decode("utf-8")
    assert '"é"' in content
    assert json.loads(content)["photo"] == source


def test_a_format_that_does_not_support_the_size_of_the_picture(tmp_path):
    with pytest.raises(OutputError, match=r"use \.png"):
        save_picture(Image.new("RGB", (16_400, 1)), tmp_path / "a.webp")
    with pytest.raises(OutputError, match=r"use \.png"):
        save_picture(Image.new("RGB", (65_600, 1)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"


LIGHT = """
import sys
for name in ("torch", "scipy", "supervision", "fiftyone", "pycocotools"):
    sys.modules[name] = None  # every import of it raises ImportError
import numpy as np
from deop.results import Segmentation
from deop.results.saving import FORMATS

suffixes = {"picture": ".png", "labels": ".png", "npz": ".npz"}
result = Segmentation.from_semantic(np.zeros((99, 98, 3), np.uint8), ["cat", "sky"], np.indices((99, 98))[0] // 50)
for name in FORMATS:
    assert result.save(f"{sys.argv[1]}/{name}{suffixes.get(name, '.json')}", name).exists()
result._repr_html_()
"""


def test_every_format_needs_numpy_and_pillow_only(tmp_path):
    process = subprocess.run([sys.executable, "-c", LIGHT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr

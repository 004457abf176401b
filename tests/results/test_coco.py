"""COCO's formats: instances and panoptic of one photo and of many, read by pycocotools."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.errors import OutputError, SettingError
from deop.images.panoptic_ids import colours_to_ids
from deop.results.coco import CocoWriter
from deop.results.segmentation import Segmentation
from tests.images.test_rle import runs_by_hand
from tests.results.test_segmentation import LABELS, NAMES, overlapping, photo_of


def speckled(seed: int) -> Segmentation:
    """Random labels with holes and pieces that touch at corners; in instance mode for odd seeds, with overlaps."""
    random = np.random.default_rng(seed)
    labels = (
        random.integers(-1, 3, (17, 23))
        if seed % 4 < 2
        else np.kron(random.integers(-1, 3, (4, 5)), np.ones((5, 4), int))
    )
    if seed % 2 == 0:
        return Segmentation.from_semantic(photo_of(labels.shape), NAMES, labels)
    instances = [((k % 3, 0.1 + k / 10, True), random.random(labels.shape) < 0.6) for k in range(4)]
    return Segmentation.from_instances(photo_of(labels.shape), NAMES, instances)


def test_coco(tmp_path):
    result = overlapping()
    content = json.loads(json.dumps(result.to_coco(image_id=7, file_name="room.jpg", first_id=30)))
    assert content["images"] == [{"id": 7, "file_name": "room.jpg", "width": 8, "height": 6}]
    assert content["categories"][0] == {"id": 1, "name": "cat", "supercategory": "thing", "isthing": 1}
    assert content["categories"][2]["isthing"] == 0  # wall: no segment says it, so it is guessed from the name
    assert content["licenses"] == []
    assert "deop" in content["info"]["description"]
    assert [category["name"] for category in content["categories"]] == list(NAMES)
    assert [a["id"] for a in content["annotations"]] == [30, 31]
    for annotation, segment in zip(content["annotations"], result.segments, strict=True):
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == segment.box
        assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (7, 1, 0)
        assert annotation["segmentation"] == {"size": [6, 8], "counts": runs_by_hand(segment.mask)}
        assert annotation["area"] == segment.mask.sum()


@pytest.mark.parametrize("rle", [True, "compressed", False])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_loads_our_coco(rle, seed, tmp_path):
    from pycocotools import coco
    from pycocotools import mask as tools

    result = speckled(seed)
    result.save(tmp_path / "a.json", format="coco", rle=rle)
    data = coco.COCO(tmp_path / "a.json")
    data.info()
    annotations = data.loadAnns(data.getAnnIds())
    assert len(annotations) == len(result.segments) > 0
    for annotation, segment in zip(annotations, result.segments, strict=True):
        np.testing.assert_array_equal(data.annToMask(annotation), segment.mask)
        packed = data.annToRLE(annotation)
        assert annotation["area"] == tools.area(packed)
        assert annotation["bbox"] == tools.toBbox(packed).tolist()
        assert isinstance(annotation["segmentation"], dict if rle else list)


def test_simplified_polygons_have_fewer_corners():
    y, x = np.mgrid[:80, :90]
    disc = np.where((y - 40) ** 2 + (x - 45) ** 2 < 900, 0, 2)
    result = Segmentation.from_semantic(photo_of(disc.shape), NAMES, disc)
    exact, simple = (result.to_coco(rle=False, tolerance=t)["annotations"][1]["segmentation"] for t in (0, 1.5))
    assert len(simple[0]) < len(exact[0]) / 4
    assert all(len(ring) >= 6 for ring in simple)


@pytest.mark.parametrize("rle", ["compresed", None, 1, "polygons"])
def test_unknown_forms_of_masks(rle):
    with pytest.raises(SettingError, match="rle must be True"):
        overlapping().to_coco(rle=rle)
    with pytest.raises(SettingError, match="rle must be True"):
        CocoWriter("a.json", NAMES, rle=rle)


def test_panoptic_picture():
    result = overlapping()
    picture, content = result.to_panoptic(image_id=3)
    ids = colours_to_ids(np.asarray(picture))
    np.testing.assert_array_equal(ids, result.segment_map + 1)
    annotation = content["annotation"]
    assert annotation["file_name"] == "photo.png"
    for row in annotation["segments_info"]:
        y, x = np.nonzero(ids == row["id"])
        assert row["area"] == len(y)
        assert row["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    json.dumps(content)


def test_panoptic_ids_beyond_one_channel():
    values = np.arange(70_000).reshape(200, 350)
    pieces = [(0, 0.5, True)] * 70_000
    result = Segmentation.from_panoptic(photo_of((200, 350)), NAMES, values, pieces)
    ids = colours_to_ids(np.asarray(result.to_panoptic()[0]))
    assert sorted(ids.ravel()) == list(range(1, 70_001))


def test_a_hidden_instance_has_no_panoptic_segment():
    whole = np.ones((4, 4), bool)
    small = np.zeros((4, 4), bool)
    small[1, 1] = True
    instances = [((0, 0.9, True), whole), ((0, 0.2, True), small)]
    result = Segmentation.from_instances(photo_of((4, 4)), NAMES, instances)
    assert [row["id"] for row in result.to_panoptic()[1]["annotation"]["segments_info"]] == [1]


# --- Many photos


def read(path):
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("rle", [True, "compressed", False])
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_many_photos(rle, tmp_path):
    from pycocotools import coco

    results = [speckled(seed) for seed in range(4)]
    with CocoWriter(tmp_path / "new" / "all.json", NAMES, rle=rle, panoptic=True) as writer:
        paths = writer.paths
        for number, result in enumerate(results):
            assert writer.add(result, file_name=f"photos/{number}.jpg") == number + 1
        assert not any(path.exists() for path in paths)
    folder = tmp_path / "new"
    assert [path.name for path in paths] == ["all.json", "all_panoptic.json", "all_panoptic"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    data = coco.COCO(folder / "all.json")
    assert [image["file_name"] for image in data.loadImgs(data.getImgIds())] == [f"photos/{k}.jpg" for k in range(4)]
    assert sorted(data.getAnnIds()) == list(range(1, 1 + sum(len(result.segments) for result in results)))
    for number, result in enumerate(results, 1):
        annotations = data.loadAnns(data.getAnnIds(imgIds=[number]))
        assert len(annotations) == len(result.segments)
        for annotation, segment in zip(annotations, result.segments, strict=True):
            np.testing.assert_array_equal(data.annToMask(annotation), segment.mask)
            assert annotation["category_id"] == segment.class_id + 1
    panoptic = read(folder / "all_panoptic.json")
    assert panoptic["categories"] == read(folder / "all.json")["categories"]
    assert panoptic["images"] == read(folder / "all.json")["images"]
    for annotation, result in zip(panoptic["annotations"], results, strict=True):
        ids = colours_to_ids(np.asarray(Image.open(folder / "all_panoptic" / annotation["file_name"])))
        np.testing.assert_array_equal(ids, result.segment_map + 1)
        assert {row["id"] for row in annotation["segments_info"]} == set(np.unique(ids).tolist()) - {0}


def test_the_file_of_one_photo_is_that_of_to_coco(tmp_path):
    result = overlapping()
    with CocoWriter(tmp_path / "a.json", NAMES, rle=True) as writer:
        writer.add(result, image_id=7)
    assert read(tmp_path / "a.json") == json.loads(json.dumps(result.to_coco(image_id=7)))


def test_no_photo_gives_a_file_with_categories(tmp_path):
    with CocoWriter(tmp_path / "a.json", NAMES, isthing=[True, False, False]):
        pass
    content = read(tmp_path / "a.json")
    assert content["images"] == content["annotations"] == []
    assert [row["isthing"] for row in content["categories"]] == [1, 0, 0]


def test_ids_are_stable_if_a_photo_fails(tmp_path):
    with CocoWriter(tmp_path / "a.json", NAMES) as writer:
        for number in (1, 3):
            writer.add(overlapping(), image_id=number)
        with pytest.raises(SettingError, match="used twice"):
            writer.add(overlapping(), image_id=3)
        assert writer.add(overlapping()) == 4
    assert [image["id"] for image in read(tmp_path / "a.json")["images"]] == [1, 3, 4]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, FileNotFoundError])
def test_written_whole_or_not_at_all(error, tmp_path):
    def fail():
        with CocoWriter(tmp_path / "a.json", NAMES, panoptic=True) as writer:
            writer.add(overlapping())
            raise error("the reason")

    (tmp_path / "a.json").write_text("old", encoding="utf-8")
    with pytest.raises(error, match="the reason"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "old"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """Even if the caller continues, since one of the files would lack the photo."""

    def full(*_args):
        raise OSError(28, "No space left on device")

    def write():
        with CocoWriter(tmp_path / "a.json", NAMES, panoptic=True) as writer:
            writer.add(overlapping())
            with monkeypatch.context() as patch:
                patch.setattr(Image.Image, "save", full)
                with pytest.raises(OutputError, match="No space left"):
                    writer.add(overlapping())
            writer.add(overlapping())

    with pytest.raises(OutputError, match="No space left"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_names_are_a_list():
    with pytest.raises(SettingError, match="names must be a list"):
        CocoWriter("a.json", "cat, sofa")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("content", encoding="utf-8")
    (tmp_path / "b_panoptic").write_text("content", encoding="utf-8")
    with pytest.raises(OutputError, match="choose"), CocoWriter(tmp_path / "file" / "a.json", NAMES):
        pass
    with pytest.raises(OutputError, match="it is a file"), CocoWriter(tmp_path / "b.json", NAMES, panoptic=True):
        pass
    with pytest.raises(SettingError, match="same names"), CocoWriter(tmp_path / "a.json", ["dog"]) as writer:
        writer.add(overlapping())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b_panoptic", "file"]


def test_names_of_panoptic_pictures(tmp_path):
    """Photos that differ in their suffix, folders, and names that lead out of the folder; other files are kept."""
    names = ["a.jpg", "a.png", "b/a.jpg", "../c.jpg", "/d/e.jpg", "A.JPG", "..", "a_2.jpg"]
    (tmp_path / "x_panoptic").mkdir()
    (tmp_path / "x_panoptic" / "keep.txt").write_text("content", encoding="utf-8")
    for _ in range(2):  # a second run replaces the files of the first
        with CocoWriter(tmp_path / "x.json", NAMES, panoptic=True) as writer:
            for name in names:
                writer.add(overlapping(), file_name=name)
    rows = read(tmp_path / "x_panoptic.json")["annotations"]
    files = [row["file_name"] for row in rows]
    assert files == ["a.png", "a_2.png", "b/a.png", "c.png", "e.png", "A_6.png", "7.png", "a_2_8.png"]
    existing = sorted(p.relative_to(tmp_path / "x_panoptic").as_posix() for p in (tmp_path / "x_panoptic").rglob("*.*"))
    assert existing == sorted([*files, "keep.txt"])


def test_file_names_that_are_not_utf_8(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    with CocoWriter(tmp_path / "a.json", ["é", *NAMES[1:]], panoptic=True) as writer:
        writer.add(Segmentation.from_semantic(photo_of(LABELS.shape), ["é", *NAMES[1:]], LABELS), file_name=name)
    (tmp_path / "a.json").read_bytes().decode("ascii")  # pycocotools reads files in the encoding of the system
    assert read(tmp_path / "a.json")["images"][0]["file_name"] == name
    assert read(tmp_path / "a.json")["categories"][0]["name"] == "é"


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    """Only numbers and names of photos are kept: objects of the writer that grow hold no annotations."""
    import tracemalloc

    result = speckled(0)
    with CocoWriter(tmp_path / "a.json", NAMES, rle=True) as writer:
        writer.add(result)
        tracemalloc.start()
        for _ in range(300):
            writer.add(result)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    size = (tmp_path / "a.json").stat().st_size
    assert kept < size / 5

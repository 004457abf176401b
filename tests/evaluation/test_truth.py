"""True segments from connected components, and from COCO's panoptic files."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.data.folder import open_folder
from deop.data.labelled import LabelClass, LabelledData, Pair
from deop.errors import DataError, SettingError
from deop.evaluation.truth import PanopticTruth, components, panoptic_truth


def test_things_are_split_into_components_and_stuff_is_not():
    truth = np.array([[0, 0, 1, 1, 0, 0], [-1, 1, 0, 1, 0, 0], [1, -1, 0, 0, 0, 1]])
    actual = components(truth, np.array([False, True]))
    assert actual.classes.tolist() == [0, 1, 1]  # stuff; a thing connected at corners; another thing
    assert (actual.segment_map == 0).sum() == (truth == 0).sum()
    assert actual.segment_map[2, 0] == actual.segment_map[1, 1] == actual.segment_map[0, 3] == 1
    assert actual.segment_map[2, 5] == 2
    assert ((actual.segment_map < 0) == (truth < 0)).all()
    assert not actual.crowd.any()


@pytest.fixture
def panoptic(tmp_path):
    ids = np.array([[7, 7, 300, 300], [70_000, 5, 5, 0]])
    picture = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(picture).save(tmp_path / "panoptic" / "a.png")
    segments = [
        {"id": 300, "category_id": 9, "iscrowd": 1}, {"id": 7, "category_id": 4, "iscrowd": 0},
        {"id": 70_000, "category_id": 9, "iscrowd": 0}, {"id": 5, "category_id": 77, "iscrowd": 0},
    ]  # fmt: skip
    listing = {"annotations": [{"file_name": "a.png", "image_id": 1, "segments_info": segments}]}
    (tmp_path / "panoptic.json").write_text(json.dumps(listing))
    return tmp_path


# One category of the file is not among the classes.
pytestmark = pytest.mark.filterwarnings("ignore:.*has categories that classes.json does not list")


def pair_of(folder, stem="a"):
    return Pair(folder / f"{stem}.jpg", folder / f"{stem}.png")


def test_segments_from_panoptic_files(panoptic):
    assert panoptic_truth(LabelledData(panoptic, (LabelClass(4, "cat"),), ()), [4, 9]) is not None
    actual = PanopticTruth(panoptic, [4, 9]).segments(pair_of(panoptic), (2, 4))
    assert actual.segment_map.tolist() == [[0, 0, 1, 1], [2, -1, -1, -1]]  # 77 is not among the classes
    assert actual.classes.tolist() == [0, 1, 1]
    assert actual.crowd.tolist() == [False, True, False]


def test_unusable_files_are_reported(panoptic):
    truth = PanopticTruth(panoptic, [4, 9])
    with pytest.raises(DataError, match=r"a\.png is 4 x 2, its photo a\.jpg 2 x 4"):
        truth.segments(pair_of(panoptic), (4, 2))
    with pytest.raises(DataError, match=r"does not list b\.png"):
        truth.segments(pair_of(panoptic, "b"), (2, 4))
    (panoptic / "panoptic" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot read the panoptic file"):
        truth.segments(pair_of(panoptic), (2, 4))
    (panoptic / "panoptic.json").write_text("{}")
    with pytest.raises(DataError, match=r"cannot read .*panoptic\.json"):
        PanopticTruth(panoptic, [4, 9])


LISTED = {"file_name": "a.png", "segments_info": [{"id": 7, "category_id": 4}]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 9999,
        '{"annotations": 3}',
        '{"annotations": [3]}',
        '{"annotations": [{"file_name": "a.png"}]}',
        json.dumps({"annotations": [LISTED | {"file_name": 3}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": 3}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": [3]}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": [{"id": 7}]}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": [{"category_id": 4}]}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": [{"id": "7", "category_id": 4}]}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": [{"id": 7, "category_id": [4]}]}]}),
        json.dumps({"annotations": [LISTED | {"segments_info": 2 * [{"id": 7, "category_id": 4}]}]}),
    ],
)
def test_a_malformed_panoptic_json_is_reported(panoptic, content):
    (panoptic / "panoptic.json").write_text(content)
    with pytest.raises(DataError, match=r"cannot read .*panoptic\.json.* Expected COCO's panoptic annotations"):
        PanopticTruth(panoptic, [4, 9])


def test_a_huge_panoptic_file_is_reported(panoptic, monkeypatch):
    """Panoptic files may have as many pixels as photos; Pillow's own limit is lower and raises another error."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    PanopticTruth(panoptic, [4, 9]).segments(pair_of(panoptic), (2, 4))
    monkeypatch.setattr("deop.data.labelled.MAX_PIXELS", 3)
    with pytest.raises(DataError, match=r"the panoptic file .*a\.png is 4 x 2"):
        PanopticTruth(panoptic, [4, 9]).segments(pair_of(panoptic), (2, 4))


def test_ids_in_a_set_are_refused(panoptic):
    with pytest.raises(SettingError, match="a set, which has no order"):
        PanopticTruth(panoptic, {4, 9})


def test_real_panoptic_files_match_the_masks(data_folder):
    data = open_folder(data_folder / "coco-mini")
    truth = PanopticTruth(data.root, [entry.id for entry in data.classes])
    for pair in data.pairs[:8]:
        labels = data.labels(pair)
        actual = truth.segments(pair, labels.shape)
        np.testing.assert_array_equal(np.append(actual.classes, -1)[actual.segment_map], labels)


def test_segments_and_categories_that_are_not_listed_are_reported(panoptic):
    with pytest.warns(UserWarning, match=r"categories that classes\.json does not list.*: 77"):
        truth = PanopticTruth(panoptic, [4, 9])
    listing = json.loads((panoptic / "panoptic.json").read_text())
    listing["annotations"][0]["segments_info"].pop()
    (panoptic / "panoptic.json").write_text(json.dumps(listing))
    truth = PanopticTruth(panoptic, [4, 9])
    with pytest.warns(UserWarning, match=r"25\.0 % of the pixels belong to segments.*\(5\)"):
        truth.segments(pair_of(panoptic), (2, 4))


def test_panoptic_files_that_are_not_in_colour_are_refused(panoptic):
    Image.new("L", (4, 2)).save(panoptic / "panoptic" / "a.png")
    with pytest.raises(DataError, match="expected colours of 8 bits"):
        PanopticTruth(panoptic, [4, 9]).segments(pair_of(panoptic), (2, 4))

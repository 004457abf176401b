"""Segments and Segmentation, compared with masks by hand and with arithmetic on whole masks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deop.errors import ImageError, OutputError, SettingError
from deop.images.rle import decode_rle
from deop.results.segmentation import Segmentation
from deop.results.segments import Segment, paint_segments

NAMES = ("cat", "sofa", "wall")
LABELS = np.array([[2, 2, 2, 2], [2, 0, 0, 2], [1, 0, 0, 1], [1, 1, 1, -1]], np.int32)
masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def photo_of(shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.fixture
def semantic() -> Segmentation:
    return Segmentation.from_semantic(photo_of(LABELS.shape), NAMES, LABELS, source="/photos/room.jpg")


def overlapping() -> Segmentation:
    first, second, third = np.zeros((3, 6, 8), bool)
    first[1:4, 1:5], second[2:6, 3:8], third[:] = True, True, False
    instances = [((0, 0.4, True), first), ((0, 0.9, True), second), ((1, 0.99, True), third)]
    return Segmentation.from_instances(photo_of((6, 8)), NAMES, iter(instances))


def by_hand(mask: np.ndarray) -> tuple[tuple[int, int, int, int], int]:
    y, x = np.nonzero(mask)
    return (x.min(), y.min(), x.max() + 1, y.max() + 1), len(x)


def test_semantic_by_hand(semantic):
    assert [(s.name, s.class_id, s.area, s.box) for s in semantic.segments] == [
        ("wall", 2, 6, (0, 0, 4, 2)),
        ("sofa", 1, 5, (0, 2, 4, 4)),
        ("cat", 0, 4, (1, 1, 3, 3)),
    ]
    assert semantic.segments[2].mask.tolist() == (LABELS == 0).tolist()
    assert semantic.segments[2].crop.all()
    assert semantic.segments[2].share == 0.25
    assert all(type(s.area) is int and type(s.score) is float for s in semantic.segments)


@given(arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 5)))
def test_semantic_segments_are_the_map(labels):
    names = [f"name {k}" for k in range(6)]
    confidence = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deop.results.segments._RUNS_AT_ONCE", 5)
        result = Segmentation.from_semantic(photo_of(labels.shape), names, labels, confidence)
    assert result.label_map.dtype == np.int32
    assert {s.class_id for s in result.segments} == set(np.unique(labels).tolist()) - {-1}
    for segment in result.segments:
        mask = labels == segment.class_id
        np.testing.assert_array_equal(segment.mask, mask)
        assert (segment.box, segment.area) == by_hand(mask)
        assert segment.score == pytest.approx(confidence[mask].mean(), rel=1e-5)
    position = np.array([-1, *(s.class_id for s in result.segments)])
    np.testing.assert_array_equal(position[result.segment_map + 1], labels)


def test_order_of_names_changes_only_the_indices():
    swapped = np.array([-1, 2, 1, 0], np.int32)[LABELS + 1]
    photo = photo_of(LABELS.shape)
    first = Segmentation.from_semantic(photo, NAMES, LABELS)
    second = Segmentation.from_semantic(photo, NAMES[::-1], swapped)
    assert [(s.name, s.area, s.box) for s in first.segments] == [(s.name, s.area, s.box) for s in second.segments]
    np.testing.assert_array_equal(np.asarray(first.overlay()), np.asarray(second.overlay()))


def test_panoptic_separates_things_of_one_name():
    pieces = [(2, 0.5, np.bool_(False)), (0, 0.9, True), (1, 0.7, True), (0, np.float32(0.8), True)]
    values = np.array([[0, 0, 1], [0, 3, 3], [0, 3, -1]])  # piece 2 has no pixels
    result = Segmentation.from_panoptic(photo_of((3, 3)), NAMES, values, pieces)
    assert [(s.name, s.area, s.isthing) for s in result.segments] == [
        ("wall", 4, False),
        ("cat", 3, True),
        ("cat", 1, True),
    ]
    assert result.label_map.tolist() == [[2, 2, 0], [2, 0, 0], [2, 0, -1]]
    assert result.segment_map.tolist() == [[0, 0, 2], [0, 1, 1], [0, 1, -1]]
    json.dumps(result.summary())


def test_instances_may_overlap_and_the_best_is_on_top():
    result = overlapping()
    assert [(s.score, s.area) for s in result.segments] == [(0.9, 20), (0.4, 12)]
    assert result.segments[1].mask.sum() == 12
    assert (result.segment_map == 0).sum() == 20
    assert (result.segment_map == 1).sum() == 12 - 4
    np.testing.assert_array_equal(result.label_map == 0, result.segments[0].mask | result.segments[1].mask)
    labels = np.full((6, 8), 2, np.int32)
    labelled = Segmentation.from_instances(result.photo, NAMES, [], label_map=labels)
    np.testing.assert_array_equal(labelled.label_map, labels)


@given(masks)
def test_packed_masks_are_restored(mask):
    segment = Segment.from_mask("cat", 0, 0.5, mask)
    if not mask.any():
        assert segment is None
        return
    np.testing.assert_array_equal(segment.mask, mask)
    assert (segment.box, segment.area) == by_hand(mask)
    assert segment.pixels.nbytes <= mask.size // 8 + 1


def test_segments_of_one_map_share_it(semantic):
    assert all(s.pixels is semantic.label_map for s in semantic.segments)


def test_results_without_segments():
    for result in (
        Segmentation.from_semantic(photo_of((3, 4)), NAMES, np.full((3, 4), -1)),
        Segmentation.from_panoptic(photo_of((3, 4)), NAMES, np.full((3, 4), -1), []),
        Segmentation.from_instances(photo_of((3, 4)), NAMES, []),
    ):
        assert result.segments == []
        assert (result.segment_map == -1).all()
        assert "nothing found" in repr(result)
        assert result.overlay().size[0] >= 320
        np.testing.assert_array_equal(np.asarray(result.overlay(legend=False, labels=False)), result.photo)
        assert result.to_coco()["annotations"] == []


def test_shapes_and_ranges_are_checked():
    photo = photo_of((4, 4))
    with pytest.raises(SettingError, match="mode"):
        Segmentation(NAMES, LABELS, [], photo, "video")
    with pytest.raises(SettingError, match="photo"):
        Segmentation(NAMES, LABELS, [], photo[:3])
    with pytest.raises(SettingError, match="photo"):
        Segmentation(NAMES, LABELS, [], photo.astype(np.float32))
    with pytest.raises(SettingError, match=r"\[-1, 2\)"):
        Segmentation.from_semantic(photo, NAMES[:2], LABELS)
    with pytest.raises(SettingError, match="integers"):
        Segmentation.from_semantic(photo, NAMES, LABELS.astype(np.float32))
    with pytest.raises(SettingError, match="confidence"):
        Segmentation.from_semantic(photo, NAMES, LABELS, np.ones((2, 2), np.float32))
    with pytest.raises(SettingError, match="segment_map"):
        Segmentation.from_panoptic(photo, NAMES, LABELS, [])
    with pytest.raises(SettingError, match="belongs to a photo"):
        Segmentation(NAMES, LABELS, [Segment.from_mask("cat", 0, 1, np.ones((2, 2), bool))], photo)  # type: ignore[list-item]
    with pytest.raises(SettingError, match="class_id 1, which is not the index"):
        Segmentation(NAMES, LABELS, [Segment.from_mask("cat", 1, 1, LABELS > 0)], photo)  # type: ignore[list-item]
    with pytest.raises(SettingError, match="box"):
        Segment("cat", 0, 1.0, (0, 0, 9, 1), 3, (4, 4))
    with pytest.raises(SettingError, match="area"):
        Segment("cat", 0, 1.0, (0, 0, 2, 2), 5, (4, 4))
    with pytest.raises(SettingError, match="from_mask"):
        Segment("cat", 0, 1.0, (0, 0, 2, 2), 3, (4, 4))
    with pytest.raises(SettingError, match="mask"):
        Segment.from_mask("cat", 0, 1.0, np.ones(3, bool))


@pytest.mark.parametrize("names", [set(NAMES), frozenset(NAMES), "cat", ["cat", 3, "wall"], ["cat", None, "wall"]])
def test_names_are_a_list_of_strings(names):
    photo = photo_of(LABELS.shape)
    for build in (
        lambda: Segmentation(names, LABELS, [], photo),
        lambda: Segmentation.from_semantic(photo, names, LABELS),
        lambda: Segmentation.from_panoptic(photo, names, LABELS, [(0, 0.5, True)] * 3),
        lambda: Segmentation.from_instances(photo, names, []),
    ):
        with pytest.raises(SettingError, match="names must be"):
            build()


def test_names_from_an_iterator():
    assert Segmentation.from_semantic(photo_of(LABELS.shape), iter(NAMES), LABELS).names == NAMES


def test_ten_thousand_names():
    names = [f"name {k}" for k in range(10_000)]
    labels = np.full((50, 60), 9_999)
    labels[:10] = 17
    result = Segmentation.from_semantic(photo_of((50, 60)), names, labels, np.full((50, 60), 0.5, np.float32))
    assert [s.name for s in result.segments] == ["name 9999", "name 17"]
    assert result.overlay().mode == "RGB"


def test_summary_is_json(semantic):
    summary = json.loads(json.dumps(semantic.summary()))
    assert summary["photo"] == "/photos/room.jpg"
    assert summary["size"] == [4, 4]
    assert summary["names"] == list(NAMES)
    assert summary["segments"][2] == {
        "id": 2,
        "name": "cat",
        "score": 1.0,
        "box": [1, 1, 3, 3],
        "area": 4,
        "share": 0.25,
    }


def test_summary_lists_every_name():
    """Also names without a pixel; where things overlap, each pixel counts once."""
    result = Segmentation.from_semantic(photo_of(LABELS.shape), [*NAMES, "dog"], LABELS, np.array([0.5, 0.25, 1, 1]))
    assert result.not_found == ("dog",)
    colours = ["#" + bytes(colour).hex() for colour in result.colours]
    assert result.summary()["classes"] == [
        {"name": "cat", "share": 0.25, "score": 0.5, "colour": colours[0]},
        {"name": "sofa", "share": 0.3125, "score": 0.25, "colour": colours[1]},
        {"name": "wall", "share": 0.375, "score": 1.0, "colour": colours[2]},
        {"name": "dog", "share": 0.0, "score": None, "colour": colours[3]},
    ]
    instances = overlapping()
    cat, *others = instances.summary()["classes"]
    assert cat["share"] == round((instances.segments[0].mask | instances.segments[1].mask).sum() / 48, 6)
    assert cat["score"] == 0.9
    assert [row["share"] for row in others] == [0, 0]
    assert instances.not_found == NAMES[1:]


def test_summary_with_masks():
    result = overlapping()
    for row, segment in zip(json.loads(json.dumps(result.summary(rle=True)))["segments"], result.segments, strict=True):
        np.testing.assert_array_equal(decode_rle(row["segmentation"]), segment.mask)
    assert all("segmentation" not in row for row in result.summary()["segments"])


def test_repr(semantic):
    assert repr(semantic) == "Segmentation(semantic, 4 x 4 px: wall 38%, sofa 31%, cat 25%)"
    assert "pixels" not in repr(semantic.segments[0])


@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_archives_restore_everything(mode, tmp_path):
    photo = photo_of((4, 4))
    if mode == "semantic":
        result = Segmentation.from_semantic(photo, ["chaise d'été", "猫", "x"], LABELS, settings={"a": [1, "ü"]})
    elif mode == "panoptic":
        result = Segmentation.from_panoptic(photo, NAMES, LABELS, [(0, 0.5, True)] * 2 + [(2, 0.25, False)])
    else:
        result = overlapping()
    path = result.save(tmp_path / "deep" / "a.npz")
    loaded = Segmentation.load(path)
    for name in ("label_map", "photo", "segment_map"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(result, name))
    assert loaded.summary() == result.summary()
    for restored, segment in zip(loaded.segments, result.segments, strict=True):
        np.testing.assert_array_equal(restored.mask, segment.mask)
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_heatmaps_are_in_the_archive_and_older_archives_have_none(tmp_path, semantic):
    heat = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    result = replace(semantic, heatmaps={"cat": heat, "é / x": 1 - heat})
    path = result.save(tmp_path / "a.npz")
    loaded = Segmentation.load(path)
    assert list(loaded.heatmaps) == ["cat", "é / x"]
    np.testing.assert_array_equal(loaded.heatmaps["é / x"], 1 - heat)
    change_head(path, without("heatmaps"))
    assert Segmentation.load(path).heatmaps == {}


def change_head(path, change):
    """Rewrite the JSON in an archive."""
    with np.load(path) as archive:
        content = dict(archive)
    head = json.loads(content["head"].tobytes())
    content["head"] = np.frombuffer(json.dumps(change(head)).encode(), np.uint8)
    np.savez(path, **content)


def without(key):
    return lambda head: {name: value for name, value in head.items() if name != key}


@pytest.mark.parametrize(
    "change",
    [
        *(without(key) for key in ("format", "names", "segments", "mode", "settings", "source")),
        lambda head: [],
        lambda head: "text",
        lambda head: head | {"format": "deop segmentation 99"},
        lambda head: head | {"names": 3},
        lambda head: head | {"names": "cat"},
        lambda head: head | {"names": [1, 2, 3]},
        lambda head: head | {"names": ["cat"]},
        lambda head: head | {"mode": ["semantic"]},
        lambda head: head | {"mode": "video"},
        lambda head: head | {"settings": 3},
        lambda head: head | {"segments": 3},
        lambda head: head | {"segments": [3]},
        lambda head: head | {"segments": [without("pixels")(head["segments"][0])]},
        lambda head: head | {"segments": [head["segments"][0] | {"pixels": "bits7"}]},
        lambda head: head | {"segments": [head["segments"][0] | {"box": 3}]},
        lambda head: head | {"segments": [head["segments"][0] | {"box": ["a", 1, 2, 3]}]},
        lambda head: head | {"segments": [head["segments"][0] | {"area": None}]},
        lambda head: head | {"segments": [head["segments"][0] | {"class_id": "wall"}]},
        lambda head: head | {"segments": [head["segments"][0] | {"weight": 3}]},
    ],
)
def test_archives_with_a_damaged_head(tmp_path, semantic, change):
    path = semantic.save(tmp_path / "a.npz")
    change_head(path, change)
    with pytest.raises(ImageError, match=r"cannot read .*a\.npz"):
        Segmentation.load(path)


@pytest.mark.parametrize("key", ["head", "label_map", "photo"])
def test_archives_that_lack_an_array(tmp_path, semantic, key):
    path = semantic.save(tmp_path / "a.npz")
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files if name != key}
    np.savez(path, **content)
    with pytest.raises(ImageError, match=key):
        Segmentation.load(path)


def test_archives_with_a_flipped_byte(tmp_path):
    """Any damage is our error, or goes unnoticed because the byte has no meaning."""
    photo = np.zeros((4, 4, 3), np.uint8)
    path = Segmentation.from_semantic(photo, NAMES, LABELS).save(tmp_path / "a.npz")
    whole = path.read_bytes()
    failures = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            Segmentation.load(path)
        except ImageError:
            failures += 1
    assert failures > len(whole) / 7 / 2


def test_files_that_are_not_archives(tmp_path, semantic):
    with pytest.raises(ImageError, match="no such file"):
        Segmentation.load(tmp_path / "a.npz")
    (tmp_path / "text.npz").write_text("hello", encoding="utf-8")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    whole = semantic.save(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text.npz", "empty.npz", "folder.npz", "other.npz", "array.npz", "cut.npz"):
        with pytest.raises(ImageError, match=name.replace(".", r"\.")):
            Segmentation.load(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "known"),
    [(".png", "alpha, "), (".jpg", "alpha, "), (".json", "rle"), (".txt", "tolerance"), (".geojson", "tolerance")],
)
def test_unknown_options_of_save_are_named(tmp_path, semantic, suffix, known):
    with pytest.raises(SettingError, match=f"unknown option 'alhpa' of save .* its options are {known}"):
        semantic.save(tmp_path / f"a{suffix}", alhpa=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".json", ".npz", ".JSON"])
def test_options_that_do_not_apply_are_named(tmp_path, semantic, suffix):
    with pytest.raises(SettingError, match=f"option 'alpha' applies only to the format picture: omit it for a{suffix}"):
        semantic.save(tmp_path / f"a{suffix}", alpha=1)
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffixes_and_places_that_cannot_be_written(tmp_path, semantic):
    with pytest.raises(OutputError, match=r"\.npz"):
        semantic.save(tmp_path / "a.tiff")
    with pytest.raises(OutputError, match="unknown suffix ''"):
        semantic.save(tmp_path / "a")
    (tmp_path / "file").write_text("content", encoding="utf-8")
    for ending in (".png", ".npz", ".json"):
        with pytest.raises(OutputError, match="choose a folder"):
            semantic.save(tmp_path / "file" / f"a{ending}")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        semantic.save(tmp_path / "d.png")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "content"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.png", "file"]


@settings(max_examples=30)
@given(st.lists(arrays(bool, (5, 6)), max_size=4), st.randoms(use_true_random=False))
def test_painting_overlapping_segments(many, random):
    scores = random.sample([0.1, 0.2, 0.3, 0.4], len(many))
    candidates = [Segment.from_mask("cat", 0, s, m) for s, m in zip(scores, many, strict=True)]
    segments = [segment for segment in candidates if segment]
    painted = paint_segments(segments, (5, 6))
    for y in range(5):
        for x in range(6):
            covering = [i for i, segment in enumerate(segments) if segment.mask[y, x]]
            assert painted[y, x] == max(covering, key=lambda i: segments[i].score, default=-1)

"""Banks in tiles, in videos, without names, and in exported models."""

import numpy as np
import pytest

import deop
from deop.bank import Bank, Click, learn
from deop.errors import SettingError, VocabularyError
from tests.bank.desk import OBJECTS, render
from tests.bank.small import HashedWords, bank_of, clusters, huge

NAMES = "widget-a, zindle, blorp, table, paper, pen"


@pytest.fixture(scope="module")
def desk():
    """The built-in model, a bank of three photos, and another photo with its masks."""
    model = deop.load("nano", device="cpu", threads=1)
    photos = [render(number) for number in range(3)]
    masks = [np.stack([objects[name] for name in OBJECTS]) for _, objects in photos]
    return model, learn(model, [photo for photo, _ in photos], masks, [OBJECTS] * 3), render(5)


def test_without_names_those_of_the_bank_are_asked(desk):
    model, bank, (photo, objects) = desk
    encoded = model.encode([photo])[0]
    result = model.label(encoded, bank=bank)
    assert list(result.names) == sorted(OBJECTS)
    assert np.array_equal(result.label_map, model.label(encoded, sorted(OBJECTS), bank=bank).label_map)
    assert model.vocabulary(None, bank=bank, background="Zindle, table").names == ("blorp", "widget-a")
    with pytest.raises(VocabularyError, match="no class names: give some"):
        model.label(encoded)
    empty = Bank.empty(bank.space, bank.regions.shape[1])
    plain = model.label(encoded, "cat, table").label_map
    assert np.array_equal(model.label(encoded, "cat, table", bank=empty).label_map, plain)
    with pytest.raises(VocabularyError, match="no names to ask for"):
        model.label(encoded, bank=empty)
    negatives = learn(model, photo, [objects["zindle"]], ["-zindle"])
    with pytest.raises(VocabularyError, match="no names to ask for"):
        model.label(encoded, bank=negatives)


def test_tiles_with_a_bank(desk, tmp_path):
    """One tile without a view of the whole is the photo itself; a bank is part of what results depend on."""
    from deop.tiles import segment_photo, segment_tiles

    model, bank, (photo, _) = desk
    whole = model.segment(photo, NAMES, bank=bank)
    tiled = segment_photo(model, photo, NAMES, context=0, bank=bank)
    assert (tiled.label_map == whole.label_map).mean() > 0.97
    assert tiled.settings["bank"] == whole.settings["bank"] == bank.digest[:16]
    plain = segment_photo(model, photo, NAMES, context=0, bank=bank, bank_weight=0)
    assert not np.isin(plain.label_map, range(3)).any()
    both = segment_photo(model, np.concatenate([photo, photo], 1), None, tiles="320", context=0, bank=bank)
    assert set(both.names) == set(OBJECTS)
    for half in (both.label_map[:, :320], both.label_map[:, 320:]):
        assert (half == both.names.index("zindle")).sum() > 500
    result = segment_tiles(model, photo, NAMES, tmp_path / "out.tif", bank=bank)
    assert result.settings["bank"] == bank.digest[:16]
    with pytest.raises(SettingError, match="no option 'masks'"):
        segment_photo(model, photo, NAMES, masks=None)


def test_a_video_with_a_bank(desk):
    """Also of names that no text encoder reads, and without names."""
    from deop.video.reading import DecodedFrame
    from deop.video.segmenting import segment_frames

    model, bank, (photo, _) = desk
    frames = [DecodedFrame(index, index / 10, 100 * index, photo) for index in range(2)]
    expected = model.segment(photo, bank=bank).label_map
    results = list(segment_frames(model, frames, None, bank=bank))
    assert [np.array_equal(one.result.label_map, expected) for one in results] == [True, True]


@pytest.mark.slow
def test_an_exported_model_shares_its_banks_with_torch(tmp_path):
    """The graphs compute what the weights do, so that a bank of one is a bank of the other, and of no other model."""
    pytest.importorskip("onnxscript")
    import torch

    from deop.encoders.clip_text import CLIPText
    from deop.export.folder import export_model
    from tests.export import small
    from tests.tiny import write_tiny_clip

    write_tiny_clip(tmp_path / "clip")
    text = CLIPText.from_folder(tmp_path / "clip")
    model = small.model(encoder=small.clip(output=text.width), text=text, padding="inside", drop_redundant=False)
    runtime = deop.load(export_model(model, tmp_path / "model"), engine="onnx")
    photos = [small.photo(seed=seed) for seed in range(3)]
    left = np.zeros(photos[0].shape[:2], bool)
    left[:, :45] = True
    marks, names = [np.stack([left, ~left])] * 3, [["x17", "right"]] * 3
    banks = [learn(one, photos, marks, names) for one in (model, runtime)]
    assert banks[0].counts() == banks[1].counts()
    masks = np.stack([left, ~left])
    for bank in banks:
        results = [one.segment(photos[1], "x17, right, cat", masks=masks, bank=bank) for one in (model, runtime)]
        assert np.array_equal(results[0].label_map, 1 - left)
        assert np.array_equal(results[0].label_map, results[1].label_map)
    merged = Bank.merged(banks)
    assert set(merged.names) == set(banks[0].names)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model._last_probe = None
    with pytest.raises(SettingError, match="embeddings differ"):
        model.vocabulary("cat", bank=banks[1])
    with pytest.raises(SettingError, match="embeddings differ"):
        runtime.vocabulary("cat", bank=learn(model, photos, marks, names))


def test_large_photos_are_marked_within_little_memory():
    """A click on a photo of 40 megapixels with 100 proposals: all of them at its size would be 16 GB."""
    import tracemalloc

    from deop.bank.marks import Box, masks_of
    from deop.images.canvas import Canvas
    from deop.labelling.masks import PhotoMasks

    logits = np.full((100, 64, 64), -9, np.float32)
    logits[7, 16:32, 16:32] = 9
    proposals, canvas = PhotoMasks(logits), Canvas((5000, 8000), (256, 256), (256, 256))
    tracemalloc.start()
    masks = masks_of([Click(3000, 1900), Box(1900, 1200, 4100, 2600)], (5000, 8000), proposals, canvas)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000_000
    truth = np.zeros((5000, 8000), bool)
    truth[1250:2500, 2000:4000] = True
    for mask in masks:
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_marks_are_those_of_whole_masks():
    """Compared with masks that are enlarged to the whole photo at once."""
    from deop.bank.marks import INSIDE, Box, masks_of
    from deop.images.canvas import Canvas
    from deop.labelling.masks import PhotoMasks
    from deop.labelling.windows import window_at

    random = np.random.default_rng(0)
    coarse = random.normal(0, 4, (12, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.float32)
    proposals, canvas = PhotoMasks(coarse), Canvas((150, 190), (61, 64), (64, 64))
    window = window_at(proposals, canvas, slice(0, 150), slice(0, 190))
    planes = np.broadcast_to(window.low[:, None, None], (12, 150, 190)).copy()
    planes[window.varying] = window.enlarge(window.at_input(window.varying))
    for x, y in random.integers(0, 150, (6, 2)):
        best = planes[planes[:, y, x].argmax()]
        expected = best > best.max() / 2
        assert (masks_of([Click(float(x), float(y))], (150, 190), proposals, canvas)[0] != expected).mean() < 1e-3
    for left, top in random.integers(0, 60, (6, 2)):
        box = np.zeros((150, 190), bool)
        box[top : top + 90, left : left + 100] = True
        inside = planes[:, box].sum(1) >= INSIDE * planes.sum((1, 2))
        halves = planes[inside] > planes[inside].max((1, 2), keepdims=True) / 2
        union = halves.any(0) & box if inside.any() else np.zeros_like(box)
        expected = union if 4 * union.sum() >= box.sum() else box
        mark = Box(float(left), float(top), float(left + 100), float(top + 90))
        assert (masks_of([mark], (150, 190), proposals, canvas)[0] != expected).mean() < 1e-3


def test_what_is_marked_in_another_step_is_unmarked_no_longer():
    regions, *_ = clusters(2, photos=2)
    first = bank_of(regions, ["cup", "", "", ""], [0, 0, 0, 1])
    second = bank_of(regions[1:3], ["bowl", "-cup"], [0, 1])
    merged = Bank.merged([first, second])
    assert merged == Bank.merged([second, first])
    assert merged.counts() == {"": (2, 2), "-cup": (1, 1), "bowl": (1, 1), "cup": (1, 1)}
    assert Bank.merged([merged, merged]) == merged
    only = Bank.merged([bank_of(regions[:1], [""]), bank_of(regions[:1], ["cup"])])
    assert only.names == ("cup",)
    assert Bank.from_bytes(merged.to_bytes()) == merged


def test_several_marks_of_one_photo_are_learned_together(tmp_path):
    from PIL import Image

    from deop.bank.sources import parse_examples

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    Image.fromarray(np.eye(30, 40, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    texts = [f"{tmp_path}/a.png:3,4=cup", f"{tmp_path}/b.png:3,4=cup", f"{tmp_path}/a.png:{tmp_path}/mask.png=-bowl"]
    marked = parse_examples(texts)
    assert [(len(one.marks), list(one.names)) for one in marked] == [(2, ["cup", "-bowl"]), (1, ["cup"])]


def test_ten_million_regions(tmp_path):
    """A file of the right form is refused by its header, before its 500 megabytes are read."""
    head, size = huge(bank_of(*_one_example()))
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)  # a hole: it takes no space
    with pytest.raises(SettingError, match=r"huge.safetensors has 10,000,000 regions, and the limit is 100,000"):
        deop.load_bank(tmp_path / "huge")


def _one_example():
    return clusters(1, photos=1)[0], ["cup"]


def test_names_without_a_word_need_examples():
    from tests.export.small import model as small_model
    from tests.export.small import photo as small_photo

    tower = small_model(text=HashedWords(), drop_redundant=False)
    photo = small_photo()
    left = np.zeros(photo.shape[:2], bool)
    left[:, :45] = True
    bank = learn(tower, photo, [left, ~left], ["x17", "x18"])
    result = tower.segment(photo, bank=bank, masks=np.stack([left, ~left]))
    assert np.array_equal(result.label_map, 1 - left)

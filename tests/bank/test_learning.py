"""Learning from photos: with random towers, with the built-in model in both engines, and as a user would."""

from dataclasses import replace

import numpy as np
import pytest

import deop
from deop.bank import Bank, Box, Click, learn
from deop.bank.marks import masks_of
from deop.errors import DataError, ProposalError, SettingError, VocabularyError
from tests.bank.desk import OBJECTS, render
from tests.bank.small import HashedWords

torch = pytest.importorskip("torch")

from tests.export.small import model as small_model  # noqa: E402
from tests.export.small import photo as small_photo  # noqa: E402


@pytest.fixture(scope="module")
def tower():
    """A CLIP and a MaskFormer with random weights, and words of random directions."""
    return small_model(text=HashedWords(), drop_redundant=False)


def halves(photo):
    """A mask of the left and one of the right half of a photo."""
    left = np.zeros(photo.shape[:2], bool)
    left[:, : photo.shape[1] // 2] = True
    return np.stack([left, ~left])


@pytest.fixture(scope="module")
def learned(tower):
    photos = [small_photo(seed=seed) for seed in range(3)]
    return photos, learn(tower, photos, [halves(photo) for photo in photos], [["left", "right"]] * 3)


def test_what_a_bank_holds(tower, learned):
    photos, bank = learned
    assert {"left", "right"} <= set(bank.names)
    assert len(bank.photos) == 3
    assert bank.space.encoding["anchors"] == "pool"
    given = tower.encode(photos[:1], [halves(photos[0])])[0].regions.numpy()
    marked = bank.regions[bank.marked].astype(np.float32)
    assert (marked @ given.T).max(0) == pytest.approx([1, 1], abs=1e-3), "the embeddings of the marked masks"
    np.testing.assert_allclose(np.linalg.norm(bank.regions.astype(np.float32), axis=1), 1, atol=1e-2)


def test_a_marked_region_gets_its_name(tower, learned):
    photos, bank = learned
    for photo in photos:
        result = tower.segment(photo, "left, right, other things", masks=halves(photo), bank=bank)
        names = np.array(result.names)[result.label_map]
        assert (names[:, : photo.shape[1] // 2] == "left").all()
        assert (names[:, photo.shape[1] // 2 :] == "right").all()


def test_weight_0_is_no_bank(tower, learned):
    photos, bank = learned
    encoded = tower.encode(photos[:1])[0]
    plain = tower.class_probabilities(encoded, tower.vocabulary("left, right, wall"))
    zero = tower.class_probabilities(encoded, tower.vocabulary("left, right, wall", bank=bank, bank_weight=0))
    half = tower.class_probabilities(encoded, tower.vocabulary("left, right, wall", bank=bank))
    assert torch.equal(plain, zero)
    assert not torch.equal(plain, half)


def test_photos_in_any_order_and_in_parts_make_the_same_bank(tower, learned):
    photos, bank = learned
    masks, names = [halves(photo) for photo in photos], [["left", "right"]] * 3
    assert learn(tower, photos[::-1], masks[::-1], names) == bank
    parts = [learn(tower, photo, mask, ["left", "right"]) for photo, mask in zip(photos, masks, strict=True)]
    assert Bank.merged(parts) == bank


def test_a_label_map_and_a_single_name(tower):
    photo = small_photo()
    labels = halves(photo)[0] * 7 + halves(photo)[1] * 3
    assert learn(tower, photo, labels, ["right", "left"]) == learn(tower, photo, halves(photo), ["left", "right"])
    assert "left" in learn(tower, photo, halves(photo)[:1], "left").names


def test_a_name_that_no_encoder_reads(tower, learned):
    photos, _ = learned
    bank = learn(tower, photos, [halves(photo) for photo in photos], [["x17", "right"]] * 3)
    with pytest.raises(VocabularyError, match="reads nothing of 'x17'"):
        tower.segment(photos[0], "x17, right")
    result = tower.segment(photos[0], "x17, right", masks=halves(photos[0]), bank=bank)
    assert (result.label_map == 1 - halves(photos[0])[0]).all()
    with pytest.raises(VocabularyError, match="reads nothing"):
        tower.segment(photos[0], "x17, right", bank=bank, bank_weight=0)


def test_negative_examples(tower, learned):
    photos, _ = learned
    photo = photos[0]
    bank = learn(tower, photo, halves(photo), ["-cat", "dog"])
    result = tower.segment(photo, "cat, dog, wall", masks=halves(photo), bank=bank)
    assert "cat" not in {result.names[k] for k in np.unique(result.label_map[halves(photo)[0]])}


def test_banks_of_another_model_are_refused(tower, learned):
    photos, bank = learned
    other = small_model(text=HashedWords(), drop_redundant=False)
    with torch.no_grad():
        for parameter in other.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    with pytest.raises(SettingError, match=r"does not fit this model: .*embeddings differ. Learn the examples again"):
        other.segment(photos[0], "left, right", bank=bank)
    with pytest.raises(SettingError, match="learned in float32, the other in bfloat16"):
        small_model(text=HashedWords()).bfloat16().vocabulary("left", bank=bank)
    with pytest.raises(SettingError, match="severance"):
        tower.segment(photos[0], "left, right", bank=bank, severance="none")
    with pytest.raises(SettingError, match="two-stream"):
        tower.segment(photos[0], "left, right", bank=bank, classifier="two-stream")
    narrow = replace(bank, regions=bank.regions[:, :8])
    with pytest.raises(SettingError, match="8 channels, and this model of 24"):
        tower.segment(photos[0], "left, right", bank=narrow)


def test_wrong_arguments(tower, learned):
    photo, (_, bank) = small_photo(), learned
    mask = halves(photo)
    for masks, names, error, text in (
        (mask[:, :-1], ["left", "right"], ProposalError, "masks are 69 x 90"),
        (mask, ["left"], ProposalError, "has 2 marked regions and 1 names"),
        (mask, ["left", " "], VocabularyError, "blank"),
        (mask[:0], [], DataError, "no photo has a marked region"),
        (mask & False, ["left", "right"], DataError, "no photo has a marked region"),
        ([Click(90, 3)], ["left"], ProposalError, "outside the photo of 90 x 70"),
        ([Box(5, 5, 5, 9)], ["left"], ProposalError, "is empty"),
        ([Box(100, 5, 120, 9)], ["left"], ProposalError, "outside the photo"),
    ):
        with pytest.raises(error, match=text):
            learn(tower, photo, masks, names)
    with pytest.raises(SettingError, match="2 photos: give a list"):
        learn(tower, [photo, photo], [mask], [["left", "right"]] * 2)
    with pytest.raises(SettingError, match="bank_weight has no effect"):
        tower.segment(photo, "left", bank_weight=0.5)
    with pytest.raises(SettingError, match=r"must be a number in \[0, 1\]"):
        tower.segment(photo, "left", bank=bank, bank_weight=2)
    with pytest.raises(SettingError, match="no proposer, so that boxes and clicks"):
        learn(small_model(text=HashedWords(), proposer=False), photo, [Click(1, 1)], ["left"])
    assert learn(small_model(text=HashedWords(), proposer=False), photo, mask, ["left", "right"]).marked.all()


def test_boxes_and_clicks_stand_for_proposals():
    from deop.images.canvas import Canvas
    from deop.labelling.masks import PhotoMasks

    logits = np.full((2, 8, 8), -9, np.float32)
    logits[0, 1:4, 1:4] = 9
    logits[1, 4:8, 4:8] = 9
    proposals, canvas = PhotoMasks(logits), Canvas((32, 32), (32, 32), (32, 32))
    square = np.zeros((32, 32), bool)
    square[4:16, 4:16] = True

    def iou(mark):
        mask = masks_of([mark], (32, 32), proposals, canvas)[0]
        return (mask & square).sum() / (mask | square).sum()

    assert iou(Click(8, 8)) > 0.8
    assert iou(Box(2, 2, 18, 18)) > 0.8
    assert masks_of([Box(20, 2, 30, 9)], (32, 32), proposals, canvas).sum() == 10 * 7, "no proposal: the box itself"
    with pytest.raises(ProposalError, match="proposes no mask"):
        masks_of([Click(1, 1)], (32, 32), PhotoMasks(logits[:0]), canvas)


@pytest.fixture(scope="module")
def desk():
    """Six rendered photos of invented objects, and the built-in model."""
    return [render(number) for number in range(6)], deop.load("nano", device="cpu")


@pytest.fixture(scope="module")
def marked(desk):
    photos, model = desk
    masks = [np.stack([objects[name] for name in OBJECTS]) for _, objects in photos[:5]]
    return learn(model, [photo for photo, _ in photos[:5]], masks, [OBJECTS] * 5)


def overlap(result, name, mask):
    """IoU of the pixels with a name and a mask."""
    found = result.label_map == result.names.index(name)
    return (found & mask).sum() / (found | mask).sum()


def test_five_marked_photos_of_a_desk_find_the_objects_in_a_sixth(desk, marked):
    photos, model = desk
    photo, objects = photos[5]
    names = "widget-a, zindle, blorp, table, paper, pen"
    encoded = model.encode([photo])[0]
    words, both = model.label(encoded, names), model.label(encoded, names, bank=marked)
    for name in OBJECTS:
        assert overlap(words, name, objects[name]) < 0.1, "words alone do not find it"
        assert overlap(both, name, objects[name]) > 0.4
    elsewhere = ~np.any([*objects.values()], 0)
    taken = np.isin(both.label_map, [both.names.index(name) for name in OBJECTS])
    assert taken[elsewhere].mean() < 0.2, "names without examples keep their pixels"


def test_a_corrected_region_has_its_name_in_the_same_photo(desk):
    """A click on a wrong region, and a name: this photo follows at once."""
    photos, model = desk
    photo, objects = photos[0]
    row, column = np.argwhere(objects["widget-a"]).mean(0)
    bank = learn(model, photo, [Click(column, row)], ["widget-a"])
    names = "widget-a, table, paper"
    assert overlap(model.segment(photo, names), "widget-a", objects["widget-a"]) < 0.1
    assert overlap(model.segment(photo, names, bank=bank), "widget-a", objects["widget-a"]) > 0.4


def test_both_engines_name_alike(desk, marked, tmp_path):
    photos, model = desk
    network = deop.load("nano", engine="torch", device="cpu")
    stored = deop.load_bank(marked.save(tmp_path / "desk"))
    names = "widget-a, zindle, blorp, table, paper, pen"
    for mode in ("semantic", "panoptic"):
        results = [one.segment(photos[5][0], names, bank=stored, mode=mode) for one in (model, network)]
        assert (results[0].label_map == results[1].label_map).mean() > 0.999
        assert results[0].settings == results[1].settings
        scores = [[segment.score for segment in result.segments] for result in results]
        np.testing.assert_allclose(scores[0], scores[1], atol=2e-3)
    assert results[0].settings["bank"] == marked.digest[:16]


def test_int8_is_another_space(marked):
    with pytest.raises(SettingError, match="learned in float32, the other in int8"):
        deop.load("nano", dtype="int8", device="cpu").vocabulary("zindle", bank=marked)

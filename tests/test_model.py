"""The whole model: against the original from end to end, and its promises to callers."""

import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.severance import KINDS, Severance
from deop.errors import ImageError, ProposalError, SettingError, VocabularyError
from deop.images.canvas import Canvas
from deop.images.preprocessing import IMAGENET, Resize, to_pixels
from deop.model import DeOP
from deop.proposals.filtering import visible_masks
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder, pool_regions
from deop.regions.classification import classify, probabilities
from deop.regions.encoding import encode_one_pass
from deop.regions.two_stream import TwoStream
from deop.regions.windows import mask_blocks
from deop.settings import Settings
from deop.text.embedding import Classes
from tests.conftest import assert_parity

SMALL = Settings(resize=Resize(short_side=64))


def original_parts(file):
    """Encoder, decoder and text of the original's whole model, from its state dict."""
    state = file.below("state.")
    clip = {key.removeprefix("clip_adapter.clip_model."): value for key, value in state.items() if "clip_model." in key}
    visual = {key.removeprefix("visual."): value for key, value in clip.items() if key.startswith("visual.")}
    heads = file.info.get("visual_heads", max(visual["class_embedding"].shape[0] // 64, 1))
    encoder = CLIPVision.from_openai(visual, heads=heads, normalization=IMAGENET, position_rule="count")
    decoder = {key.removeprefix("decoder."): value for key, value in state.items() if key.startswith("decoder.")}
    return encoder, AnchorDecoder.from_original(decoder, state["query_embedding.weight"]), state, clip


def original_text_encoder(file, state, clip):
    table = torch.zeros(49408, file["token_embedding.rows"].shape[1])
    table[file["token_embedding.row_ids"].long()] = file["token_embedding.rows"]
    text = {key: value for key, value in clip.items() if not key.startswith("visual.")} | {
        "token_embedding.weight": table
    }
    prompt = {
        key.removeprefix("clip_adapter.prompt_learner."): value
        for key, value in state.items()
        if "prompt_learner" in key
    }
    return CLIPText.from_openai(text, prompt, heads=file.info.get("text_heads", 2))  # the file does not say


def original_text(file, encoder):
    ids = file["tokens.nouns"].long()
    names = [encoder.tower.get_input_embeddings()(row[1 : int(row.argmax())]) for row in ids]
    return F.normalize(encoder.encode_embeddings(*encoder.prompt(names)), dim=-1)


@torch.no_grad()
def test_parity_end_to_end(parity):
    file = parity("end_to_end")
    encoder, decoder, state, clip = original_parts(file)
    no_object = state["clip_adapter.non_object_embedding"][0]
    rows = original_text(file, original_text_encoder(file, state, clip))
    assert_parity(torch.cat([rows, F.normalize(no_object[None], dim=-1)]), file["text_features"])

    images = [file[f"image_{index}"].permute(1, 2, 0).numpy() for index in range(len(file["network_input"]))]
    padded = tuple(file["network_input"].shape[-2:])
    pixels = torch.zeros_like(file["network_input"])
    for index, image in enumerate(images):  # the original pads every image of a batch to the largest
        pixels[index, :, : image.shape[0], : image.shape[1]] = to_pixels(image, IMAGENET)
    assert_parity(pixels, file["network_input"])

    canvases = [
        Canvas(tuple(size.tolist()), image.shape[:2], padded)
        for size, image in zip(file["output_sizes"], images, strict=True)
    ]
    slots = torch.arange(file["mask_logits"].shape[1])
    proposals = [Proposals(logits, slots) for logits in file["mask_logits"]]
    asked = Settings(severance=Severance("gate"), anchors="decoder", padding="inside")
    looks = encode_one_pass(encoder, decoder, asked, pixels, canvases, proposals, asked.severance)
    assert_parity(torch.stack([look.regions for look in looks]), file["region_embeddings"])
    classes = Classes(rows, torch.arange(len(rows)), tuple(map(str, range(len(rows)))))
    logits = torch.stack([classify(look.regions, classes, no_object) for look in looks])
    assert_parity(logits, file["logits"])
    for index, look in enumerate(looks):
        masks = torch.cat([block for *_, block in mask_blocks(look.proposals, look.canvas)], 1)
        votes = probabilities(logits[index])[:, :-1]
        assert_parity(torch.einsum("nk,nhw->khw", votes, masks), file[f"semantic_{index}"])


@torch.no_grad()
def test_parity_training_free(parity):
    """METHOD section 12: given masks, no proposals network, no decoder."""
    file = parity("training_free")
    encoder = CLIPVision.from_openai(file.below("state."), heads=file.info["heads"], position_rule="count")
    image = file["image_0_255"]
    patch = encoder.patch
    cut = image[:, : image.shape[1] // patch * patch, : image.shape[2] // patch * patch]  # trailing pixels are lost
    grid = (cut.shape[1] // patch, cut.shape[2] // patch)
    pixels = to_pixels(cut.permute(1, 2, 0).numpy().astype(np.uint8), IMAGENET)[None]
    features = encoder(pixels, severance=Severance("self", residual=0.2)).patches
    assert_parity(features.permute(0, 2, 3, 1), file["clip_features_bhwc"])

    masks, cells = visible_masks(file["masks_after_filter"].bool(), (4 * grid[0], 4 * grid[1]))
    assert torch.equal(masks, file["masks_used"].bool())
    fine = F.interpolate(features, scale_factor=4, mode="bilinear", align_corners=False)
    regions = pool_regions(fine, cells[None].float()).embeddings[0]
    winner = (regions @ file["text_features_with_no_object"].T).argmax(1)
    label_map = (winner[:, None, None] * masks).sum(0)
    assert torch.equal(label_map.int(), file["label_map"])


@pytest.fixture(scope="module")
def model(tiny_clip):
    return DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=SMALL).eval()


def scene(seed=0, size=(70, 90), count=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, count + 1, size)


class Thirds:
    """A proposer with slots: rows of the image in three parts, and one mask twice."""

    normalization = IMAGENET
    kind = "thirds"

    def __call__(self, pixels):
        height, width = pixels.shape[-2] // 4, pixels.shape[-1] // 4
        logits = torch.full((4, height, width), -8.0)
        for index in range(3):
            logits[index, index * height // 3 : (index + 1) * height // 3] = 8
        logits[3] = logits[2]
        return [Proposals(logits.clone(), torch.arange(4)) for _ in pixels]


@pytest.mark.parametrize("severance", KINDS)
@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_every_severance_and_mode(model, severance, mode):
    photo, masks = scene()
    found = model.segment(photo, "cat, dog|puppy, wall", masks=masks, severance=severance, mode=mode)
    assert found.label_map.shape == photo.shape[:2]
    assert found.label_map.dtype == np.int32
    assert (found.label_map[masks == 0] == -1).all()  # nothing claims what no mask covers
    if mode == "semantic":
        assert (found.label_map[masks > 0] >= 0).all()
        for mask in range(1, 5):
            assert len(set(found.label_map[masks == mask])) == 1
    assert found.settings["severance"] == severance


def test_permuting_names_permutes_the_answer(model):
    photo, masks = scene()
    names = ["cat", "dog|puppy", "wall", "sofa"]
    first = model.segment(photo, names, masks=masks, background=["sky"])
    second = model.segment(photo, names[::-1], masks=masks, background=["sky"])
    assert first.names == second.names[::-1]
    assert (np.where(first.label_map < 0, -1, 3 - first.label_map) == second.label_map).all()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 100), st.sampled_from(KINDS))
def test_order_of_masks_and_empty_ones_change_nothing(model, seed, severance):
    photo, labels = scene(seed)
    masks = np.stack([labels == index for index in range(1, 5)])
    expected = model.segment(photo, "cat, dog, wall", masks=masks, severance=severance)
    order = np.random.default_rng(seed).permutation(4)
    found = model.segment(photo, "cat, dog, wall", masks=masks[order], severance=severance)
    assert (found.label_map == expected.label_map).all()
    if severance not in ("gate", "affinity"):  # METHOD 13.2: those count proposals; see tests of severance
        with_empty = np.concatenate([masks, np.zeros_like(masks[:1])])
        found = model.segment(photo, "cat, dog, wall", masks=with_empty, severance=severance)
        assert (found.label_map == expected.label_map).all()


def test_a_batch_equals_one_at_a_time(tiny_clip):
    decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, query="slot", slots=4)).eval()
    asked = Settings(resize=Resize(short_side=64), anchors="decoder", severance=Severance("gate", (-2, -1)))
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    model = DeOP(*parts, Thirds(), anchors=decoder, settings=asked).eval()
    photos = [scene(seed, size)[0] for seed, size in enumerate([(70, 90), (90, 70), (65, 91), (70, 90)])]
    together = model.segment(photos, "cat, dog, wall")
    for photo, one in zip(photos, together, strict=True):
        alone = model.segment(photo, "cat, dog, wall")
        assert (one.label_map == alone.label_map).all()
        np.testing.assert_allclose([s.score for s in one.segments], [s.score for s in alone.segments], atol=1e-4)


def test_duplicates_of_a_proposer_are_dropped_unless_switched_off(tiny_clip):
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    photo = scene()[0]
    assert len(DeOP(*parts, Thirds(), settings=SMALL).encode([photo])[0].proposals) == 3
    keep = Settings(resize=Resize(short_side=64), drop_redundant=False)
    assert len(DeOP(*parts, Thirds(), settings=keep).encode([photo])[0].proposals) == 4
    # Queries tied to slots attend to each other: those of the dropped would be missed.
    decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, query="slot", slots=4)).eval()
    tied = DeOP(*parts, Thirds(), anchors=decoder, settings=Settings(Resize(64), anchors="decoder")).eval()
    assert len(tied.encode([photo])[0].proposals) == 4


def test_a_plain_object_may_take_the_place_of_a_module(tiny_clip):
    model = DeOP(
        CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), torch.nn.Identity(), settings=SMALL
    )
    model.set_proposer(Thirds())
    assert len(model.encode([scene()[0]])[0].proposals) == 3


def test_slot_tied_anchors_leave_foreign_masks_to_pooling(tiny_clip):
    decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, query="slot", slots=4)).eval()
    asked = Settings(resize=Resize(short_side=64), anchors="decoder")
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    model = DeOP(*parts, Thirds(), anchors=decoder, settings=asked).eval()
    photo, masks = scene()
    assert model.segment(photo, "cat, dog").settings["anchors"] == "decoder"
    assert model.segment(photo, "cat, dog", masks=masks).settings["anchors"] == "pool"
    assert model.segment(photo, "cat, dog", anchors="pool").settings["anchors"] == "pool"
    with pytest.raises(SettingError, match="tied to the query slots"):
        model.segment(photo, "cat, dog", masks=masks, anchors="decoder")


def test_two_streams_with_one_mask_equal_the_crop_by_hand(model):
    """One mask over the whole photo: the crop is the photo, resized to the encoder's own size."""
    photo, _ = scene(size=(64, 64))
    look = model.encode([photo], [np.ones((1, 64, 64), bool)], classifier=TwoStream(ensemble=0))[0]
    pixels = to_pixels(photo, model.encoder.normalization)[None]
    expected = F.normalize(model.encoder(pixels).image, dim=-1)
    torch.testing.assert_close(look.regions, expected, atol=1e-4, rtol=1e-3)
    found = model.segment(photo, "cat, dog", masks=np.ones((1, 64, 64), bool), classifier="two-stream")
    assert len(found.segments) == 1


def test_no_masks_at_all(model):
    photo, _ = scene()
    for classifier in ("one-pass", "two-stream"):
        found = model.segment(photo, "cat", masks=np.zeros((0, 70, 90), bool), classifier=classifier)
        assert (found.label_map == -1).all()
        assert found.segments == []


@pytest.mark.parametrize("classifier", ["one-pass", "two-stream"])
def test_background_names_take_pixels_away(model, classifier):
    photo, masks = scene()[0], np.ones((1, 70, 90), bool)
    plain = model.segment(photo, "cat, dog", masks=masks, classifier=classifier)
    won = {segment.name for segment in plain.segments}
    swapped = model.segment(photo, [name for name in ("cat", "dog") if name not in won] or ["wall"], masks=masks,
                            background=sorted(won), classifier=classifier)  # fmt: skip
    assert (swapped.label_map == -1).sum() > (plain.label_map == -1).sum()


def test_threads_get_the_names_that_they_asked_for(model):
    vocabularies = [model.vocabulary([f"cat {index}", f"dog {index}"]) for index in range(4)]
    wrong, pause = [], sys.getswitchinterval()

    def ask(vocabulary):
        for _ in range(100):
            if model.embed(vocabulary).names != vocabulary.names:
                wrong.append(vocabulary)

    threads = [threading.Thread(target=ask, args=(vocabulary,)) for vocabulary in vocabularies]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(pause)
    assert not wrong


def test_half_precision_runs(tiny_clip):
    photo, masks = scene()
    model = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=SMALL).to(torch.bfloat16)
    assert model.segment(photo, "cat, dog", masks=masks).label_map.shape == (70, 90)


def test_clear_errors(model, tmp_path):
    photo, masks = scene()
    with pytest.raises(SettingError, match="no proposer: give masks"):
        model.segment(photo, "cat")
    with pytest.raises(SettingError, match="unknown mode 'panotic'"):
        model.segment(photo, "cat", masks=masks, mode="panotic")
    with pytest.raises(SettingError, match="unknown classifier"):
        model.segment(photo, "cat", masks=masks, classifier="three-stream")
    with pytest.raises(SettingError, match="no anchor decoder"):
        model.segment(photo, "cat", masks=masks, anchors="decoder")
    with pytest.raises(SettingError, match=r"threshold 2 is not in \[0, 1\]"):
        model.segment(photo, "cat", masks=masks, threshold=2)
    with pytest.raises(SettingError, match="1 sets of masks for 2 photos"):
        model.segment([photo, photo], "cat", masks=[masks])
    with pytest.raises(SettingError, match="one array of masks"):
        model.segment([photo, photo], "cat", masks=np.stack([masks, masks]))
    with pytest.raises(SettingError, match="a batch of 0 photos"):
        model.segment([photo], "cat", masks=[masks], batch=0)
    with pytest.raises(ProposalError, match="70"):
        model.segment(photo, "cat", masks=masks[:50])
    with pytest.raises(VocabularyError, match="empty"):
        model.segment(photo, [], masks=masks)
    with pytest.raises(ImageError, match=r"nothing\.jpg"):
        model.segment(tmp_path / "nothing.jpg", "cat", masks=masks)

"""The whole model: parity with the original from end to end, and the behaviour that callers rely on."""

import io
import re
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.severance import KINDS, Severance
from deop.errors import ImageError, ProposalError, SettingError, VocabularyError
from deop.images.canvas import Canvas
from deop.images.preprocessing import IMAGENET, Resize, to_pixels
from deop.model import DeOP
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder, pool_regions
from deop.regions.classification import ClassTensors, classify, probabilities
from deop.regions.encoding import encode_one_pass
from deop.regions.two_stream import TwoStream
from deop.regions.windows import mask_blocks
from deop.settings import Settings
from deop.text.calibration import Calibration
from deop.zoo import load
from tests.conftest import assert_parity

SMALL = Settings(resize=Resize(short_side=64))


def original_parts(file, batch="network_input"):
    """Encoder and decoder of the original's whole model, its state dict, and the CLIP part of that.

    The encoder of a cut file encodes only the batch of the file that is named, whatever the pixels.
    """
    state = file.below("state.")
    clip = {key.removeprefix("clip_adapter.clip_model."): value for key, value in state.items() if "clip_model." in key}
    visual = {key.removeprefix("visual."): value for key, value in clip.items() if key.startswith("visual.")}
    heads = file.info.get("visual_heads", max(visual["ln_post.weight"].shape[0] // 64, 1))
    if "conv1.weight" in visual:
        encoder = CLIPVision.from_openai(visual, heads=heads, normalization=IMAGENET, position_rule="count")
    else:
        encoder = cut_tower(visual, heads, file[f"derived.tokens.{batch}"])
    decoder = {key.removeprefix("decoder."): value for key, value in state.items() if key.startswith("decoder.")}
    return encoder, AnchorDecoder.from_original(decoder, state["query_embedding.weight"]), state, clip


def cut_tower(visual, heads, tokens):
    """The vision tower of a cut file, from block 1 on, for the stored tokens that enter block 1."""
    width = len(visual["ln_post.weight"])
    blocks = {
        re.sub(r"resblocks\.(\d+)", lambda match: f"resblocks.{int(match[1]) - 1}", key): value
        for key, value in visual.items()
    }
    unused = {
        "conv1.weight": torch.zeros(width, 3, 16, 16), "class_embedding": torch.zeros(width),
        "positional_embedding": torch.zeros(17, width),
        "ln_pre.weight": torch.ones(width), "ln_pre.bias": torch.zeros(width),
    }  # fmt: skip
    encoder = CLIPVision.from_openai(unused | blocks, heads=heads, normalization=IMAGENET, position_rule="count")
    encoder._enter = lambda cells, sizes, scope: tokens
    return encoder


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
    return CLIPText.from_openai(text, prompt, heads=file.info.get("text_heads", 2))  # the file does not contain them


def original_text(file, state, clip):
    """Embeddings of the names and the learned prefix; a cut file without the text encoder has the embeddings only."""
    if "token_embedding.rows" not in file:
        return file["text_features"][:-1], None
    encoder = original_text_encoder(file, state, clip)
    ids = file["tokens.nouns"].long()
    names = [encoder.tower.get_input_embeddings()(row[1 : int(row.argmax())]) for row in ids]
    return F.normalize(encoder.encode_embeddings(*encoder.prompt(names)), dim=-1), encoder.prompt.prefix


@torch.no_grad()
def test_parity_end_to_end(parity):
    file = parity("end_to_end")
    encoder, decoder, state, clip = original_parts(file)
    no_object = state["clip_adapter.non_object_embedding"][0]
    rows, _ = original_text(file, state, clip)
    assert_parity(torch.cat([rows, F.normalize(no_object[None], dim=-1)]), file["text_features"])

    images = [file[f"image_{index}"].permute(1, 2, 0).numpy() for index in range(len(file["output_sizes"]))]
    padded = tuple(4 * side for side in file["mask_logits"].shape[-2:])
    pixels = torch.zeros(len(images), 3, *padded)
    for index, image in enumerate(images):  # the original pads every image of a batch to the largest
        pixels[index, :, : image.shape[0], : image.shape[1]] = to_pixels(image, IMAGENET)
    file.check("network_input", pixels)

    canvases = [
        Canvas(tuple(size.tolist()), image.shape[:2], padded)
        for size, image in zip(file["output_sizes"], images, strict=True)
    ]
    slots = torch.arange(file["mask_logits"].shape[1])
    proposals = [Proposals(logits, slots) for logits in file["mask_logits"]]
    settings = Settings(severance=Severance("gate", class_token="severed"), anchors="decoder", padding="inside")
    encoded = encode_one_pass(encoder, decoder, settings, pixels, canvases, proposals, settings.severance)
    assert_parity(torch.stack([photo.regions for photo in encoded]), file["region_embeddings"])
    classes = ClassTensors(rows, torch.arange(len(rows)), tuple(map(str, range(len(rows)))))
    logits = torch.stack([classify(photo.regions, classes, no_object) for photo in encoded])
    assert_parity(logits, file["logits"])
    for index, photo in enumerate(encoded):
        masks = torch.cat([block for *_, block in mask_blocks(photo.proposals, photo.canvas)], 1)
        votes = probabilities(logits[index])[:, :-1]
        file.check(f"semantic_{index}", torch.einsum("nk,nhw->khw", votes, masks))


@torch.no_grad()
def test_parity_training_free(parity):
    """docs/method.md §12: given masks, no proposal network, no anchor decoder."""
    file = parity("training_free")
    features = file["clip_features_bhwc"].permute(0, 3, 1, 2)
    grid = features.shape[-2:]
    if state := file.below("state."):  # a cut file has the features alone
        encoder = CLIPVision.from_openai(state, heads=file.info["heads"], position_rule="count")
        image, patch = file["image_0_255"], encoder.patch
        cut = image[
            :, : image.shape[1] // patch * patch, : image.shape[2] // patch * patch
        ]  # the original cuts off trailing pixels
        pixels = to_pixels(cut.permute(1, 2, 0).numpy().astype(np.uint8), IMAGENET)[None]
        features = encoder(pixels, severance=Severance("self", residual=0.2)).patches
        assert features.shape[-2:] == grid
        assert_parity(features.permute(0, 2, 3, 1), file["clip_features_bhwc"])

    masks = file["masks_after_filter"].bool()
    cells = F.interpolate(masks[:, None].float(), size=(4 * grid[0], 4 * grid[1]), mode="nearest")[:, 0]
    visible = cells.flatten(1).any(1)  # masks without a cell are dropped
    masks, cells = masks[visible], cells[visible]
    assert torch.equal(masks, file["masks_used"].bool())
    fine = F.interpolate(features, scale_factor=4, mode="bilinear", align_corners=False)
    regions = pool_regions(fine, cells[None]).embeddings[0]
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
    """A proposer with slots: three horizontal bands of the image, and the last of them twice."""

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
    result = model.segment(photo, "cat, dog|puppy, wall", masks=masks, severance=severance, mode=mode)
    assert result.label_map.shape == photo.shape[:2]
    assert result.label_map.dtype == np.int32
    assert (result.label_map[masks == 0] == -1).all()  # pixels that no mask covers
    if mode == "semantic":
        assert (result.label_map[masks > 0] >= 0).all()
        for mask in range(1, 5):
            assert len(set(result.label_map[masks == mask])) == 1
    assert result.settings["severance"] == severance


def test_permuting_names_permutes_the_result(model):
    photo, masks = scene()
    names = ["cat", "dog|puppy", "wall", "sofa"]
    first = model.segment(photo, names, masks=masks, background=["sky"])
    second = model.segment(photo, names[::-1], masks=masks, background=["sky"])
    assert first.names == second.names[::-1]
    assert (np.where(first.label_map < 0, -1, 3 - first.label_map) == second.label_map).all()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 100), st.sampled_from(KINDS))
def test_order_of_masks_and_empty_masks_have_no_effect(model, seed, severance):
    photo, labels = scene(seed)
    masks = np.stack([labels == index for index in range(1, 5)])
    expected = model.segment(photo, "cat, dog, wall", masks=masks, severance=severance)
    order = np.random.default_rng(seed).permutation(4)
    permuted = model.segment(photo, "cat, dog, wall", masks=masks[order], severance=severance)
    assert (permuted.label_map == expected.label_map).all()
    if severance not in ("gate", "affinity"):  # these depend on the number of proposals (docs/method.md §13.2)
        with_empty = np.concatenate([masks, np.zeros_like(masks[:1])])
        result = model.segment(photo, "cat, dog, wall", masks=with_empty, severance=severance)
        assert (result.label_map == expected.label_map).all()


def test_a_batch_equals_one_at_a_time(tiny_clip):
    decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, query="slot", slots=4)).eval()
    settings = Settings(resize=Resize(short_side=64), anchors="decoder", severance=Severance("gate", (-2, -1)))
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    model = DeOP(*parts, Thirds(), anchors=decoder, settings=settings).eval()
    photos = [scene(seed, size)[0] for seed, size in enumerate([(70, 90), (90, 70), (65, 91), (70, 90)])]
    together = model.segment(photos, "cat, dog, wall")
    for photo, one in zip(photos, together, strict=True):
        alone = model.segment(photo, "cat, dog, wall")
        assert (one.label_map == alone.label_map).all()
        np.testing.assert_allclose([s.score for s in one.segments], [s.score for s in alone.segments], atol=1e-4)


def test_duplicate_proposals_are_dropped_if_the_settings_say_so(tiny_clip):
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    photo = scene()[0]
    assert len(DeOP(*parts, Thirds(), settings=SMALL).encode([photo])[0].proposals) == 3
    keep = Settings(resize=Resize(short_side=64), drop_redundant=False)
    assert len(DeOP(*parts, Thirds(), settings=keep).encode([photo])[0].proposals) == 4
    # Slot-tied queries attend to each other, so none may be dropped.
    decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, query="slot", slots=4)).eval()
    tied = DeOP(*parts, Thirds(), anchors=decoder, settings=Settings(Resize(64), anchors="decoder")).eval()
    assert len(tied.encode([photo])[0].proposals) == 4


def test_a_plain_object_can_replace_a_proposer_module(tiny_clip):
    model = DeOP(
        CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), torch.nn.Identity(), settings=SMALL
    )
    model.set_proposer(Thirds())
    assert len(model.encode([scene()[0]])[0].proposals) == 3


def test_given_masks_are_pooled_if_anchors_are_tied_to_slots(tiny_clip):
    decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, query="slot", slots=4)).eval()
    settings = Settings(resize=Resize(short_side=64), anchors="decoder")
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    model = DeOP(*parts, Thirds(), anchors=decoder, settings=settings).eval()
    photo, masks = scene()
    assert model.segment(photo, "cat, dog").settings["anchors"] == "decoder"
    assert model.segment(photo, "cat, dog", masks=masks).settings["anchors"] == "pool"
    assert model.segment(photo, "cat, dog", anchors="pool").settings["anchors"] == "pool"
    with pytest.raises(SettingError, match="tied to the query slots"):
        model.segment(photo, "cat, dog", masks=masks, anchors="decoder")


def test_two_stream_with_one_mask_equals_the_crop_by_hand(model):
    """One mask over the whole photo: the crop is the photo, resized to the encoder's crop size."""
    photo, _ = scene(size=(64, 64))
    encoded = model.encode([photo], [np.ones((1, 64, 64), bool)], classifier=TwoStream(ensemble=0))[0]
    pixels = to_pixels(photo, model.encoder.normalization)[None]
    expected = F.normalize(model.encoder(pixels).image, dim=-1)
    torch.testing.assert_close(encoded.regions, expected, atol=1e-4, rtol=1e-3)
    result = model.segment(photo, "cat, dog", masks=np.ones((1, 64, 64), bool), classifier="two-stream")
    assert len(result.segments) == 1


def test_no_masks(model):
    photo, _ = scene()
    for classifier in ("one-pass", "two-stream"):
        result = model.segment(photo, "cat", masks=np.zeros((0, 70, 90), bool), classifier=classifier)
        assert (result.label_map == -1).all()
        assert result.segments == []


@pytest.mark.parametrize("classifier", ["one-pass", "two-stream"])
def test_background_names_win_pixels(model, classifier):
    photo, masks = scene()[0], np.ones((1, 70, 90), bool)
    plain = model.segment(photo, "cat, dog", masks=masks, classifier=classifier)
    won = {segment.name for segment in plain.segments}
    others = [name for name in ("cat", "dog") if name not in won] or ["wall"]
    swapped = model.segment(photo, others, masks=masks, background=sorted(won), classifier=classifier)
    assert (swapped.label_map == -1).sum() > (plain.label_map == -1).sum()


def test_each_thread_gets_its_own_vocabulary(model):
    vocabularies = [model.vocabulary([f"cat {index}", f"dog {index}"]) for index in range(4)]
    wrong, interval = [], sys.getswitchinterval()

    def embed_repeatedly(vocabulary):
        for _ in range(100):
            if model.embed(vocabulary).names != vocabulary.names:
                wrong.append(vocabulary)

    threads = [threading.Thread(target=embed_repeatedly, args=(vocabulary,)) for vocabulary in vocabularies]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_half_precision_runs(tiny_clip):
    photo, masks = scene()
    model = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=SMALL).to(torch.bfloat16)
    assert model.segment(photo, "cat, dog", masks=masks).label_map.shape == (70, 90)


def scores(model, photo, masks):
    encoded = model.encode([photo], [masks])[0]
    return model.class_probabilities(encoded, ["cat", "wall"])


def test_embeddings_follow_changes_of_the_text_encoder(tiny_clip):
    photo, masks = scene()
    model = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=SMALL).eval()
    vocabulary = model.vocabulary(["cat", "wall"])
    rows = model.embed(vocabulary).rows
    assert model.embed(vocabulary).rows is rows  # nothing has changed
    before = scores(model, photo, masks)
    projection = model.text.tower.text_projection.weight
    for change in (
        lambda: projection.data.mul_(torch.rand_like(projection)),
        lambda: model.text.load_state_dict({key: value.flip(0) for key, value in model.text.state_dict().items()}),
        lambda: model.text.bfloat16(),
    ):
        change()
        changed = model.embed(vocabulary).rows
        assert not np.array_equal(changed, rows)
        assert not torch.equal(scores(model, photo, masks), before)
        rows, before = changed, scores(model, photo, masks)


def test_scores_follow_changes_of_the_settings(tiny_clip):
    photo, masks = scene()
    model = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=SMALL).eval()
    encoded = model.encode([photo], [masks])[0]
    raw = model.class_probabilities(encoded, ["cat", "wall"])
    calibration = Calibration(trained_names=("cat",), seen_penalty=3.0, rivals=("sofa",), rival_similarity=1.0)
    model.settings = replace(SMALL, calibration=calibration)
    calibrated = model.class_probabilities(encoded, ["cat", "wall"])
    assert (calibrated[:, 2] > 0).all()  # the rival's share
    assert (calibrated[:, 0] / calibrated[:, 1] < raw[:, 0] / raw[:, 1]).all()
    model.settings = replace(SMALL, temperature=10.0)
    assert not torch.equal(model.class_probabilities(encoded, ["cat", "wall"]), raw)
    model.settings = SMALL
    assert torch.equal(model.class_probabilities(encoded, ["cat", "wall"]), raw)


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_backward_after_segment(tiny_clip, name):
    """Tensors that ``segment`` caches can take part in a backward pass."""
    if name == "tiny":
        model = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), settings=SMALL).eval()
    else:
        model = load("nano", engine="torch", device="cpu")
        model.settings = replace(model.settings, resize=Resize(64))
    photo, masks = scene()
    model.segment(photo, "cat, wall", masks=masks)
    model.segment(photo, "cat, wall", masks=masks, classifier="two-stream")
    if name == "nano":
        model.segment(photo, "cat, wall")
    classes = model.embed(model.vocabulary("cat, wall"))
    pixels = torch.randn(1, 3, 64, 96, requires_grad=True)
    coverage = torch.rand(1, 3, *model.encoder(pixels).patches.shape[-2:])
    for severance in (None, model.settings.severance, Severance("affinity")):
        features = model.encoder(pixels, torch.randn(1, 3, 16, 24), severance=severance)
        logits = classify(pool_regions(features.patches, coverage).embeddings, classes)
        (logits[..., :-1].square().sum() + features.image.sum()).backward()
    assert pixels.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def test_names_copied_to_another_device_can_take_part_in_training(model, monkeypatch):
    """On a GPU the copy of the embedded names is what is kept; "meta" stands for a device other than the CPU."""
    vocabulary = model.vocabulary("cat copied, dog copied")
    monkeypatch.setattr(DeOP, "device", torch.device("meta"))
    with torch.inference_mode():
        classes = model.class_tensors(vocabulary)
    assert classes.rows.device.type == "meta"
    assert not classes.rows.is_inference()
    assert model.class_tensors(vocabulary) is classes


def test_encoder_and_proposer_share_one_pass_of_the_trunk(monkeypatch):
    model = load("nano", engine="torch", device="cpu")
    model.settings = replace(model.settings, resize=Resize(64))
    calls = []
    trunk = model.encoder.trunk.trunk
    trunk.register_forward_hook(lambda module, inputs, output: calls.append(tuple(inputs[0].shape)))
    photo, masks = scene()
    model.encode([photo])
    assert len(calls) == 1
    model.encode([photo, photo, photo.transpose(1, 0, 2)])  # two sizes
    assert len(calls) == 3
    model.encode([photo], [masks])
    assert len(calls) == 4
    model.encode([photo])  # nothing is kept from the last call
    assert len(calls) == 5


WRONG_OPTIONS = [
    ({"mode": "panotpic"}, "unknown mode 'panotpic': choose one of semantic"),
    ({"mode": None}, "unknown mode None"),
    ({"mode": ["semantic"]}, "unknown mode"),
    ({"threshold": 5}, r"threshold 5 is not in \[0, 1\]"),
    ({"threshold": -0.1}, r"threshold -0.1 is not in \[0, 1\]"),
    ({"threshold": float("nan")}, r"threshold nan is not in \[0, 1\]"),
    ({"threshold": "high"}, "'high' is not a threshold"),
    ({"threshold": [0.5]}, r"threshold must be a number in \[0, 1\], not \[0.5\]"),
    ({"threshold": {"dgo": 0.5}}, "'dgo', which is not among the names"),
    ({"threshold": True}, "threshold must be a number"),
]
WRONG_ENCODING = [
    ({"classifier": "three-stream"}, "unknown classifier 'three-stream'"),
    ({"classifier": None}, "unknown classifier None"),
    ({"severance": "gat"}, "unknown severance 'gat'"),
    ({"severance": 3}, "unknown severance '3'"),
    ({"anchors": "pol"}, "unknown anchors 'pol': choose one of decoder, pool"),
    ({"anchors": "decoder"}, "no anchor decoder"),
    ({"classifier": "two-stream", "severance": "self"}, "omit severance"),
    ({"classifier": "two-stream", "severance": "nonsense"}, "unknown severance 'nonsense'"),
    ({"classifier": "two-stream", "anchors": "pool"}, "omit anchors"),
    ({"classifier": TwoStream(), "anchors": "nonsense"}, "unknown anchors 'nonsense'"),
]
WRONG_BATCH = [({"batch": batch}, "batch must be an integer of at least 1") for batch in (0, -1, "8", 2.0, True, None)]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS + WRONG_ENCODING + WRONG_BATCH)
def test_wrong_options_raise_before_a_photo_is_read(model, options, message):
    with pytest.raises(SettingError, match=message):
        model.segment("absent.jpg", "cat", **options)
    if "batch" not in options and (options, message) in WRONG_OPTIONS:
        photo, masks = scene()
        with pytest.raises(SettingError, match=message):
            model.label(model.encode([photo], [masks])[0], "cat", **options)
    elif "batch" not in options:
        with pytest.raises(SettingError, match=message):
            model.encode(["absent.jpg"], **options)


def test_numbers_of_numpy_are_accepted(model):
    photo, masks = scene()
    model.segment([photo], "cat", masks=[masks], threshold=np.float32(0.5), batch=np.int64(2))


def test_wrong_inputs_raise(model, tmp_path):
    photo, masks = scene()
    with pytest.raises(SettingError, match="no proposer: give masks"):
        model.segment(photo, "cat")
    with pytest.raises(SettingError, match="1 sets of masks for 2 photos"):
        model.segment([photo, photo], "cat", masks=[masks])
    with pytest.raises(SettingError, match="one array of masks"):
        model.segment([photo, photo], "cat", masks=np.stack([masks, masks]))
    with pytest.raises(ProposalError, match="70"):
        model.segment(photo, "cat", masks=masks[:50])
    with pytest.raises(VocabularyError, match="empty"):
        model.segment(photo, [], masks=masks)
    with pytest.raises(ImageError, match=r"nothing\.jpg"):
        model.segment(tmp_path / "nothing.jpg", "cat", masks=masks)
    for one in (photo, torch.from_numpy(photo), io.BytesIO(), "photo.jpg"):
        with pytest.raises(SettingError, match=r"encode takes a list of photos.*give \[photo\]"):
            model.encode(one)


def test_tensors_and_file_objects_are_photos(model):
    photo, masks = scene()
    expected = model.segment(photo, "cat, dog", masks=masks).label_map
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    for form in (torch.from_numpy(photo), torch.from_numpy(photo).permute(2, 0, 1) / 255, file, file.getvalue()):
        np.testing.assert_array_equal(model.segment(form, "cat, dog", masks=masks).label_map, expected)


@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_a_threshold_of_one_name_leaves_the_others_as_they_are(model, mode):
    names = ["cat", "dog", "horse", "cup", "bird"]
    # Random weights give most masks one name: take the first scene that has two.
    scenes = (scene(seed, count=12) for seed in range(200))
    results = ((*one, model.segment(one[0], names, masks=one[1], mode=mode, threshold=0)) for one in scenes)
    photo, masks, free = next(found for found in results if len({segment.name for segment in found[2].segments}) > 1)
    dropped = free.segments[0].name
    result = model.segment(photo, names, masks=masks, mode=mode, threshold={"*": 0.0, dropped.upper(): 1.0})
    kept = [(segment.name, segment.area, segment.score) for segment in free.segments if segment.name != dropped]
    assert [(segment.name, segment.area, segment.score) for segment in result.segments] == kept
    expected = np.where(free.label_map == names.index(dropped), -1, free.label_map)
    assert np.array_equal(result.label_map, expected)
    assert result.settings["threshold"] == {"*": 0.0, dropped.upper(): 1.0}

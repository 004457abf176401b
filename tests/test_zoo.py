"""``load``: names of the zoo, folders and hub repos, and errors that say what to do."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.errors import CheckpointError, ModelNotFoundError, ProposalError, SettingError
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.settings import Settings
from deop.severance import TRAINING_FREE, Severance
from deop.weights.hub import repo_cache
from deop.zoo import ZOO, load, load_proposer, on_this_machine
from tests.fake_hub import put_in_cache
from tests.proposals.tiny_networks import mask2former
from tests.tiny import write_tiny_clip, write_tiny_siglip
from tests.tiny_towers import write_tiny_tips

MASK_FILES = {"config.json": '{"model_type": "mask2former"}', "model.safetensors": ""}
LICENCES = {"MIT", "Apache-2.0", "CC-BY-NC-4.0"}


@pytest.fixture
def cached_clip(hub, tiny_clip):
    """``cached_clip(weights)`` puts the tiny CLIP into the cache as if it were these weights."""

    def put(weights):
        folder = put_in_cache(hub.cache, weights.repo, {}, weights.revision, commit(weights))
        for file in tiny_clip.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return put


def commit(weights):
    return weights.revision if weights.revision != "main" else "f" * 40


@pytest.mark.parametrize("entry", ZOO.values(), ids=str)
def test_every_model_is_described(entry):
    for weights in (entry.encoder, entry.proposer):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", weights.repo)
        assert re.fullmatch(r"[0-9a-f]{40}|main", weights.revision)
        assert weights.license in LICENCES
        assert 100 < weights.megabytes < 3000
    assert entry.purpose
    assert entry.usage.basis
    assert entry.megabytes == entry.encoder.megabytes + entry.proposer.megabytes
    if "NC" in entry.encoder.license:
        assert "not for commercial use" in entry.purpose


def test_revisions_are_full_commit_ids_with_known_exceptions():
    unpinned = {w.repo for entry in ZOO.values() for w in (entry.encoder, entry.proposer) if w.revision == "main"}
    assert unpinned == {"facebook/metaclip-b16-fullcc2.5b", "google/tipsv2-b14", "google/tipsv2-l14"}


def test_models_for_commercial_use_have_such_masks():
    for entry in ZOO.values():
        if "may be used commercially" in entry.purpose:
            assert {entry.encoder.license, entry.proposer.license} <= {"Apache-2.0", "MIT"}


def test_with_another_proposer_pooling_replaces_slot_tied_anchors(tiny_clip, tmp_path):
    for slots in (4, 100):  # the tiny Mask2Former has 7 queries
        decoder = AnchorDecoder(AnchorConfig(32, 4, hidden=64, slots=slots))
        settings = Settings(Resize(64), anchors="decoder")
        parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
        folder = DeOP(*parts, anchors=decoder, settings=settings).save_pretrained(tmp_path / str(slots))
        mask2former().save_pretrained(tmp_path / "masks")
        model = load(folder, proposer=tmp_path / "masks", device="cpu")
        photo = np.zeros((60, 80, 3), np.uint8)
        assert model.segment(photo, "cat, dog").settings["anchors"] == "pool"
        model.settings = replace(model.settings, anchors="decoder", drop_redundant=False)
        if slots == 4:
            assert model.segment(photo, "cat, dog").settings["anchors"] == "pool"
            with pytest.raises(SettingError, match="4 query slots"):
                model.segment(photo, "cat, dog", anchors="decoder")


@pytest.mark.parametrize("name", ["clip-b16", "metaclip-b16"])
def test_a_cached_model_loads_without_a_network(hub, cached_clip, name):
    hub.error = AssertionError("the hub was asked")
    entry = ZOO[name]
    cached_clip(entry.encoder)
    model = load(name, proposer="given", device="cpu")
    assert model.proposer is None
    assert model.card.name == name
    assert model.card.license == entry.encoder.license
    assert model.settings.severance == entry.usage.severance == TRAINING_FREE
    assert model.settings.resize.short_side == entry.usage.short_side
    assert not model.training
    assert on_this_machine(entry) == (True, False)


@pytest.mark.parametrize(
    ("name", "write", "severance", "anchors"),
    [
        ("siglip2-b16", write_tiny_siglip, Severance(), "attention-pool"),
        ("tips-b14", write_tiny_tips, Severance("self"), "pool"),
    ],
)
def test_other_towers_are_used_as_their_publications_do(hub, tmp_path, name, write, severance, anchors):
    source, entry = write(tmp_path / "encoder"), ZOO[name]
    folder = put_in_cache(hub.cache, entry.encoder.repo, {}, entry.encoder.revision, commit(entry.encoder))
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert on_this_machine(entry) == (True, False)
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for model in (load(name, proposer="given", device="cpu"), load(source, device="cpu")):
        assert (model.settings.severance, model.settings.anchors) == (severance, anchors)
        assert model.settings.resize.short_side == entry.usage.short_side
        result = model.segment(photo, "cat, dog", masks=np.ones((1, 60, 80), bool))
        assert result.settings["severance"] == severance.kind
        assert result.settings["anchors"] == anchors


@pytest.mark.parametrize(("name", "layers"), [("best-b16", 12), ("best-l14", 24)])
def test_the_best_of_a_size_combines_the_branches_of_corrclip(hub, tmp_path, name, layers):
    entry = ZOO[name]
    source = write_tiny_clip(tmp_path / "clip", layers=layers)
    folder = put_in_cache(hub.cache, entry.encoder.repo, {}, entry.encoder.revision, commit(entry.encoder))
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    mask2former().save_pretrained(tmp_path / "masks")
    model = load(name, proposer=tmp_path / "masks", device="cpu")
    result = model.segment(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8), "cat, dog")
    assert result.settings["anchors"] == "tokens"
    assert result.settings["windows"] == [336, 112]
    assert result.settings["residual"] == 0
    assert result.settings["severance_values"] == {"mlp": False, "levels": entry.usage.severance.levels}
    assert len(entry.usage.severance.levels) == (5 if layers == 12 else 12)


def test_a_folder_of_transformers_clip_segments_with_given_masks(tiny_clip):
    model = load(tiny_clip, device="cpu")
    model.cache = None
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, :, :30] = masks[1, :, 30:] = True
    result = model.segment(photo, ["cat", "dog", "wall"], masks=masks)
    assert result.label_map.shape == (40, 60)
    for mask in masks:
        assert len(np.unique(result.label_map[mask])) == 1, "a mask has one name"


def test_the_encoder_equals_that_of_its_loader(tiny_clip):
    from deop.encoders.clip import CLIPVision

    model = load(tiny_clip, device="cpu")
    expected = CLIPVision.from_folder(tiny_clip).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.encoder.state_dict().items())


def test_a_hub_repo_and_its_revision(hub, tiny_clip):
    files = {file.name: file for file in tiny_clip.iterdir()}
    folder = put_in_cache(hub.cache, "some/clip", {}, "v2")
    for name, file in files.items():
        (folder / name).write_bytes(file.read_bytes())
    assert load("some/clip@v2", device="cpu").card.source == "some/clip@v2"
    hub.error = OSError("no route")
    with pytest.raises(ModelNotFoundError, match="some/clip is not on this machine"):
        load("some/clip@v3")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_the_weights_have_the_chosen_dtype(tiny_clip, dtype, monkeypatch):
    monkeypatch.setattr("deop.networks.devices.cpu_computes_in", lambda name: True)
    model = load(tiny_clip, device="cpu", dtype=dtype)
    assert model.dtype == torch.bfloat16


def test_an_unknown_device_or_dtype_is_reported_before_any_download(hub):
    hub.error = AssertionError("the hub was asked")
    with pytest.raises(SettingError, match="float64"):
        load("clip-b16", dtype="float64")
    with pytest.raises(SettingError, match="toaster"):
        load("clip-b16", device="toaster")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clip-b23", r"clip-b32"),
        ("Clip-L14", r"did you mean clip-l14"),
        ("zzz", r"the zoo has nano, clip-b32, clip-b16"),
        ("nanoo", r"did you mean nano"),
        ("./gone", r"no folder \./gone"),
        ("/gone/for/good", r"no folder /gone/for/good"),
    ],
)
def test_an_unknown_name_is_reported_with_a_suggestion(hub, name, hint):
    hub.error = AssertionError("the hub was asked")
    with pytest.raises(ModelNotFoundError, match=hint):
        load(name)


def test_without_a_network_every_missing_part_is_reported_at_once(hub):
    hub.error = OSError("Name or service not known")
    entry = ZOO["clip-b32"]
    with pytest.raises(ModelNotFoundError) as caught:
        load("clip-b32")
    for weights in (entry.encoder, entry.proposer):
        assert f"hf download {weights.repo} --revision {weights.revision}" in str(caught.value)
        assert str(repo_cache(weights.repo)) in str(caught.value)
    assert f"{entry.megabytes} MB" in str(caught.value)
    assert "--model clip-vit-base-patch32 --proposer mask2former-swin-tiny-coco-panoptic" in str(caught.value)
    put_in_cache(hub.cache, entry.proposer.repo, MASK_FILES, entry.proposer.revision, entry.proposer.revision)
    with pytest.raises(ModelNotFoundError) as caught:
        load("clip-b32")
    assert f"--model clip-vit-base-patch32 --proposer {entry.proposer}\n" in str(caught.value)
    with pytest.raises(ModelNotFoundError) as caught:
        load("clip-b32", proposer="given")
    assert entry.proposer.repo not in str(caught.value)


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'bert'"):
        load(tmp_path)
    with pytest.raises(ProposalError, match=r"'bert'.*mask2former"):
        load_proposer(tmp_path)


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(CheckpointError, match="deop convert"):
        load(tmp_path / "model.pth")


def test_pickled_weights_in_a_folder_are_refused(tmp_path):
    folder = write_tiny_clip(tmp_path / "clip", layers=1)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="deop convert"):
        load(folder)


def test_a_mask_model_in_a_folder_is_the_proposer(tiny_clip, tmp_path):
    from deop.proposals.transformers_networks import TransformersProposer
    from tests.proposals.tiny_networks import mask2former

    network = mask2former()
    network.save_pretrained(tmp_path)
    model = load(tiny_clip, proposer=tmp_path, device="cpu")
    assert isinstance(model.proposer, TransformersProposer)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_config", "num_attention_heads", 0),
        ("vision_config", "intermediate_size", -1),
        ("text_config", "hidden_size", None),
        ("text_config", "hidden_act", 3),
    ],
)
def test_a_clip_with_a_damaged_config_is_reported_with_its_folder(tmp_path, part, key, value):
    folder = write_tiny_clip(tmp_path / "clip", layers=1)
    config = json.loads((folder / "config.json").read_text())
    config[part][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=str(folder)):
        load(folder, device="cpu")


@pytest.mark.parametrize("content", ['{"model_type": []}', '{"model_type": "mask2former"}', "{", "[" * 100_000])
def test_a_damaged_mask_model_is_reported_with_its_folder(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "model-1-of-1.safetensors").touch()
    with pytest.raises((CheckpointError, ProposalError), match=str(tmp_path)):
        load_proposer(tmp_path)

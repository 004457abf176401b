"""deop's own format: a loaded model equals the saved one bit by bit, and every entry that does not fit is named."""

import json

import numpy as np
import pytest
import torch

import deop
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.severance import Severance
from deop.errors import CheckpointError, OutputError
from deop.images.preprocessing import IMAGENET, Resize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.proposals.sam import SamProposer
from deop.proposals.transformers_networks import TransformersProposer
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.settings import Card, Settings
from tests.proposals import tiny_networks

SMALL_PROPOSER = MaskFormerConfig(
    depth=50, stem_width=8, width=8, hidden=32, heads=4, ffn=64, decoder_layers=2, queries=7, conv_dim=32, mask_dim=32,
    class_mlp=(32, 48, 32),
)  # fmt: skip


@pytest.fixture
def model(tiny_clip):
    torch.manual_seed(0)
    return DeOP(
        CLIPVision.from_folder(tiny_clip),
        CLIPText.from_folder(tiny_clip),
        MaskFormer(SMALL_PROPOSER),
        anchors=AnchorDecoder(AnchorConfig(32, 4, hidden=64, slots=7)),
        no_object=torch.randn(32),
        settings=Settings(
            Resize(64),
            Severance("gate", (-2, -1), (1.0, 0.2)),
            ("a {}.",),
            temperature=50.0,
            anchors="decoder",
            normalize_patches=True,
            drop_redundant=False,
            padding="inside",
            threshold=0.01,
        ),
        card=Card("small", "CC0-1.0", "a test", "nothing"),
    ).eval()


@pytest.mark.parametrize("kind", ["maskformer", "mask2former", "sam", "sam2"])
def test_every_proposer_of_transformers_is_saved(tiny_clip, tmp_path, kind):
    """SAM has one tensor under two keys, which safetensors refuses."""
    network = getattr(tiny_networks, kind)()
    proposer = (SamProposer if kind.startswith("sam") else TransformersProposer)(network, IMAGENET)
    saved = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip), proposer)
    state = deop.DeOP.from_pretrained(saved.save_pretrained(tmp_path)).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in saved.state_dict().items())


def test_round_trip(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "deep" / "folder")
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    again = deop.DeOP.from_pretrained(folder)
    assert again.settings == model.settings
    assert again.card == model.card
    assert again.encoder.config == model.encoder.config
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected, actual = model.segment(photo, "cat, dog"), again.segment(photo, "cat, dog")
    assert (expected.label_map == actual.label_map).all()
    assert deop.load(folder, device="cpu").settings == model.settings


def test_without_optional_parts(tiny_clip, tmp_path):
    bare = DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip))
    again = DeOP.from_pretrained(bare.save_pretrained(tmp_path))
    assert again.proposer is None
    assert again.anchors is None
    assert again.no_object is None


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_entries_that_do_not_fit_are_named(model, tmp_path):
    folder = model.save_pretrained(tmp_path)
    whole = (folder / "config.json").read_text()
    for change, message in [
        (lambda c: c.update(surplus=1), "surplus is not known"),
        (lambda c: c.pop("anchors"), "anchors is missing"),
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c.update(format="other"), "not of deop's format"),
        (lambda c: c["settings"].update(sevrance=1), "sevrance"),
        (lambda c: c["settings"]["severance"].update(knd="gate"), "knd"),
        (lambda c: c["encoder"]["config"].update(wdith=3), "wdith"),
        (lambda c: c["encoder"].update(kind="other"), "unknown kind of encoder 'other'"),
        (lambda c: c["proposer"].update(kind="other"), "unknown kind of proposer 'other'"),
        (lambda c: c["anchors"].update(layers=2), r"anchors\.layers\.1\.\S+ is missing"),
        (lambda c: c.update(no_object=16), '"no_object" of the config is 16: expected 32 channels'),
        (lambda c: c.update(no_object=10**9), '"no_object" of the config is 1000000000'),  # 4 GB
        (lambda c: c.update(no_object="x"), "expected its number of channels"),
        (lambda c: c.update(encoder={}), "the encoder of the config is"),
        (lambda c: c.update(encoder="clip"), "the encoder of the config is clip"),
        (lambda c: c["encoder"].update(surplus=1), "the encoder of the config is"),
        (lambda c: c.update(text=None), "the text encoder of the config is None"),
        (lambda c: c.update(settings=[]), "JSON object|settings"),
        (lambda c: c["settings"].update(temperature="x"), "'temperature' .* expected a number"),
        (lambda c: c["settings"].update(drop_redundant=1), "'drop_redundant' .* expected true or false"),
        (lambda c: c["encoder"]["config"].update(width=1.5), "'width' .* expected a whole number"),
        (lambda c: c.update(sha256="0" * 64), "damaged or belongs to another model"),
    ]:
        edit(folder, change)
        with pytest.raises(CheckpointError, match=message):
            DeOP.from_pretrained(folder)
        (folder / "config.json").write_text(whole)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\1\0")
    with pytest.raises(CheckpointError, match="damaged"):
        DeOP.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        DeOP.from_pretrained(folder)


def test_models_that_cannot_be_saved(model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write the model"):
        model.save_pretrained(tmp_path / "file")
    model.set_proposer(torch.nn.Identity())
    with pytest.raises(CheckpointError, match="cannot store a Identity"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_push_to_hub_uploads_a_complete_folder(model, monkeypatch):
    import huggingface_hub

    uploaded = {}

    class FakeHub:
        def create_repo(self, repo_id, private, exist_ok):
            uploaded["private"] = private
            return type("Repo", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploaded["model"] = DeOP.from_pretrained(folder_path)
            return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    assert model.push_to_hub("small", private=True) == "https://hub/me/small/commit/1"
    assert uploaded["private"] is True
    assert uploaded["model"].settings == model.settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["encoder"].update(kind=[]), "unknown kind of encoder"),
        (lambda c: c["encoder"]["config"].update(heads=0), "cannot build the model from"),
        (lambda c: c["encoder"]["config"].update(hidden=-1), "cannot build the model from"),
        (lambda c: c["text"]["config"].update(norm_eps=-1), "cannot build the model from"),
        (lambda c: c.update(no_object=True), "no_object"),
    ],
)
def test_errors_of_torch_and_transformers_are_reported_with_the_folder(tiny_clip, tmp_path, change, message):
    DeOP(CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)).save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        DeOP.from_pretrained(tmp_path)

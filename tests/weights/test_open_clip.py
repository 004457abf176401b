"""CLIPs of open_clip: what their configuration says is done, and what nothing says is not guessed."""

import json

import numpy as np
import pytest
import torch

import deop
from deop.errors import CheckpointError, SettingError
from deop.weights.conversion import convert, convert_openai
from deop.weights.open_clip import architecture_of_weights, read_open_clip_config
from tests.tiny import write_tiny_clip
from tests.weights.test_conversion import openai_state, write_open_clip_config


def change_config(folder, **changes):
    """Change the config.json of a transformers CLIP, for both towers."""
    config = json.loads((folder / "config.json").read_text())
    for tower in ("vision_config", "text_config"):
        config[tower] |= changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def open_clip(tmp_path):
    """A folder as open_clip writes it, and the same model in transformers: GELU, 80 channels per head, other norms."""
    from transformers import CLIPModel

    theirs = write_tiny_clip(tmp_path / "theirs", width=320)
    change_config(theirs, hidden_act="gelu", layer_norm_eps=1e-3)
    ours = tmp_path / "ours"
    ours.mkdir()
    torch.save(openai_state(theirs), ours / "open_clip_pytorch_model.bin")
    eps = {"norm_kwargs": {"eps": 1e-3}}
    write_open_clip_config(
        ours, vision={"width": 320, "head_width": 80} | eps, text=eps, quick_gelu=False,
        preprocess={"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]},
    )  # fmt: skip
    return ours, theirs, CLIPModel.from_pretrained(theirs).eval()


def test_a_configuration_beside_the_weights_is_read(open_clip, tmp_path):
    """Features equal those of transformers, which gets the same settings in its own form."""
    ours, tokenizer, theirs = open_clip
    model = deop.load(convert(ours, tmp_path / "out", tokenizer=tokenizer), device="cpu")
    assert (model.encoder.config.heads, model.encoder.config.activation) == (4, "gelu")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
        torch.testing.assert_close(model.encoder(pixels).image, expected, atol=1e-4, rtol=1e-3)
        ids = torch.tensor([[522, 513, 514, 523]])
        expected = theirs.text_projection(theirs.text_model(ids).pooler_output)
        torch.testing.assert_close(model.text.encode_tokens(ids), expected, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(model.encoder.normalization.mean, [127.5, 102, 76.5])
    np.testing.assert_allclose(model.encoder.normalization.std, [51, 63.75, 127.5])
    assert model.card.license == "unknown"
    assert "| licence of the weights | unknown |" in (tmp_path / "out" / "README.md").read_text()


def test_the_licence_is_that_of_the_card_or_of_the_caller(open_clip, tmp_path):
    ours, tokenizer, _ = open_clip
    (ours / "README.md").write_text("---\ntags: [clip]\nlicense: cc-by-nc-4.0\n---\n# A card\nlicense: mit\n")
    assert deop.load(convert(ours, tmp_path / "a", tokenizer=tokenizer)).card.license == "cc-by-nc-4.0"
    given = convert(ours, tmp_path / "b", tokenizer=tokenizer, license="MIT")
    assert deop.load(given).card.license == "MIT"


def test_the_tokenizer_beside_the_weights_is_used(open_clip, tmp_path):
    """No hub is asked: the tests have none."""
    ours, tokenizer, _ = open_clip
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        if (tokenizer / file).is_file():
            (ours / file).write_bytes((tokenizer / file).read_bytes())
    model = deop.load(convert(ours / "open_clip_pytorch_model.bin", tmp_path / "out"), device="cpu")
    assert model.text.count_tokens("cat") == deop.load(tokenizer, device="cpu").text.count_tokens("cat")


def test_prefixes_and_wrappers_of_training_programs_are_removed(open_clip, tmp_path):
    """module. of DataParallel, _orig_mod. of torch.compile, text. of custom_text, n_averaged of AveragedModel."""
    ours, tokenizer, _ = open_clip
    file = ours / "open_clip_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    expected = convert_openai(state, config=ours / "open_clip_config.json").encoder.state_dict()
    custom = {key if key.startswith(("visual.", "logit_")) else f"text.{key}": value for key, value in state.items()}
    cases = {
        "epochs": {
            "epoch": 3,
            "name": "run",
            "optimizer": {},
            "state_dict": {f"module.{k}": v for k, v in state.items()},
        },
        "compiled": {f"_orig_mod.{key}": value for key, value in state.items()},
        "both": {"model": {f"module._orig_mod.{key}": value for key, value in state.items()}},
        "averaged": {"n_averaged": torch.tensor(5)} | {f"module.{key}": value for key, value in state.items()},
        "lightning": {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 1},
        "ema": {"state_dict_ema": state, "epoch": 1},
        "custom_text": custom | {"logit_bias": torch.zeros(1)},
    }
    for name, content in cases.items():
        torch.save(content, file)
        model = deop.load(convert(ours, tmp_path / name, tokenizer=tokenizer), device="cpu")
        assert all(torch.equal(value, expected[key]) for key, value in model.encoder.state_dict().items()), name


def test_without_a_configuration_heads_are_those_of_the_published_models():
    """Heads of open_clip's own configurations: (vision width, text width) -> heads."""
    published = {
        (768, 512): (12, 8),  # ViT-B
        (1024, 768): (16, 12),  # ViT-L
        (1280, 1024): (16, 16),  # ViT-H: 80 channels per head
        (1408, 1024): (16, 16),  # ViT-g: 88
        (1664, 1280): (16, 20),  # ViT-bigG: 104
    }
    for (vision, text), heads in published.items():
        architecture = architecture_of_weights(vision, text, [], "gelu")
        assert (architecture.vision_heads, architecture.text_heads, architecture.activation) == (*heads, "gelu")
    for widths in [(1000, 512), (768, 500)]:
        with pytest.raises(CheckpointError, match=r"heads of the (vision|text) transformer is not known"):
            architecture_of_weights(*widths, [], "gelu")


def test_the_activation_is_not_guessed():
    with pytest.raises(CheckpointError, match=r"--activation quick_gelu .* --activation gelu"):
        architecture_of_weights(768, 512, ["visual.proj"], None)
    assert architecture_of_weights(768, 512, ["visual.proj", "input_resolution"], None).activation == "quick_gelu"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vision": {"timm_model_name": "vit_so400m_patch14_siglip_224"}}, "vit_so400m_patch14_siglip_224' of timm"),
        ({"vision": {"layers": [3, 4, 6, 3]}}, "is a ResNet"),
        ({"text": {"hf_model_name": "xlm-roberta-base"}}, "text tower is 'xlm-roberta-base' of the hub"),
        ({"text": {"hf_tokenizer_name": "bert-base-uncased"}}, "tokenizer is 'bert-base-uncased'"),
        ({"multimodal_cfg": {"width": 768}}, "CoCa"),
        ({"vision": {"attentional_pool": True}}, "vision_cfg.attentional_pool = True"),
        ({"vision": {"pool_type": "avg"}}, "vision_cfg.pool_type = 'avg'"),
        ({"vision": {"no_ln_pre": True}}, "vision_cfg.no_ln_pre = True"),
        ({"vision": {"ls_init_value": 0.1}}, "vision_cfg.ls_init_value = 0.1"),
        ({"vision": {"pos_embed_type": "sin_cos_2d"}}, "vision_cfg.pos_embed_type"),
        ({"text": {"pool_type": "last"}}, "text_cfg.pool_type = 'last'"),
        ({"text": {"no_causal_mask": True}}, "text_cfg.no_causal_mask = True"),
        ({"text": {"act_kwargs": {"approximate": "tanh"}}}, "text_cfg.act_kwargs"),
        ({"invented": 7}, "invented = 7"),
        ({"vision": {"head_width": 30}}, "not a multiple of head_width 30"),
        ({"vision": {"norm_kwargs": {"bias": False}}}, "norm_kwargs has bias"),
        ({"preprocess": {"mean": [0.5], "std": [0.5]}}, "three finite numbers"),
    ],
)
def test_what_cannot_be_run_is_named(changes, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason.replace("[", r"\[")):
        read_open_clip_config(write_open_clip_config(tmp_path, **changes))


def test_settings_that_change_nothing_are_accepted(tmp_path):
    read_open_clip_config(
        write_open_clip_config(
            tmp_path,
            vision={"patch_dropout": 0.5, "pool_type": "tok", "attentional_pool": False, "qk_norm": False},
            text={"hf_tokenizer_name": "openai/clip-vit-base-patch32", "pool_type": "argmax", "eos_id": 2},
            custom_text=True, init_logit_bias=-10, multimodal_cfg=None,
        )
    )  # fmt: skip


def test_the_configuration_of_another_model_is_refused(open_clip, tmp_path):
    ours, tokenizer, _ = open_clip
    for changes, reason in [({}, r"width 64 \(weights: 320\)"), ({"text": {"layers": 3}}, r"layers 3 \(weights: 2\)")]:
        vision = {"width": 320, "head_width": 80} if changes else {}
        other = write_open_clip_config(tmp_path, vision=vision, **changes)
        with pytest.raises(CheckpointError, match=reason):
            convert(ours, tmp_path / "out", tokenizer=tokenizer, config=other)
    (ours / "open_clip_config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="not a configuration of open_clip"):
        convert(ours, tmp_path / "out", tokenizer=tokenizer)
    assert not (tmp_path / "out").exists()


def test_towers_of_other_kinds_are_named_without_a_configuration(tmp_path):
    for key, reason in [("visual.trunk.cls_token", "a model of timm"), ("visual.layer1.0.conv1.weight", "a ResNet")]:
        torch.save({key: torch.zeros(1), "visual.conv1.weight": torch.zeros(1)}, tmp_path / "clip.pt")
        with pytest.raises(CheckpointError, match=reason):
            convert(tmp_path / "clip.pt", tmp_path / "out", activation="gelu")


def test_options_that_do_not_fit_are_refused(open_clip, tmp_path):
    ours, tokenizer, _ = open_clip
    with pytest.raises(SettingError, match="activation is gelu: omit --activation"):
        convert(ours, tmp_path / "out", tokenizer=tokenizer, activation="quick_gelu")
    with pytest.raises(SettingError, match="unknown activation 'relu'"):
        convert(ours, tmp_path / "out", activation="relu")
    folder = tmp_path / "hub"
    write_tiny_clip(folder, layers=1)
    torch.save({"vision_model.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(SettingError, match="--activation is for a CLIP in OpenAI's layout"):
        convert(folder, tmp_path / "out", activation="gelu")

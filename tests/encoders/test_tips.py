"""TIPSv2: the common suites, equality with transformers, registers under severance, layouts, and saved models."""

import json

import numpy as np
import pytest
import torch

from deop.encoders.from_folder import text_from_folder, vision_from_folder
from deop.encoders.severance import Severance
from deop.encoders.tips import TipsVision, TipsVisionConfig
from deop.encoders.tips_keys import read_tips_temperature, read_tips_text_config, read_tips_vision_config
from deop.encoders.tips_text import TipsText
from deop.errors import CheckpointError
from deop.model import DeOP
from deop.severance import PRESETS
from deop.zoo import load
from tests.encoders.suite import EncoderSuite, TextEncoderSuite
from tests.tiny_towers import write_tiny_tips

SMALL = TipsVisionConfig(width=32, layers=3, heads=4, hidden=64, patch=14, grid=4)
SEVERANCES = [one.severance for one in PRESETS.values()] + [
    Severance("affinity", (-2, -1), class_token="severed"),
    Severance("region", (-2, -1), similarity="qk", neighbours=2.0),
]
TEXTS = ["cat", "A photo of a DOG.", "sofa", "wall and ß", ""]


def tower(config=SMALL):
    torch.manual_seed(0)
    return TipsVision(config).eval()


def scene(size=(56, 84), batch=2):
    torch.manual_seed(1)
    masks = 4 * torch.randn(batch, 3, size[0] // 4, size[1] // 4)
    return torch.rand(batch, 3, *size), masks, torch.randn(batch, 8, 8, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_tips(tmp_path_factory.mktemp("tips"))


class TestVision(EncoderSuite):
    half_dtypes = (torch.bfloat16, torch.float16)

    @pytest.fixture
    def encoder(self):
        return tower()


class TestText(TextEncoderSuite):
    @pytest.fixture
    def text(self, folder):
        return text_from_folder(folder)


@pytest.mark.parametrize(
    ("patch", "registers", "swiglu"), [(14, 1, False), (16, 4, False), (14, 1, True)], ids=["B14", "registers", "g14"]
)
@torch.no_grad()
def test_equals_transformers(tmp_path, patch, registers, swiglu):
    from transformers import AutoTokenizer, Tipsv2Model

    folder = write_tiny_tips(tmp_path, patch=patch, registers=registers, swiglu=swiglu)
    theirs, tokenizer = Tipsv2Model.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    vision, text = vision_from_folder(folder), text_from_folder(folder)
    for rows, columns in [(4, 4), (3, 7), (6, 2), (8, 2), (5, 1)]:
        pixels = torch.rand(2, 3, rows * patch, columns * patch)
        if columns > 1:  # torch 2.13 repeats the first row in results of one column
            expected = theirs.get_image_features(pixels)
            features = vision(pixels)
            patches = expected.last_hidden_state[:, 1 + registers :]
            assert (features.patches.flatten(2).mT - patches).abs().max() < 1e-4
            assert (features.image - expected.pooler_output).abs().max() < 1e-4
        assert vision(pixels).patches.shape == (2, 32, rows, columns)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    expected = theirs.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
    assert (text.embed(TEXTS) - expected).abs().max() < 1e-4
    assert read_tips_temperature(folder) == pytest.approx(1 / float(theirs.temperature), rel=1e-6)
    assert vision.normalization.std == (255, 255, 255)


def ids(severance):
    return f"{severance.name}-{severance.similarity}-{severance.class_token}"


@pytest.mark.parametrize("severance", SEVERANCES, ids=ids)
@torch.no_grad()
def test_every_severance_with_registers(severance):
    """Padding and other images have no effect; region tokens, levels and several layers work; N = 0 does."""
    model = tower(TipsVisionConfig(width=32, layers=10, heads=4, hidden=64, patch=14, grid=4, registers=3))
    pixels, masks, proxy = scene()
    options = {"severance": severance, "region_tokens": True}
    together = model(pixels, masks, sizes=[(56, 84), (28, 56)], proxy=proxy, **options)
    alone = model(pixels[1:, :, :28, :56], masks[1:, :, :7, :14], proxy=proxy[1:, :, :4, :8], **options)
    rows, columns = alone.patches.shape[-2:]
    torch.testing.assert_close(together.patches[1:, :, :rows, :columns], alone.patches, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together.image[1:], alone.image, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together.regions[1:], alone.regions, atol=1e-4, rtol=1e-3)
    assert not together.patches[1, :, rows:].any()
    assert model(pixels, masks[:, :0], proxy=proxy, **options).regions.shape == (2, 0, 32)


@torch.no_grad()
def test_without_registers_it_is_an_ordinary_tower_and_their_order_has_no_effect():
    model, none = (
        tower(),
        tower(TipsVisionConfig(width=32, layers=3, heads=4, hidden=64, patch=14, grid=4, registers=0)),
    )
    none.load_state_dict(model.state_dict() | {"register_tokens": torch.zeros(0, 32)})
    pixels, masks, _ = scene()
    severance = Severance("region", (-2, -1), 0.5, similarity="k")
    expected = none(pixels, masks, severance=severance).patches
    difference = (model(pixels, masks, severance=severance).patches - expected).abs().max()
    assert difference > 1e-3  # registers take part in ordinary attention
    several = tower(TipsVisionConfig(width=32, layers=3, heads=4, hidden=64, patch=14, grid=4, registers=2))
    before = several(pixels, masks, severance=severance).patches
    several.register_tokens.data = several.register_tokens.data.flip(0)
    torch.testing.assert_close(several(pixels, masks, severance=severance).patches, before, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_values_of_the_last_block_by_hand():
    """The authors' zero-shot segmentation: the preset ``maskclip``."""
    model = tower()
    pixels, _, _ = scene()
    entering = []
    hook = model.blocks[-1].register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0]))
    actual = model(pixels, severance=PRESETS["maskclip"].severance).patches.flatten(2).mT
    hook.remove()
    x, block = entering[0], model.blocks[-1]
    x = x + block.attention.out(block.attention.values(block.norm1(x)))
    x = x + block.down(block.activation(block.up(block.norm2(x))))
    torch.testing.assert_close(actual, model.norm_post(x)[:, 2:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_region_token_of_the_whole_image_is_the_class_token():
    model = tower()
    pixels, masks, _ = scene()
    masks[:, 1] = 40
    for severance in (None, Severance("region", residual=0.0, similarity="k", mlp=False)):
        features = model(pixels, masks, severance=severance, region_tokens=True)
        torch.testing.assert_close(features.regions[:, 1], features.image, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_windows():
    model = tower()
    pixels, masks, _ = scene()
    severance = Severance("region", residual=0.0, similarity="k", mlp=False)
    expected = model(pixels, masks, severance=severance)
    whole = model(pixels, masks, severance=severance, windows=(84, 42))
    assert torch.equal(whole.patches, expected.patches)
    parts = model(pixels, masks, severance=severance, windows=(56, 28), region_tokens=True)
    assert parts.patches.shape == expected.patches.shape
    assert not torch.allclose(parts.patches, expected.patches, atol=1e-3)
    assert parts.regions.isfinite().all()


@torch.no_grad()
def test_export_with_dynamic_sizes():
    class Severed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = tower()

        def forward(self, pixels, masks, sizes):
            severance = Severance("region", residual=0.0, similarity="k", mlp=False)
            return self.tower(pixels, masks, severance=severance, sizes=sizes).patches

    height, width, count = (torch.export.Dim(name, min=2, max=20) for name in ("height", "width", "count"))
    shapes = ({2: 14 * height, 3: 14 * width}, {1: count, 2: 7 * height, 3: 7 * width}, {})
    module = Severed().eval()
    make = lambda size, masks: (torch.rand(1, 3, *size), torch.randn(1, masks, size[0] // 2, size[1] // 2))  # noqa: E731
    exported = torch.export.export(
        module, (*make((56, 84), 3), torch.tensor([[50, 60]])), dynamic_shapes=shapes
    ).module()
    for size, masks, inside in (((56, 84), 3, (50, 60)), ((42, 140), 5, (42, 140)), ((84, 84), 2, (14, 84))):
        pixels, logits = make(size, masks)
        expected = module(pixels, logits, [inside])
        torch.testing.assert_close(exported(pixels, logits, torch.tensor([inside])), expected, atol=1e-4, rtol=1e-3)


def test_the_layout_of_transformers_own_names(folder, tmp_path):
    """Weights under transformers' names, which ``save_original_format=False`` writes, give the same model."""
    from transformers import Tipsv2Model

    model = Tipsv2Model.from_pretrained(folder)
    model.save_pretrained(tmp_path, save_original_format=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    pixels = torch.rand(1, 3, 56, 56)
    assert torch.equal(vision_from_folder(tmp_path)(pixels).patches, vision_from_folder(folder)(pixels).patches)
    assert torch.equal(text_from_folder(tmp_path).embed(TEXTS), text_from_folder(folder).embed(TEXTS))


@pytest.mark.parametrize(("name", "hidden"), [("vit_so400m", 4304), ("vit_giant2", 4096)])
def test_the_config_of_the_authors_repos(tmp_path, name, hidden):
    width = {"vit_so400m": 1152, "vit_giant2": 1536}[name]
    config = {
        "model_type": "tipsv2", "vision_fn": name, "embed_dim": width, "patch_size": 14, "img_size": 448,
        "num_register_tokens": 1, "ffn_layer": "swiglu" if name == "vit_giant2" else "mlp", "vocab_size": 32000,
        "max_len": 64, "text_hidden_size": width, "text_mlp_dim": 4304, "text_num_heads": 16, "text_num_layers": 27,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    vision = TipsVisionConfig(**read_tips_vision_config(tmp_path))
    assert (vision.width, vision.hidden, vision.grid, vision.registers) == (width, hidden, 32, 1)
    assert vision.activation == ("swiglu" if name == "vit_giant2" else "gelu")
    text = read_tips_text_config(tmp_path)
    assert (text["layers"], text["hidden"], text["context"]) == (27, 4304, 64)
    (tmp_path / "config.json").write_text(json.dumps(config | {"vision_fn": "vit_tiny"}))
    with pytest.raises(CheckpointError, match="unknown vision_fn 'vit_tiny'"):
        read_tips_vision_config(tmp_path)


def test_other_folders_are_refused(folder, tmp_path, tiny_clip):
    with pytest.raises(CheckpointError, match="model type 'clip'"):
        TipsVision.from_folder(tiny_clip)
    with pytest.raises(CheckpointError, match="model type 'clip'"):
        TipsText.from_folder(tiny_clip)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="no weights"):
        TipsVision.from_folder(tmp_path)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        TipsText.from_folder(tmp_path)


def test_a_model_from_the_folder_is_saved_and_loaded(folder, tmp_path):
    model = load(folder, engine="torch")
    assert isinstance(model.encoder, TipsVision)
    assert isinstance(model.text, TipsText)
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    masks = np.zeros((2, 60, 80), bool)
    masks[0, :30], masks[1, 30:] = True, True
    for options in ({}, {"severance": "maskclip"}, {"severance": "none"}):
        expected = model.segment(photo, ["cat", "dog", "wall"], masks=masks, **options)
        again = DeOP.from_pretrained(model.save_pretrained(tmp_path / "saved"))
        actual = again.segment(photo, ["cat", "dog", "wall"], masks=masks, **options)
        assert (actual.label_map == expected.label_map).all()
    assert again.text.identity == model.text.identity

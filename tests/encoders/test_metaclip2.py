"""MetaCLIP 2: the common suites, equality with transformers, its tokenizer, saving, and a model from a folder."""

import pytest
import torch

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.from_folder import text_from_folder, vision_from_folder
from deop.errors import CheckpointError
from deop.model import DeOP
from deop.zoo import load
from tests.encoders.suite import EncoderSuite, TextEncoderSuite
from tests.tiny_towers import write_tiny_metaclip2

TEXTS = ["cat", "a photo of a dog.", "sofa", "wall and ß", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_metaclip2(tmp_path_factory.mktemp("metaclip2"))


class TestVision(EncoderSuite):
    @pytest.fixture
    def encoder(self, folder):
        return vision_from_folder(folder)


class TestText(TextEncoderSuite):
    @pytest.fixture
    def text(self, folder):
        return text_from_folder(folder)


@pytest.mark.parametrize(("patch", "activation"), [(16, "gelu"), (14, "quick_gelu")])
@torch.no_grad()
def test_equals_transformers(tmp_path, patch, activation):
    from transformers import AutoTokenizer, MetaClip2Model

    folder = write_tiny_metaclip2(tmp_path, patch=patch, activation=activation)
    theirs, tokenizer = MetaClip2Model.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    vision, text = vision_from_folder(folder), text_from_folder(folder)
    assert isinstance(vision, CLIPVision)
    assert isinstance(text, CLIPText)
    for rows, columns in [(4, 4), (3, 7)]:
        pixels = torch.randn(2, 3, rows * patch, columns * patch)
        expected = theirs.vision_model(pixels, interpolate_pos_encoding=True)
        patches = theirs.visual_projection(theirs.vision_model.post_layernorm(expected.last_hidden_state[:, 1:]))
        features = vision(pixels)
        assert (features.patches.flatten(2).mT - patches).abs().max() < 1e-4
        assert (features.image - theirs.visual_projection(expected.pooler_output)).abs().max() < 1e-4
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    pooled = theirs.text_model(**tokens).pooler_output
    assert (text.embed(TEXTS) - theirs.text_projection(pooled)).abs().max() < 1e-4


def test_tokens_are_those_of_its_tokenizer(folder):
    text = text_from_folder(folder)
    assert text.config.end_token == 2  # no row of the table is larger: CLIP's rule would find another token
    ids = text._tokenize(["a cat"])[0]
    assert (ids[0], ids[-1]) == (0, 2)
    assert text.count_tokens("a cat") == 4
    assert text.embed(["cat " * 200]).isfinite().all()


def test_a_learned_prompt(folder):
    text = text_from_folder(folder)
    prompt = text.add_prompt(4, 2)
    ids = text._tokenize(["."])[0]
    assert torch.equal(prompt.dot, text._table.weight[[ids[-2]]])
    assert text.embed(["cat", "dog"]).shape == (2, 32)


def test_a_folder_with_the_vision_tower_alone(folder, tmp_path):
    from transformers import MetaClip2Model, MetaClip2VisionModelWithProjection

    MetaClip2VisionModelWithProjection.from_pretrained(folder).save_pretrained(tmp_path)
    assert MetaClip2Model.from_pretrained(folder).config.vision_config.model_type == "metaclip_2_vision_model"
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(vision_from_folder(tmp_path)(pixels).patches, vision_from_folder(folder)(pixels).patches)
    with pytest.raises(CheckpointError, match="'metaclip_2_vision_model'"):
        text_from_folder(tmp_path)


def test_a_model_from_the_folder_is_saved_and_loaded(folder, tmp_path):
    model = load(folder, engine="torch")
    photo, masks = torch.randint(0, 256, (60, 80, 3), dtype=torch.uint8).numpy(), torch.zeros(2, 60, 80).numpy() > 1
    masks[0, :30], masks[1, 30:] = True, True
    expected = model.segment(photo, ["cat", "dog", "wall"], masks=masks)
    again = DeOP.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    actual = again.segment(photo, ["cat", "dog", "wall"], masks=masks)
    assert (actual.label_map == expected.label_map).all()
    assert again.text.identity == model.text.identity

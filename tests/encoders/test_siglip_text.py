"""The text encoder of SigLIP: the common suite, equality with transformers, and errors."""

import json
import shutil

import pytest
import torch

from deop.encoders.from_folder import text_from_folder
from deop.encoders.siglip_text import SiglipText, SiglipTextConfig
from deop.errors import CheckpointError
from tests.encoders.suite import TextEncoderSuite
from tests.tiny import write_tiny_siglip

TEXTS = ["cat", "a photo of a dog.", "sofa", "ein hund, zwölf katzen", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("siglip")
    return {flexible: write_tiny_siglip(root / str(flexible), flexible=flexible) for flexible in (False, True)}


class TestSiglipText(TextEncoderSuite):
    @pytest.fixture
    def text(self, folders):
        return SiglipText.from_folder(folders[True])


@pytest.mark.parametrize("flexible", [False, True], ids=["fixed", "NaFlex"])
@torch.no_grad()
def test_equals_transformers(folders, flexible):
    from transformers import AutoModel, AutoTokenizer

    theirs = AutoModel.from_pretrained(folders[flexible]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[flexible])
    text = text_from_folder(folders[flexible])
    inputs = tokenizer(TEXTS, padding="max_length", max_length=40, truncation=True, return_tensors="pt")
    assert list(inputs) == ["input_ids"]
    assert inputs["input_ids"].shape == (5, 40)
    expected = theirs.get_text_features(**inputs).pooler_output
    assert (text.embed(TEXTS) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_texts_are_padded_cut_and_in_lower_case(folders):
    text = SiglipText.from_folder(folders[False])
    assert text.context_length == 40
    assert text.count_tokens("cat") == 2
    assert text.count_tokens("dog" * 50) == 51
    torch.testing.assert_close(text.embed(["CAT dog"]), text.embed(["cat dog"]))
    torch.testing.assert_close(text.embed(["cat" * 50]), text.embed(["cat" * 39]))
    assert not torch.allclose(text.embed(["cat" * 38]), text.embed(["cat" * 39]))


def test_identity_depends_on_the_tokenizer(folders, tmp_path):
    shutil.copytree(folders[False], tmp_path, dirs_exist_ok=True)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    first, second = SiglipText.from_folder(folders[False]), SiglipText.from_folder(tmp_path)
    assert first.identity != second.identity


def test_errors(folders, tmp_path):
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        SiglipText(SiglipTextConfig(tokens=300, width=8, layers=1, heads=2, hidden=8, output=8)).embed(["cat"])
    (tmp_path / "config.json").write_text((folders[False] / "config.json").read_text())
    with pytest.raises(CheckpointError, match="no tokenizer in"):
        SiglipText.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        SiglipText.from_folder(tmp_path)
    with pytest.raises(CheckpointError, match="unknown activation"):
        SiglipTextConfig(activation="none")
    with pytest.raises(CheckpointError, match="not divisible"):
        SiglipTextConfig(heads=5)


def test_a_tokenizer_of_sentencepiece_that_is_damaged_or_needs_its_library(tmp_path):
    """The first SigLIP has one. Tests run without the library."""
    write_tiny_siglip(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    (tmp_path / "spiece.model").write_bytes(b"damaged")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    with pytest.raises(CheckpointError, match=r"pip install sentencepiece|cannot read the tokenizer"):
        SiglipText.from_folder(tmp_path)

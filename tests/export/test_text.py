"""The text side of exported folders, in torch; tests/export/test_folder.py runs its graphs."""

import json

import pytest
import torch

from deop.encoders.clip_text import CLIPText
from deop.encoders.learned_prompt import LearnedPrompt
from deop.errors import SettingError
from deop.export.text import TextGraph, with_prompt, write_names, write_tokenizer
from deop.tensors import TensorFile
from deop.text.everything_else import COMMON
from tests.export import small
from tests.tiny import write_tiny_clip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_tiny_clip(folder)
    return CLIPText.from_folder(folder)


@pytest.mark.parametrize(("prefix", "suffix"), [(4, 0), (3, 2), (0, 0), (0, 3)])
def test_learned_prompt_around_padded_names(prefix, suffix):
    torch.manual_seed(0)
    prompt = LearnedPrompt(5, prefix, suffix)
    for buffer in (prompt.start, prompt.dot, prompt.end, prompt.pad):
        buffer.normal_()
    names = [torch.randn(count, 5) for count in (1, 3, 0, 6)]
    expected, end = prompt(names)
    length = 2 + max(map(len, names))
    padded = [torch.cat([torch.randn(1, 5), name, torch.randn(length - 1 - len(name), 5)]) for name in names]
    actual, new_end = with_prompt(prompt, torch.stack(padded), torch.tensor([len(name) + 1 for name in names]))
    assert torch.equal(actual, expected)
    assert torch.equal(new_end, end)


@pytest.mark.parametrize("end_token", [None, "known"])
@torch.no_grad()
def test_tokens_after_the_end_have_no_effect(text, end_token, monkeypatch):
    rows = text._tokenize(["a cat", "sofa and a wall", ""])
    if end_token is not None:
        monkeypatch.setattr(text, "config", text.config.__class__(**{**vars(text.config), "end_token": rows[0][-1]}))
    expected = text.embed(["a cat", "sofa and a wall", ""])
    for padding in (0, rows[0][-1]):
        tokens = torch.tensor([row + [padding] * (max(map(len, rows)) - len(row)) for row in rows])
        torch.testing.assert_close(TextGraph(text)(tokens), expected, atol=1e-5, rtol=0)


def test_table_of_names(text, tmp_path):
    model = small.model(text=text, encoder=small.clip(output=text.width))
    vocabulary = model.vocabulary(["wall", "sofa|couch"], background="sky")
    parts = write_names(model, vocabulary, tmp_path / "names.safetensors")
    file = TensorFile(tmp_path / "names.safetensors")
    texts = json.loads(file.metadata["texts"])
    assert texts[:4] == ["wall", "sofa", "couch", "sky"]
    assert set(COMMON) <= set(texts)
    assert (parts.kind, parts.file, parts.width) == ("names", "names.safetensors", text.width)
    expected = model.embed(vocabulary).rows
    torch.testing.assert_close(torch.tensor(file["rows"][:4]), torch.tensor(expected[:4]), atol=1e-6, rtol=0)


def test_tokenizer_is_needed(text, tmp_path):
    with pytest.raises(SettingError, match="--classes"):
        write_tokenizer(CLIPText(text.config), tmp_path / "tokenizer.json")
    write_tokenizer(text, tmp_path / "tokenizer.json")
    from tokenizers import Tokenizer

    texts = ["a cat", "", "sofa, wall! " * 40]
    rows = [one.ids for one in Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(texts)]
    assert rows == text._tokenize(texts)

"""The word table without torch equals the torch encoder: embeddings, identity and what is read."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deop
from deop.encoders.nano_text import NanoText, WordsConfig
from deop.errors import CheckpointError, VocabularyError
from deop.tensors import TensorFile
from deop.text.builtin import builtin_vocabulary
from deop.text.embedding import embed_vocabulary
from deop.text.embedding_cache import EmbeddingCache
from deop.text.words import WordTable

FOLDER = Path(deop.__file__).parent / "assets" / "nano"
WORDS = ("dog", "hot dog", "set", "##tee", "a", "##b")


@pytest.fixture(scope="module")
def table():
    """The table of the model in the package, mapped from its file."""
    file = TensorFile(FOLDER / "model.safetensors")
    return WordTable.from_folder(FOLDER, file["text.rows"], file["text.rows::scale"])


@pytest.fixture(scope="module")
def module():
    return deop.load("nano", engine="torch", device="cpu").text


def direct_mean(module, text):
    """The formula, from the rows of the torch module."""
    return torch.cat([module.rows[module.pieces(text)].double().mean(0), torch.zeros(1, dtype=torch.double)])


def cosine(table, first, second):
    a, b = table.embed([first, second]).astype(np.float64)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


SIMILAR = [  # a text, what it is, and what it is not
    ("a woman smiling", "woman", "smiling"),
    ("smiling woman", "woman", "smiling"),
    ("red double decker bus", "double decker bus", "red"),
    ("cat sleeping on a sofa", "cat", "sofa"),
    ("man with a hat", "man", "hat"),
    ("person riding a bicycle", "person", "bicycle"),
    ("a photo of a cat", "cat", "photo"),
    ("two slices of pizza on a plate", "pizza", "plate"),
    ("a cup of coffee", "cup", "coffee"),
    ("the sky, above the sea", "sky", "sea"),
    ("dog in the park", "dog", "park"),
    ("an old wooden chair", "chair", "wooden"),
    ("my LAPTOP", "laptop", "my"),
]


@pytest.mark.parametrize(("text", "same", "other"), SIMILAR)
def test_a_description_is_like_its_head(table, text, same, other):
    assert cosine(table, text, same) > 0.85
    assert cosine(table, text, same) > cosine(table, text, other) + 0.2


def test_descriptions_with_one_head_differ(table):
    assert 0.8 < cosine(table, "man with a hat", "man with a dog") < 0.999
    assert cosine(table, "man with a dog", "dog") > cosine(table, "man with a hat", "dog")


@pytest.mark.parametrize(
    "text", ["cup", "red cup", "double decker bus", "sofas", "a cup made of xqzzt", "of", "wall-wood"]
)
def test_known_words(table, module, text):
    assert table.knows(text)
    assert module.knows(text)


@pytest.mark.parametrize("text", ["xqzzt", "red xqzzt", "xqzzt on a table", "flibbertigibbet", ""])
def test_words_that_are_read_in_pieces_are_unknown(table, module, text):
    assert not table.knows(text)
    assert not module.knows(text)


def test_identity_is_that_of_the_torch_encoder(table, module):
    """Embeddings that either has cached serve the other."""
    assert re.fullmatch("nano-[0-9a-f]{32}", table.identity)
    assert table.identity == module.identity
    assert table.width == module.width == 257


@pytest.mark.parametrize("source", ["coco", "everyday"])
def test_vocabularies_are_embedded_alike(table, module, source):
    vocabulary = builtin_vocabulary(source)
    first, second = (embed_vocabulary(vocabulary, text) for text in (table, module))
    np.testing.assert_allclose(first.rows, second.rows, atol=1e-6)
    np.testing.assert_array_equal(first.owner, second.owner)


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=20) | st.lists(st.sampled_from(WORDS), min_size=1).map(" ".join))
def test_any_text_is_read_alike(table, module, text):
    assert table.pieces(text) == module.pieces(text)
    assert table.unread(text) == module.unread(text)
    assert table.count_tokens(text) == module.count_tokens(text)
    if table.pieces(text):
        [row] = table.embed([text])
        np.testing.assert_allclose(row, module.embed([text])[0].numpy(), atol=1e-6)
        if len(text.split()) == 1 and text.isascii() and text.isalnum():
            np.testing.assert_allclose(row, direct_mean(module, text).numpy(), atol=1e-6)
    else:
        with pytest.raises(VocabularyError, match="has no letter that this model reads"):
            table.embed([text])


def test_tables_are_not_cached_on_disk(table, tmp_path):
    embed_vocabulary(builtin_vocabulary("cityscapes"), table, cache=EmbeddingCache(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_float_rows(dtype):
    rows = np.arange(12, dtype=dtype).reshape(6, 2)
    table = WordTable(WORDS, rows)
    assert table.embed(["settee", "dog"]).tolist() == [[5, 6, 0], [0, 1, 0]]
    module = NanoText(WordsConfig(6, 2), WORDS)
    module.rows.copy_(torch.from_numpy(rows))
    assert table.identity == module.identity


def test_tables_that_do_not_fit_are_refused():
    rows, scales = np.zeros((6, 2), np.int8), np.ones(6, np.float32)
    assert WordTable(WORDS, rows, scales).embed(["dog"]).tolist() == [[0, 0, 0]]
    for arguments, message in (
        ((WORDS, rows), "cannot have rows"),
        ((WORDS, rows[0], scales), "cannot have rows"),
        ((WORDS, rows.astype(np.float32), scales), "cannot have rows"),
        ((WORDS, rows, scales[:5]), "5 scales for 6 rows"),
        ((WORDS[:5], rows, scales), "5 lines, but the config has 6 entries"),
    ):
        with pytest.raises(CheckpointError, match=message):
            WordTable(*arguments)


def test_a_vocabulary_reads_each_name_once(monkeypatch):
    """Embedding, head, known words and checks ask for the same reading; for 1,000 names this took half of the time."""
    model = deop.load("nano", device="cpu")
    texts = []

    def count(text, parse=model.text._parse):
        texts.append(text)
        return parse(text)

    monkeypatch.setattr(model.text, "_parse", count)
    names = [f"{colour} {thing}" for colour in ("red", "old") for thing in ("cup", "façade")]
    model.embed(model.vocabulary([*names, "sofa|couch"]))
    assert {"red cup", "old façade", "couch"} <= set(texts)
    assert len(texts) == len(set(texts))


def test_readings_are_dropped_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("deop.text.words._MAX_READINGS", 3)
    table = WordTable(["cat", "dog"], np.eye(2, dtype=np.float32))
    for number in range(10):
        assert table.pieces(f"{'cat ' * number}dog") == [0] * number + [1]
        assert len(table._readings) <= 3

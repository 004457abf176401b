"""The word table without torch equals the torch encoder: embeddings, identity and what is read."""

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


def test_identity_is_that_of_the_torch_encoder(table, module):
    """Embeddings that either has cached serve the other. The value is that of earlier releases."""
    assert table.identity == module.identity == "nano-e1a544a663c3bf6691e2d9c8c2b57be2"
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

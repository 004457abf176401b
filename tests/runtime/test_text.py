"""Text encoders of exported models: the text tower with its tokenizer, and the table of names."""

import json

import numpy as np
import pytest

from deop.errors import CheckpointError, MissingDependencyError, VocabularyError
from deop.images.preprocessing import CLIP
from deop.runtime.config import OnnxParts, TextParts
from deop.runtime.text import NameTable, TextTower, read_text_encoder
from tests.tiny import write_tiny_tokenizer

pytest.importorskip("tokenizers")


class Session:
    """Records tokens; the embedding of a text is its number of tokens before padding, and its first token."""

    width, path = 2, "text.onnx"

    def __init__(self, length=None):
        self.length = length
        self.tokens = []

    def run(self, tokens):
        self.tokens.append(tokens)
        return np.stack([(tokens != tokens[:, -1:]).sum(1) + 1, tokens[:, 1]], 1).astype(np.float32)


def parts(**changes):
    text = {"tokenizer": "tokenizer.json", "graph": "text.onnx", "width": 2, "context_length": 12, "identity": "a" * 64}
    return OnnxParts(1, {}, {}, TextParts("clip", **(text | changes)), CLIP)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return folder


TEXTS = [
    "cat",
    "a photo of a sofa.",
    "Wall",
    "  two   spaces ",
    "wall wall wall wall wall wall wall wall wall",
    "é☕",
    "",
]


@pytest.mark.parametrize("length", [None, 12])
def test_tokens_are_those_of_torch(tokenizer, length):
    from deop.encoders.text_tower import read_tokenizer

    session = Session(length)
    tower = TextTower((tokenizer / "tokenizer.json").read_bytes(), parts(), lambda: session)  # type: ignore[return-value]
    rows = tower.embed(TEXTS)
    reference = read_tokenizer(tokenizer)(TEXTS)["input_ids"]
    end = reference[0][-1]
    (tokens,) = session.tokens
    assert tokens.dtype == np.int64
    assert tokens.shape == (len(TEXTS), 12)
    for row, expected in zip(tokens.tolist(), reference, strict=True):
        cut = expected if len(expected) <= 12 else [*expected[:11], end]
        assert row == cut + [end] * (12 - len(cut))
    assert rows.shape == (len(TEXTS), 2)
    assert [tower.count_tokens(text) for text in TEXTS] == [len(row) for row in reference]
    assert tower.embed([]).shape == (0, 2)


def test_names_that_are_too_long_are_reported(tokenizer):
    from deop.text.embedding import embed_vocabulary
    from deop.text.vocabulary import Vocabulary, VocabularyWarning

    tower = TextTower((tokenizer / "tokenizer.json").read_bytes(), parts(), Session)
    with pytest.warns(VocabularyWarning, match="reads only 12"):
        embed_vocabulary(Vocabulary.parse("cat, wall wall wall wall wall wall wall wall wall wall wall wall"), tower)


def test_damaged_tokenizers_and_graphs_of_other_models(tokenizer):
    with pytest.raises(CheckpointError, match=r"cannot read tokenizer\.json"):
        TextTower(b"{}", parts(), Session).embed(["cat"])
    with pytest.raises(CheckpointError, match="the text tower of another model"):
        TextTower((tokenizer / "tokenizer.json").read_bytes(), parts(width=3), Session).embed(["cat"])


def test_without_tokenizers(tokenizer, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match="pip install tokenizers"):
        TextTower((tokenizer / "tokenizer.json").read_bytes(), parts(), Session).embed(["cat"])


def write_table(path, texts=("cat", "sofa", "Wall"), metadata=None):
    """A table in the format of safetensors, written by hand."""
    rows = np.arange(3 * 2, dtype="<f4").reshape(3, 2)
    entry = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [0, rows.nbytes]}
    header = json.dumps(
        {"__metadata__": {"texts": json.dumps(texts)} if metadata is None else metadata, "rows": entry}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + rows.tobytes())
    return path


def test_a_table_of_names(tmp_path):
    table = NameTable(write_table(tmp_path / "names.safetensors"))
    assert table.width == 2
    assert table.embed(["Wall", "cat", "WALL", "Sofa"]).tolist() == [[4, 5], [0, 1], [4, 5], [2, 3]]
    assert table.embed([]).shape == (0, 2)
    assert table.count_tokens("wall") == 1
    with pytest.raises(VocabularyError, match=r"exported with 3 names, and 'dog' are not among them: export it again"):
        table.embed(["cat", "dog"])
    with pytest.raises(VocabularyError, match=r"'g' and 2 more are not"):
        table.embed(list("cdefghi"))


@pytest.mark.parametrize("metadata", [{}, {"texts": "["}, {"texts": "{}"}, {"texts": '["cat"]'}, {"texts": 3}])
def test_tables_that_cannot_be_used(tmp_path, metadata):
    with pytest.raises(CheckpointError, match="export the model again"):
        NameTable(write_table(tmp_path / "names.safetensors", metadata=metadata))


def test_a_table_of_another_width(tmp_path):
    write_table(tmp_path / "names.safetensors")
    section = OnnxParts(1, {}, {}, TextParts("names", file="names.safetensors", width=9), CLIP)
    with pytest.raises(CheckpointError, match="has 2 channels, and the config says 9"):
        read_text_encoder(tmp_path, section, Session)

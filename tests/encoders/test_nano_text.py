"""The text encoder of the small model: the common suite, and how texts are split."""

import string

import pytest
import torch

import deop
from deop.encoders import nano_text
from deop.encoders.nano_text import NanoText, WordsConfig
from deop.errors import CheckpointError, VocabularyError
from tests.encoders.suite import TextEncoderSuite

WORDS = ("dog", "hot dog", "set", "##tee", "a", "##b")


@pytest.fixture
def table():
    text = NanoText(WordsConfig(len(WORDS), len(WORDS)), WORDS)
    text.rows.copy_(torch.eye(len(WORDS)))
    return text


class TestNanoText(TextEncoderSuite):
    @pytest.fixture
    def text(self):
        words = ("cat", "dog", "a", "sofa", "and", "##s")
        text = NanoText(WordsConfig(len(words), 8), words)
        text.rows.copy_(torch.randn(len(words), 8, generator=torch.Generator().manual_seed(0)))
        return text


def test_longest_phrase_first(table):
    assert table.pieces("Hot dog, dog") == [1, 0]


def test_unknown_words_are_split_into_pieces(table):
    assert table.pieces("settee") == [2, 3]
    assert table.pieces("ab") == [4, 5]


def test_embedding_is_the_mean_of_the_pieces_and_a_zero(table):
    rows = table.embed(["settee", "dog"])
    assert rows[0].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert rows[1].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert rows.shape[1] == table.width


def test_texts_without_a_known_word_raise(table):
    with pytest.raises(VocabularyError, match="'猫' has no letter that this model reads"):
        table.embed(["dog", "猫"])


@pytest.mark.parametrize("text", ["döG", "\uff44\uff4f\uff47", "dog!", "«dog»"])
def test_letters_are_folded(table, text):
    assert table.pieces(text) == [0]
    assert table.unread(text) == ""


@pytest.mark.parametrize(
    ("text", "unread"),
    [("猫 dog", "猫"), ("dog ☕☕", "☕"), ("кот", "кот"), ("setx", "x"), ("dog 7", "7"), ("dog", "")],
)
def test_letters_without_a_row_are_unread(table, text, unread):
    assert table.unread(text) == unread


def test_words_of_the_model_in_the_package_cover_latin_letters_and_digits():
    """Every letter with an accent is read; before, "façade" was read as "fa", "ad" and "e"."""
    text = deop.load("nano", engine="torch").text
    assert [text.words[row] for row in text.pieces("façade")] == ["facade"]
    assert text.pieces("Crème brûlée") == text.pieces("creme brulee")
    letters = string.ascii_letters + string.digits + "àçéîñöüßøåæœłđþ"
    assert text.unread(" ".join(letters)) == text.unread(letters) == ""


def test_embeddings_that_were_cached_before_folding_are_not_used(table, monkeypatch):
    before = table.identity
    monkeypatch.setattr(nano_text, "READING", "other")
    assert NanoText(table.config, WORDS).identity != before


def test_word_list_is_saved_and_checked(table, tmp_path):
    table.save_tokenizer(tmp_path)
    assert NanoText.from_config(table.config_dict(), tmp_path).words == WORDS
    with pytest.raises(CheckpointError, match="6 lines, but the config has 7 entries"):
        NanoText.from_config({"entries": 7}, tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read .*words\.txt"):
        NanoText.from_config({"entries": 6}, tmp_path / "nowhere")


def test_a_word_list_in_another_encoding_is_reported(tmp_path):
    table = NanoText(WordsConfig(len(WORDS), len(WORDS)), WORDS)
    table.save_tokenizer(tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes("Bär\n".encode("latin-1"))
    with pytest.raises(CheckpointError, match=path.name):
        NanoText.from_config(table.config_dict(), tmp_path)

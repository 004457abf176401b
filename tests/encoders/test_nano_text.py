import pytest
import torch

from deop.encoders.nano_text import NanoText, WordsConfig
from deop.errors import CheckpointError, VocabularyError

WORDS = ("dog", "hot dog", "set", "##tee", "a", "##b")


@pytest.fixture
def table():
    text = NanoText(WordsConfig(len(WORDS), len(WORDS)), WORDS)
    text.rows.copy_(torch.eye(len(WORDS)))
    return text


def test_longest_phrase_first(table):
    assert table.pieces("Hot dog, dog") == [1, 0]


def test_unknown_words_by_pieces(table):
    assert table.pieces("settee") == [2, 3]
    assert table.pieces("ab") == [4, 5]


def test_mean_of_pieces_with_nothing_in_the_constant_s_place(table):
    rows = table.embed(["settee", "dog"])
    assert rows[0].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert rows[1].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert rows.shape[1] == table.width


def test_what_cannot_be_read_is_refused(table):
    with pytest.raises(VocabularyError, match="'猫' has no word"):
        table.embed(["dog", "猫"])


def test_words_lie_beside_the_weights(table, tmp_path):
    table.save_tokenizer(tmp_path)
    again = NanoText.from_config(table.config_dict(), tmp_path)
    again.load_state_dict(table.state_dict())
    assert again.words == WORDS
    assert again.identity == table.identity
    with pytest.raises(CheckpointError, match="6 lines, the config says 7"):
        NanoText.from_config({"entries": 7}, tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read .*words\.txt"):
        NanoText.from_config({"entries": 6}, tmp_path / "nowhere")

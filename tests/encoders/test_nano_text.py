import numpy as np

from deop.encoders.nano_text import WordTable

WORDS = ("dog", "hot dog", "set", "##tee", "a", "##b")
TABLE = WordTable(np.eye(len(WORDS), dtype=np.float32), WORDS)


def test_longest_phrase_first():
    assert TABLE.pieces("Hot dog, dog") == [1, 0]


def test_unknown_words_by_pieces():
    assert TABLE.pieces("settee") == [2, 3]
    assert TABLE.pieces("ab") == [4, 5]


def test_mean_of_pieces_and_nothing_for_nothing():
    rows = TABLE.embed(["settee", "?", "dog"])
    assert rows[0].tolist() == [0, 0, 0.5, 0.5, 0, 0]
    assert rows[1].abs().sum() == 0
    assert rows[2, 0] == 1

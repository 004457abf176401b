"""The text encoder of the small model without torch: a table of words, word pieces and phrases (docs/nano.md)."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deop.errors import CheckpointError, VocabularyError
from deop.text.descriptions import PUNCTUATION, weigh
from deop.text.folding import fold, unread_letters

WORDS = "words.txt"
"""File name of the word list: line i names row i of the table."""

READING = "letters are folded, heads count most"
"""Part of the hash: embeddings that earlier releases cached, which read texts differently, are not used."""

_UNITS = re.compile(rf"[a-z0-9'-]+|[{PUNCTUATION}]")

_PLURALS = {"##s", "##es"}

_HASHED_ROWS = 4096  # rows that are converted to float32 at once
_MAX_READINGS = 1 << 15
"""Texts whose reading is kept. A vocabulary asks for the reading of each of its texts up to five times."""


class Reading(NamedTuple):
    """What a ``WordReader`` reads in a text.

    Attributes:
        units: the words, phrases and punctuation marks with their rows in the table; punctuation has none. Words of
            which nothing is read are left out.
        weights: how much each unit counts.
        unread: the letters, digits and signs that are not part of any unit, each once.
    """

    units: tuple[tuple[str, tuple[int, ...]], ...]
    weights: tuple[float, ...]
    unread: str


class WordReader:
    """Reads texts as words, word pieces ("##ing") and phrases of a list; ``vectors`` of a subclass gives their vectors.

    Texts are folded first: "Façade" is read as "facade" (``deop.text.folding``). The head of a description counts more
    than the other words (``deop.text.descriptions``).

    Args:
        words: the word, word piece or phrase of each row.
    """

    uses_templates = False
    context_length = 1 << 20
    """Maximum number of words of a text: in practice there is no limit."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.index = {word: number for number, word in enumerate(self.words)}
        self.longest = max((word.count(" ") + 1 for word in self.words), default=1)
        self._readings: dict[str, Reading] = {}

    def vectors(self, pieces: list[int]) -> np.ndarray:
        """The vectors (p, D) float32 of p rows of the table, D >= 1."""
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        """Number of vectors that a text is read as."""
        return len(self.pieces(text))

    def means(self, texts: Sequence[str], width: int) -> np.ndarray:
        """The embeddings of n texts, (n, width) float32, not normalised.

        The embedding of a text is the weighted sum of the vectors of its words and phrases; that of an unknown word is
        the mean of its pieces. Channels that the table lacks are 0: images have a constant channel there.

        Raises:
            VocabularyError: a text without a known word, because it has no Latin letter and no digit.
        """
        rows = np.zeros((len(texts), width), np.float32)
        weighted = [self.weighted_pieces(text) for text in texts]
        for text, (pieces, _) in zip(texts, weighted, strict=True):
            if not pieces:
                raise VocabularyError(
                    f"{text!r} has no letter that this model reads: use English words, or a CLIP model (--model)"
                )
        if not weighted:
            return rows
        vectors = self.vectors([row for pieces, _ in weighted for row in pieces])  # at once: a call takes microseconds
        start = 0
        for number, (pieces, weights) in enumerate(weighted):
            rows[number, : vectors.shape[1]] = np.array(weights, np.float32) @ vectors[start : start + len(pieces)]
            start += len(pieces)
        return rows

    def weighted_pieces(self, text: str) -> tuple[list[int], list[float]]:
        """The rows of a text whose weight is not 0, and their weights."""
        reading = self.read(text)
        pieces: list[int] = []
        weights: list[float] = []
        for (_, rows), weight in zip(reading.units, reading.weights, strict=True):
            if rows and weight:
                pieces += rows
                weights += [weight / len(rows)] * len(rows)
        return pieces, weights

    def knows(self, text: str) -> bool:
        """Whether the words of a text that count most are in the list; else they are read in pieces, which mean little.

        A known word with the ending of a plural is known.
        """
        heads = self._heads(text)
        parts = {self.words[row] for _, rows in heads for row in rows if self.words[row].startswith("##")}
        return bool(heads) and parts <= _PLURALS

    def head(self, text: str) -> str:
        """The word or phrase of a description that counts most, without the ending of a plural; "" if it has no head.

        >>> WordReader(["woman", "cat", "##s"]).head("two smiling cats"), WordReader(["woman"]).head("a woman smiling")
        ('cat', 'woman')
        """
        heads = self._heads(text)
        if len(heads) != 1:
            return ""
        [(name, rows)] = heads
        return self.words[rows[0]] if len(rows) > 1 and {self.words[row] for row in rows[1:]} <= _PLURALS else name

    def _heads(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words or phrases of a text that count most, with their rows: its head, or all if it has none."""
        reading = self.read(text)
        most = max(reading.weights, default=0.0)
        pairs = zip(reading.units, reading.weights, strict=True)
        return [unit for unit, weight in pairs if unit[1] and weight == most > 0]

    def unread(self, text: str) -> str:
        """The letters, digits and signs of a text that have no effect on its embedding, each once."""
        return self.read(text).unread

    def pieces(self, text: str) -> list[int]:
        """Split a text into rows of the table: the longest known phrases from the left, unknown words in pieces."""
        return [row for _, rows in self.read(text).units for row in rows]

    def read(self, text: str) -> Reading:
        """What is read in a text; kept, because the table never changes."""
        reading = self._readings.get(text)
        if reading is None:
            units, unread = self._parse(text)
            reading = Reading(units, tuple(weigh([name for name, _ in units])), unread)
            if len(self._readings) >= _MAX_READINGS:
                self._readings = {}  # another thread may still read the old dictionary
            self._readings[text] = reading
        return reading

    def _parse(self, text: str) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], str]:
        """The units of a text with their rows, and the letters that are not part of any; as in ``Reading``."""
        folded = fold(text)
        words = _UNITS.findall(folded)
        units: list[tuple[str, tuple[int, ...]]] = []
        unread = unread_letters(folded)
        position = 0
        while position < len(words):
            for length in range(min(self.longest, len(words) - position), 0, -1):
                name = " ".join(words[position : position + length])
                phrase = self.index.get(name)
                if phrase is not None and name not in PUNCTUATION:
                    units.append((name, (phrase,)))
                    position += length
                    break
            else:
                word = words[position]
                rows: list[int] = []
                for part in re.findall(r"[a-z]+|[0-9]", word):
                    known, rest = self._split(part)
                    rows += known
                    unread += rest
                if rows or word in PUNCTUATION:
                    units.append((word, tuple(rows)))
                position += 1
        return tuple(units), "".join(dict.fromkeys(unread))

    def _split(self, word: str) -> tuple[list[int], str]:
        """Split a word greedily into the longest known word pieces, up to the first letter without one."""
        pieces: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = self.index.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    pieces.append(piece)
                    start = end
                    break
            else:
                break
        return pieces, word[start:]

    def save_tokenizer(self, folder: Path) -> None:
        """Write the word list into a folder."""
        (folder / WORDS).write_text("\n".join(self.words) + "\n", encoding="utf-8")


class WordTable(WordReader):
    """A word list with its vectors, which do not change: the text encoder of the small model where torch is missing.

    Args:
        words: the word, word piece or phrase of each row.
        rows: (entries, D) float, or int8 with ``scales``. Not copied: it may be mapped from a file.
        scales: (entries,) float32, the factor of each row of int8.

    Raises:
        CheckpointError: shapes or dtypes that do not fit together.
    """

    is_table = True
    """Rows never change and are only looked up: a cache on disk, and the hash that is its key, would take longer."""

    def __init__(self, words: Sequence[str], rows: np.ndarray, scales: np.ndarray | None = None) -> None:
        super().__init__(words)
        if rows.ndim != 2 or rows.dtype.kind != ("f" if scales is None else "i"):
            raise CheckpointError(f"a word table cannot have rows {rows.shape} {rows.dtype}: fetch the folder again")
        check_count(len(self.words), len(rows))
        if scales is not None and scales.shape != rows.shape[:1]:
            raise CheckpointError(f"{len(scales)} scales for {len(rows)} rows of words: fetch the folder again")
        self.rows, self.scales = rows, scales
        self._identity: str | None = None

    @property
    def width(self) -> int:
        """Channels C of the joint space: those of the rows, and the constant channel of the vision encoder."""
        return self.rows.shape[1] + 1

    @property
    def identity(self) -> str:
        """Hash of the words and their vectors in float32, and of how texts are read: that of the torch encoder."""
        if self._identity is None:
            digest = hashlib.sha256("".join(f"{word}\n" for word in (READING, *self.words)).encode())
            digest.update(f"rows torch.float32 {self.rows.shape}".encode())
            for start in range(0, len(self.rows), _HASHED_ROWS):
                rows = np.ascontiguousarray(self._floats(slice(start, start + _HASHED_ROWS)), "<f4")
                digest.update(rows.data)
            self._identity = f"nano-{digest.hexdigest()[:32]}"
        return self._identity

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embed n English texts: (n, C) float32, not normalised; the last channel is 0.

        Raises:
            VocabularyError: a text without a known word, because it has no Latin letter and no digit.
        """
        return self.means(texts, self.width)

    def vectors(self, pieces: list[int]) -> np.ndarray:
        """The vectors (p, D) float32 of p rows."""
        return self._floats(pieces)

    def _floats(self, part: slice | list[int]) -> np.ndarray:
        rows = self.rows[part].astype(np.float32)
        return rows if self.scales is None else rows * self.scales[part].astype(np.float32)[:, None]

    @classmethod
    def from_folder(cls, folder: Path, rows: np.ndarray, scales: np.ndarray | None = None) -> "WordTable":
        """The word list of a folder, with the vectors that the caller has read.

        Raises:
            CheckpointError: no word list, or one of another length.
        """
        return cls(read_words(folder), rows, scales)


def read_words(folder: Path) -> list[str]:
    """The word list of a folder.

    Raises:
        CheckpointError: the file is missing or not UTF-8.
    """
    try:
        return (folder / WORDS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {folder / WORDS}: {error}. Fetch the folder again.") from error


def check_count(words: int, entries: int) -> None:
    """Check that a word list and a table have the same length.

    Raises:
        CheckpointError: they do not.
    """
    if words != entries:
        raise CheckpointError(
            f"{WORDS} has {words} lines, but the config has {entries} entries: fetch the folder again"
        )

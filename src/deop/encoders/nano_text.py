"""The text encoder of the small model: a static table of words, word pieces and phrases, similar to model2vec."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.folding import fold, unread_letters
from deop.errors import CheckpointError, VocabularyError
from deop.networks.state_hash import StateHash

WORDS = "words.txt"
"""File name of the word list: line i names row i of the table."""

_READING = "letters are folded"
"""Part of the hash: embeddings that earlier releases cached for names with accents are not used."""


@dataclass(frozen=True)
class WordsConfig:
    """Sizes of the table.

    Attributes:
        entries: rows.
        width: dimensions of the text space.
    """

    entries: int
    width: int = 256


class NanoText(nn.Module):
    """Vectors of words, word pieces ("##ing") and phrases; the embedding of a text is the mean of its vectors.

    Texts are folded first: "Façade" is read as "facade" (``deop.encoders.folding``).

    Args:
        config: sizes of the table; its rows are 0 until weights are loaded.
        words: the word, word piece or phrase of each row.

    Raises:
        CheckpointError: the number of words is not that of the config.
    """

    kind = "nano"
    uses_templates = False
    context_length = 1 << 20
    """Maximum number of words of a text: in practice there is no limit."""
    rows: Tensor
    """(entries, width)"""

    def __init__(self, config: WordsConfig, words: Sequence[str]) -> None:
        super().__init__()
        if len(words) != config.entries:
            raise CheckpointError(
                f"{WORDS} has {len(words)} lines, but the config has {config.entries} entries: fetch the folder again"
            )
        self.config, self.words = config, tuple(words)
        self.index = {word: number for number, word in enumerate(words)}
        self.longest = max((word.count(" ") + 1 for word in words), default=1)
        self.register_buffer("rows", torch.zeros(config.entries, config.width))
        self._hash = StateHash()

    @property
    def width(self) -> int:
        """Channels C of the joint space: those of the text space, and the constant channel of the vision encoder."""
        return self.config.width + 1

    @property
    def identity(self) -> str:
        """Hash of the words and their vectors, in their dtype, and of how texts are read."""
        words = (f"{word}\n".encode() for word in (_READING, *self.words))
        return f"nano-{self._hash.digest(self.state_dict(), key=self.words, prefix=words)[:32]}"

    def count_tokens(self, text: str) -> int:
        """Number of vectors whose mean is the embedding of a text."""
        return len(self.pieces(text))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: n texts, in English.

        Returns:
            (n, C) float32, not normalised; the last channel is 0.

        Raises:
            VocabularyError: a text without a known word, because it has no Latin letter and no digit.
        """
        rows = self.rows.new_zeros(len(texts), self.config.width, dtype=torch.float32)
        for number, text in enumerate(texts):
            pieces = self.pieces(text)
            if not pieces:
                raise VocabularyError(
                    f"{text!r} has no letter that this model reads: use English words, or a CLIP model (--model)"
                )
            rows[number] = self.rows[pieces].float().mean(0)
        return F.pad(rows, (0, 1))

    def unread(self, text: str) -> str:
        """The letters, digits and signs of a text that have no effect on its embedding, each once."""
        return self._read(text)[1]

    def pieces(self, text: str) -> list[int]:
        """Split a text into rows of the table: the longest known phrases from the left, unknown words in pieces."""
        return self._read(text)[0]

    def _read(self, text: str) -> tuple[list[int], str]:
        """The rows of a text, and the letters that are not part of any."""
        folded = fold(text)
        words = re.findall(r"[a-z0-9'-]+", folded)
        pieces: list[int] = []
        unread = unread_letters(folded)
        position = 0
        while position < len(words):
            for length in range(min(self.longest, len(words) - position), 0, -1):
                phrase = self.index.get(" ".join(words[position : position + length]))
                if phrase is not None:
                    pieces.append(phrase)
                    position += length
                    break
            else:
                for part in re.findall(r"[a-z]+|[0-9]", words[position]):
                    known, rest = self._split(part)
                    pieces += known
                    unread += rest
                position += 1
        return pieces, "".join(dict.fromkeys(unread))

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

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: Path) -> "NanoText":
        """Create an encoder without vectors from the values of ``config_dict`` and the word list of a folder.

        Raises:
            CheckpointError: an unknown entry or value, or no word list.
        """
        try:
            words = (folder / WORDS).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot read {folder / WORDS}: {error}. Fetch the folder again.") from error
        return cls(from_json(WordsConfig, values, "the word table"), words)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the word list into a folder."""
        (folder / WORDS).write_text("\n".join(self.words) + "\n", encoding="utf-8")

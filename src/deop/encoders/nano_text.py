"""The small model's text side: a static table of words, word pieces and known phrases, in the style of model2vec."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.errors import CheckpointError, VocabularyError

WORDS = "words.txt"
"""The file beside the weights that says, line by line, which row is whose."""


@dataclass(frozen=True)
class WordsConfig:
    """The size of a table."""

    entries: int  # rows
    width: int = 256  # dimensions of the text space


class NanoText(nn.Module):
    """Vectors of words, of word pieces ("##ing") and of phrases; a text is the mean of what it is made of."""

    kind = "nano"
    uses_templates = False
    context_length = 1 << 20  # words; there is no limit
    rows: Tensor  # (entries, width)

    def __init__(self, config: WordsConfig, words: Sequence[str]) -> None:
        """``words``: what each row stands for; the rows themselves are weights, zero until they are loaded."""
        super().__init__()
        if len(words) != config.entries:
            raise CheckpointError(f"{WORDS} has {len(words)} lines, the config says {config.entries}")
        self.config, self.words = config, tuple(words)
        self.index = {word: number for number, word in enumerate(words)}
        self.longest = max((word.count(" ") + 1 for word in words), default=1)
        self.register_buffer("rows", torch.zeros(config.entries, config.width))

    @property
    def width(self) -> int:
        """Channels C of the joint space: the text's and the constant of the encoder, which names have as 0."""
        return self.config.width + 1

    @cached_property
    def identity(self) -> str:
        """Changes with the table."""
        digest = hashlib.sha256("\n".join(self.words).encode())
        digest.update(self.rows.float().cpu().numpy().tobytes())
        return f"nano-{digest.hexdigest()[:32]}"

    def count_tokens(self, text: str) -> int:
        """Rows that a text is the mean of."""
        return len(self.pieces(text))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(n, C) float32, the mean of the vectors of what each text is made of; not normalised.

        Raises:
            VocabularyError: a text of which nothing is known, because it has no Latin letter and no digit.
        """
        rows = self.rows.new_zeros(len(texts), self.config.width, dtype=torch.float32)
        for number, text in enumerate(texts):
            found = self.pieces(text)
            if not found:
                raise VocabularyError(
                    f"{text!r} has no word that this model can read: it knows English, in Latin letters"
                )
            rows[number] = self.rows[found].float().mean(0)
        return F.pad(rows, (0, 1))

    def pieces(self, text: str) -> list[int]:
        """Rows of the longest known phrases of the text, from the left; unknown words by pieces."""
        words = re.findall(r"[a-z0-9'-]+", text.lower())
        found: list[int] = []
        at = 0
        while at < len(words):
            for length in range(min(self.longest, len(words) - at), 0, -1):
                phrase = self.index.get(" ".join(words[at : at + length]))
                if phrase is not None:
                    found.append(phrase)
                    at += length
                    break
            else:
                for part in re.findall(r"[a-z]+|[0-9]", words[at]):
                    whole = self.index.get(part)
                    found.extend([whole] if whole is not None else self._split(part))
                at += 1
        return found

    def _split(self, word: str) -> list[int]:
        """Greedy longest word pieces."""
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = self.index.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    found.append(piece)
                    start = end
                    break
            else:
                return found
        return found

    def config_dict(self) -> dict[str, Any]:
        """The settings, as JSON would have them."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: Path) -> "NanoText":
        """An empty table of the words that lie in a folder.

        Raises:
            CheckpointError: settings that are not known, or no list of words.
        """
        try:
            words = (folder / WORDS).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise CheckpointError(f"cannot read {folder / WORDS}: {error.strerror or error}") from error
        return cls(from_json(WordsConfig, values, "the table of words"), words)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the list of words."""
        (folder / WORDS).write_text("\n".join(self.words) + "\n", encoding="utf-8")

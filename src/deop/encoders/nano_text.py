"""The text encoder of the small model: a static table of words, word pieces and phrases, similar to model2vec."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deop.config import from_json
from deop.networks.state_hash import StateHash
from deop.text.words import READING, WordReader, check_count, read_words


@dataclass(frozen=True)
class WordsConfig:
    """Sizes of the table.

    Attributes:
        entries: rows.
        width: dimensions of the text space.
    """

    entries: int
    width: int = 256


class NanoText(nn.Module, WordReader):
    """``deop.text.words`` as a module, whose vectors can be loaded, trained and moved.

    Args:
        config: sizes of the table; its rows are 0 until weights are loaded.
        words: the word, word piece or phrase of each row.

    Raises:
        CheckpointError: the number of words is not that of the config.
    """

    kind = "nano"
    rows: Tensor
    """(entries, width)"""

    def __init__(self, config: WordsConfig, words: Sequence[str]) -> None:
        nn.Module.__init__(self)
        WordReader.__init__(self, words)
        check_count(len(self.words), config.entries)
        self.config = config
        self.register_buffer("rows", torch.zeros(config.entries, config.width))
        self._hash = StateHash()

    @property
    def width(self) -> int:
        """Channels C of the joint space: those of the text space, and the constant channel of the vision encoder."""
        return self.config.width + 1

    @property
    def identity(self) -> str:
        """Hash of the words and their vectors, in their dtype, and of how texts are read."""
        words = (f"{word}\n".encode() for word in (READING, *self.words))
        return f"nano-{self._hash.digest(self.state_dict(), key=self.words, prefix=words)[:32]}"

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: n texts, in English.

        Returns:
            (n, C) float32, not normalised, without gradients; the last channel is 0.

        Raises:
            VocabularyError: a text without a known word, because it has no Latin letter and no digit.
        """
        return torch.from_numpy(self.means(texts, self.width)).to(self.rows.device)

    def vectors(self, pieces: list[int]) -> np.ndarray:
        """The vectors (p, width) float32 of p rows."""
        return self.rows[pieces].detach().float().cpu().numpy()

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: Path) -> "NanoText":
        """Create an encoder without vectors from the values of ``config_dict`` and the word list of a folder.

        Raises:
            CheckpointError: an unknown entry or value, or no word list.
        """
        words = read_words(folder)
        return cls(from_json(WordsConfig, values, "the word table"), words)

"""The small model's text side: a static table of words, word pieces and known phrases, in the style of model2vec."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class WordTable:
    """Vectors of words, of word pieces ("##ing") and of phrases of several words."""

    rows: np.ndarray  # (M, C) float32
    words: tuple[str, ...]  # (M,)

    def __post_init__(self) -> None:
        index = {word: number for number, word in enumerate(self.words)}
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "longest", max(word.count(" ") + 1 for word in self.words))

    index: dict[str, int] = None  # type: ignore[assignment]
    longest: int = 1

    @property
    def width(self) -> int:
        """Dimensions of the text space."""
        return self.rows.shape[1]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(n, C) float32, the mean of the vectors of what a text is made of; not normalised."""
        rows = np.zeros((len(texts), self.width), np.float32)
        for number, text in enumerate(texts):
            if found := self.pieces(text):
                rows[number] = self.rows[found].mean(0)
        return torch.from_numpy(rows)

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

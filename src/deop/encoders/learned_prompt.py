"""A learned prompt: trained vectors around a name, instead of a sentence (docs/method.md §4, "Learnable prompt")."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LearnedPrompt(nn.Module):
    """Vectors shared by all names: [start] prefix [name] suffix [.] [end] [pad...].

    Args:
        width: channels of the text encoder.
        prefix: vectors before the name.
        suffix: vectors after the name.
    """

    start: Tensor
    dot: Tensor
    end: Tensor
    pad: Tensor

    def __init__(self, width: int, prefix: int = 16, suffix: int = 0) -> None:
        super().__init__()
        self.prefix = nn.Parameter(0.02 * torch.randn(prefix, width))
        self.suffix = nn.Parameter(0.02 * torch.randn(suffix, width))
        # Rows of the token table, stored with the prompt as in the original's files; they are not trained.
        for name in ("start", "dot", "end", "pad"):
            self.register_buffer(name, torch.zeros(1, width))

    @property
    def overhead(self) -> int:
        """Positions that are not available to the name."""
        return len(self.prefix) + len(self.suffix) + 3

    def forward(self, names: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Insert names into the prompt.

        Args:
            names: n tensors (n_i, width) float, the token embeddings of each name without start and end.

        Returns:
            Input embeddings (n, T, width) float, T that of the longest name; and the position of [end] in each,
            (n,) int64.
        """
        rows = [torch.cat([self.start, self.prefix, name, self.suffix, self.dot, self.end]) for name in names]
        lengths = [len(row) for row in rows]
        padded = [torch.cat([row, self.pad.expand(max(lengths) - len(row), -1)]) for row in rows]
        return torch.stack(padded), torch.tensor(lengths, device=self.start.device) - 1

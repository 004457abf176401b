"""The transformer decoder of the original's proposal network, with learned queries (docs/method.md §2)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.networks.positions import sine_positions


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: channels from input to output.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DecoderLayer(nn.Module):
    """Post-norm decoder layer: self-attention, cross-attention, feed-forward (docs/method.md §2, "Transformer").

    Args:
        width: channels of queries and memory.
        heads: attention heads; divides ``width``.
        ffn: hidden channels of the feed-forward part.
        dropout: probability, in attention weights and on each branch; active only in training mode.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            state: (B, N, C) float, t in docs/method.md §2.
            query: (B, N, C) float, the learned queries, added to the state to form attention queries.
            key: (B, L, C) float, memory with its position code.
            value: (B, L, C) float, memory without position code.

        Returns:
            (B, N, C), the new state.
        """
        positioned = state + query
        update, _ = self.self_attention(positioned, positioned, state, need_weights=False)
        state = self.norm1(state + self.dropout(update))
        update, _ = self.cross_attention(state + query, key, value, need_weights=False)
        state = self.norm2(state + self.dropout(update))
        update = self.linear2(self.dropout(F.relu(self.linear1(state))))
        return self.norm3(state + self.dropout(update))


class QueryDecoder(nn.Module):
    """A decoder of learned queries over the last feature map: no encoder layers, zero initial state, shared final norm.

    Args:
        inputs: channels of the feature map.
        width: channels of the transformer; a multiple of 4 and of ``heads``.
        heads: attention heads.
        ffn: hidden channels of the feed-forward parts.
        layers: decoder layers.
        queries: number of learned queries, N.
        dropout: probability, active only in training mode.
    """

    def __init__(
        self, inputs: int, width: int, heads: int, ffn: int, layers: int, queries: int, dropout: float
    ) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, width, 1)
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(DecoderLayer(width, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Decode a feature map (B, inputs, h, w); returns the normalised state (B, N, width) after each layer."""
        memory = self.project(features)
        height, width = memory.shape[-2:]
        positions = sine_positions(memory.shape[1], height, width, device=memory.device, dtype=memory.dtype)
        key = (memory + positions).flatten(2).transpose(1, 2)
        value = memory.flatten(2).transpose(1, 2)
        query = self.queries.expand(len(features), -1, -1)
        state = torch.zeros_like(query)
        outputs = []
        for layer in self.layers:
            state = layer(state, query, key, value)
            outputs.append(self.norm(state))
        return outputs

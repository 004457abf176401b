"""The transformer that turns learned queries into mask and class embeddings (METHOD section 2)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.networks.positions import sine_positions


class MLP(nn.Module):
    """Linear layers with ReLU between them; ``widths`` from input to output."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DecoderLayer(nn.Module):
    """Post-norm decoder layer: self-attention, cross-attention, feed-forward (METHOD section 2, "Transformer").

    Args:
        width: channels of queries and memory.
        heads: attention heads; divides ``width``.
        ffn: hidden channels of the feed-forward part.
        dropout: probability, in attention weights and on every branch; active only in training mode.
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
        """One layer.

        Args:
            state: (B, N, C), t of METHOD section 2.
            query: (B, N, C), the learned queries, added wherever the state asks.
            key: (B, L, C), memory with its position code.
            value: (B, L, C), memory without.

        Returns:
            (B, N, C), the new state.
        """
        asking = state + query
        answer, _ = self.self_attention(asking, asking, state, need_weights=False)
        state = self.norm1(state + self.dropout(answer))
        answer, _ = self.cross_attention(state + query, key, value, need_weights=False)
        state = self.norm2(state + self.dropout(answer))
        answer = self.linear2(self.dropout(F.relu(self.linear1(state))))
        return self.norm3(state + self.dropout(answer))


class QueryDecoder(nn.Module):
    """Learned queries looking at the last feature map: no encoder layers, zero initial state, a shared final norm.

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
        """Decode ``features`` (B, inputs, h, w) -> after every layer, the normed state (B, N, width)."""
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

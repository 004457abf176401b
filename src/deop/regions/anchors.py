"""Classification anchors: where in a mask to look, learned (METHOD section 5), or simply the mean over the mask."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.errors import CheckpointError, SettingError
from deop.networks.positions import sine_positions


@dataclass(frozen=True)
class AnchorConfig:
    """The shape of an anchor decoder. The defaults are the released model's."""

    width: int = 512  # channels C of the joint space
    heads: int = 8
    layers: int = 1  # ordinary layers before the output layer; may be 0
    hidden: int = 1024  # channels inside the MLPs
    dropout: float = 0.1  # in training only
    # "slot": a free vector for each query slot of the proposer, as the original: only for proposals that carry slots.
    # "mask": made from the mask-pooled feature of each proposal: for any proposals, any number of them.
    query: str = "slot"
    slots: int = 100  # query slots of the proposer, for "slot"
    gated_layers: bool = False  # the masks also gate the ordinary layers (the original's DECODER_MASK_FEATURE)

    def __post_init__(self) -> None:
        if self.query not in ("slot", "mask"):
            raise CheckpointError(f"unknown anchor query {self.query!r}: 'slot' or 'mask'")


class Regions(NamedTuple):
    """One embedding a proposal, and where it was taken from."""

    embeddings: Tensor  # (B, N, C), L2-normalised; zero where a proposal covers nothing
    heatmaps: Tensor  # (B, heads, N, gh, gw), weights of the patches, not renormalised


def pool_regions(features: Tensor, coverage: Tensor) -> Regions:
    """Training-free anchors: the mean feature of each mask.

    Args:
        features: (B, C, gh, gw) float; what is normalised beforehand weighs every patch alike.
        coverage: (B, N, gh, gw) in [0, 1], how far each proposal covers each patch.

    Returns:
        Regions of one head; the heatmap is the coverage over its sum.
    """
    total = coverage.sum((-2, -1), keepdim=True)
    heatmaps = coverage / total.clamp_min(torch.finfo(coverage.dtype).tiny)
    pooled = heatmaps.flatten(2) @ features.flatten(2).mT
    return Regions(F.normalize(pooled, dim=-1, eps=1e-10), heatmaps[:, None])


class AnchorDecoder(nn.Module):
    """The decoder that learns, for each mask, a heatmap of where to look (METHOD section 5)."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.self_attention = _Attention(config)
        self.norm = nn.LayerNorm(config.width)
        self.query_key = nn.Linear(config.width, 2 * config.width)
        if config.query == "slot":
            self.queries = nn.Parameter(torch.randn(config.slots, config.width))
        else:
            self.mask_query = nn.Linear(config.width, config.width)
            nn.init.eye_(self.mask_query.weight)  # untrained, the query is the mask-pooled feature itself
            nn.init.zeros_(self.mask_query.bias)

    def forward(self, features: Tensor, coverage: Tensor, slots: Tensor | None = None) -> Regions:
        """Look at each mask where it pays.

        Args:
            features: (B, C, gh, gw) float, L2-normalised over C.
            coverage: (B, N, gh, gw) in [0, 1]: mask probabilities resized to the patch grid, sigmoid before the
                resize (METHOD section 2, use b). N may be 0.
            slots: (B, N) int64, the proposer's query slot of each proposal; needed by slot-tied queries.

        Returns:
            Regions with one heatmap a head.

        Raises:
            SettingError: slot-tied queries without slots.
        """
        channels, grid = features.shape[1], features.shape[2:]
        tokens = features.flatten(2).mT  # (B, L, C)
        coded = channels + -channels % 4  # a space of odd width has what fits of the next larger code
        places = sine_positions(coded, grid[0], grid[1], device=features.device, dtype=features.dtype)[:channels]
        keys = tokens + places.flatten(1).T
        gate = coverage.flatten(2)  # (B, N, L)

        query = self._queries(features, coverage, slots)
        state = torch.zeros_like(query)
        for layer in self.layers:
            state = layer(state, query, tokens, keys, gate if self.config.gated_layers else None)
        state = self.norm(state + self.self_attention(state + query, state + query, state))

        # Only queries and keys are projected: each head pools its own channels of the raw features.
        weight, bias = self.query_key.weight.chunk(2), self.query_key.bias.chunk(2)
        wanted = self._heads(F.linear(state + query, weight[0], bias[0]))  # (B, heads, N, C / heads)
        offered = self._heads(F.linear(keys, weight[1], bias[1]))
        attention = (wanted @ offered.mT / wanted.shape[-1] ** 0.5).softmax(-1)
        heatmaps = attention * gate[:, None]  # after the softmax, not renormalised
        pooled = (heatmaps @ self._heads(tokens)).transpose(1, 2).flatten(2)
        return Regions(F.normalize(pooled, dim=-1, eps=1e-10), heatmaps.unflatten(-1, grid))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

    def _queries(self, features: Tensor, coverage: Tensor, slots: Tensor | None) -> Tensor:
        if self.config.query == "mask":
            return self.mask_query(pool_regions(features, coverage).embeddings)
        if slots is None:
            raise SettingError(
                "these anchors are tied to the query slots of their own proposer, and the masks come from elsewhere: "
                'use anchors="pool", or a decoder trained with query="mask"'
            )
        return self.queries[slots]

    @classmethod
    def from_original(
        cls, state: dict[str, Tensor], queries: Tensor, *, heads: int = 8, gated_layers: bool = False
    ) -> "AnchorDecoder":
        """The decoder of an original checkpoint.

        What has no effect on the result is left behind: the decoder-level norm, and the value third of the output
        layer's packed projection (METHOD section 5).

        Args:
            state: the keys below ``decoder.``.
            queries: (slots, C), ``query_embedding.weight``.
            heads: attention heads.
            gated_layers: the original's option DECODER_MASK_FEATURE.

        Raises:
            CheckpointError: naming missing and surplus keys.
        """
        from deop.networks.loading import load_strictly

        width = queries.shape[1]
        layers = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("layers.")), default=-1)
        hidden = state["layers.0.linear1.weight"].shape[0] if "layers.0.linear1.weight" in state else 1024
        config = AnchorConfig(width, heads, layers, hidden, slots=queries.shape[0], gated_layers=gated_layers)
        renamed = {"queries": queries}
        for key, value in state.items():
            if key in ("norm.weight", "norm.bias"):
                continue
            if key.startswith("outlayer.multihead_attn_my.in_proj_"):
                renamed[f"query_key.{key.rsplit('_', 1)[1]}"] = value[: 2 * width]
                continue
            key = key.replace("outlayer.norm1.", "norm.").removeprefix("outlayer.")
            key = key.replace("multihead_attn_my.", "cross_attention.").replace("self_attn.", "self_attention.")
            key = key.replace("in_proj_", "qkv.").replace("out_proj.", "out.")
            renamed[key.replace("linear1.", "up.").replace("linear2.", "down.")] = value
        decoder = cls(config)
        load_strictly(decoder, renamed, "the anchor decoder")
        return decoder.eval()


class _Attention(nn.Module):
    """Multi-head attention with a gate after the softmax on request."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None = None) -> Tensor:
        """Queries (B, N, C) over keys and values (B, L, C); ``gate`` (B, N, L) multiplies the attention."""
        parts = zip((query, key, value), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x, w, b in parts)
        dropout = self.dropout if self.training else 0.0
        if gate is None:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            attention = F.dropout((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), dropout)
            mixed = (attention * gate[:, None]) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """A post-norm decoder layer (METHOD section 2, the same as the proposal network's)."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.self_attention = _Attention(config)
        self.cross_attention = _Attention(config)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, state: Tensor, query: Tensor, tokens: Tensor, keys: Tensor, gate: Tensor | None) -> Tensor:
        """State and query (B, N, C), tokens and keys (B, L, C) -> state."""
        placed = state + query
        state = self.norm1(state + self.dropout(self.self_attention(placed, placed, state)))
        state = self.norm2(state + self.dropout(self.cross_attention(state + query, keys, tokens, gate)))
        inner = self.dropout(F.relu(self.up(state)))
        return self.norm3(state + self.dropout(self.down(inner)))

"""Region embeddings of masks: by a learned anchor decoder (docs/method.md §5), or as the mean over the mask."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.errors import CheckpointError, SettingError
from deop.networks.attention import attend
from deop.networks.loading import load_strictly
from deop.networks.positions import sine_positions


@dataclass(frozen=True)
class AnchorConfig:
    """Sizes of an anchor decoder. The defaults are those of the released model.

    Attributes:
        width: channels C of the joint space.
        heads: attention heads; divides ``width``.
        layers: ordinary layers before the output layer; may be 0.
        hidden: channels inside the MLPs.
        dropout: probability, in training only.
        query: "slot": one learned query per slot of the proposer, as in the original; only for proposals with slots.
            "mask": queries computed from the mask-pooled feature of each proposal; for any proposals.
        slots: query slots of the proposer, if ``query`` is "slot".
        gated_layers: whether masks also gate the cross-attention of ordinary layers (DECODER_MASK_FEATURE of the
            original).

    Raises:
        CheckpointError: an unknown query.
    """

    width: int = 512
    heads: int = 8
    layers: int = 1
    hidden: int = 1024
    dropout: float = 0.1
    query: str = "slot"
    slots: int = 100
    gated_layers: bool = False

    def __post_init__(self) -> None:
        if self.query not in ("slot", "mask"):
            raise CheckpointError(f"unknown anchor query {self.query!r}: choose 'slot' or 'mask'")


class Regions(NamedTuple):
    """Region embeddings, and the patches that they were computed from.

    Attributes:
        embeddings: (B, N, C) float, L2-normalised; 0 for proposals that cover nothing.
        heatmaps: (B, heads, N, gh, gw) float, weights of the patches, not normalised.
    """

    embeddings: Tensor
    heatmaps: Tensor


def pool_regions(features: Tensor, coverage: Tensor, added: Tensor | None = None) -> Regions:
    """Mean feature of each mask: anchors without training.

    Args:
        features: (B, C, gh, gw) float. If they are normalised beforehand, all patches have equal weight.
        coverage: (B, N, gh, gw) in [0, 1], coverage of each patch by each proposal.
        added: (B, N, C) float, added to the mean before normalisation, such as weighted region tokens; None: nothing.

    Returns:
        Regions with one head; the heatmap is the coverage divided by its sum.
    """
    total = coverage.sum((-2, -1), keepdim=True)
    heatmaps = coverage / total.clamp_min(torch.finfo(coverage.dtype).tiny)
    pooled = heatmaps.flatten(2) @ features.permute(0, 2, 3, 1).flatten(1, 2)
    if added is not None:
        pooled = pooled + added * (total[..., 0] > 0)
    return Regions(F.normalize(pooled, dim=-1, eps=1e-10), heatmaps[:, None])


class AnchorDecoder(nn.Module):
    """Decoder that computes a heatmap over the patches of each mask, and pools features with it (docs/method.md §5).

    Args:
        config: sizes; the weights are random until they are loaded.
    """

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
            nn.init.eye_(self.mask_query.weight)  # the initial query is the mask-pooled feature
            nn.init.zeros_(self.mask_query.bias)

    def forward(
        self,
        features: Tensor,
        coverage: Tensor,
        slots: Tensor | None = None,
        *,
        inside: Tensor | None = None,
        extent: tuple[int | Tensor, int | Tensor] | None = None,
        valid: Tensor | None = None,
    ) -> Regions:
        """Compute the region embeddings.

        Args:
            features: (B, C, gh, gw) float, L2-normalised over C.
            coverage: (B, N, gh, gw) in [0, 1]: mask probabilities resized to the patch grid, with the sigmoid before
                the resize (docs/method.md §2, use b). N may be 0.
            slots: (B, N) int64, query slot of each proposal; required by slot-tied queries.
            inside: (B, gh * gw) bool, False for patches that are not part of the image, whose features are 0; None: all
                are. The last three arguments are for exported graphs, which cannot remove patches and proposals.
            extent: rows and columns of the patches inside; None: those of the grid.
            valid: (B, N) bool, False for proposals that do not count, whose embeddings have no meaning; None: all do.

        Returns:
            Regions with one heatmap per head.

        Raises:
            SettingError: slot-tied queries without slots.
        """
        channels, grid = features.shape[1], features.shape[2:]
        tokens = features.flatten(2).mT  # (B, L, C)
        code_channels = channels + -channels % 4  # the code needs a multiple of 4; surplus channels are dropped
        positions = sine_positions(
            code_channels, grid[0], grid[1], extent=extent, device=features.device, dtype=features.dtype
        )[:channels]
        keys = tokens + positions.flatten(1).T
        gate = coverage.flatten(2)  # (B, N, L)

        query = self._queries(features, coverage, slots)
        state = torch.zeros_like(query)
        for layer in self.layers:
            state = layer(state, query, tokens, keys, gate if self.config.gated_layers else None, inside, valid)
        state = self.norm(state + self.self_attention(state + query, state + query, state, keys=valid))

        # Only queries and keys are projected: each head pools its own channels of the raw features.
        weight, bias = self.query_key.weight.chunk(2), self.query_key.bias.chunk(2)
        queries = self._heads(F.linear(state + query, weight[0], bias[0]))  # (B, heads, N, C / heads)
        keys = self._heads(F.linear(keys, weight[1], bias[1]))
        attention = _weights(queries, keys, inside)
        heatmaps = attention * gate[:, None]  # after the softmax, not renormalised
        pooled = (heatmaps @ self._heads(tokens)).transpose(1, 2).flatten(2)
        return Regions(F.normalize(pooled, dim=-1, eps=1e-10), heatmaps.unflatten(-1, grid))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

    def _queries(self, features: Tensor, coverage: Tensor, slots: Tensor | None) -> Tensor:
        if self.config.query == "mask":
            return self.mask_query(pool_regions(features, coverage).embeddings)
        if slots is None:
            raise SettingError(
                "the anchor decoder is tied to the query slots of its own proposer, but these masks have no slots: "
                'use anchors="pool", or a decoder trained with query="mask"'
            )
        return self.queries[slots]

    @classmethod
    def from_original(
        cls, state: dict[str, Tensor], queries: Tensor, *, heads: int = 8, gated_layers: bool = False
    ) -> "AnchorDecoder":
        """Load the decoder of an original checkpoint.

        Weights without effect on the result are dropped: the final norm of the decoder, and the value third of the
        output layer's packed projection (docs/method.md §5).

        Args:
            state: keys below ``decoder.``.
            queries: (slots, C), ``query_embedding.weight``.
            heads: attention heads.
            gated_layers: the original's option DECODER_MASK_FEATURE.

        Raises:
            CheckpointError: listing missing and unexpected keys.
        """
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
    """Multi-head attention with an optional gate after the softmax."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None = None, keys: Tensor | None = None
    ) -> Tensor:
        """Attention of queries (B, N, C) over keys and values (B, L, C).

        Args:
            query: (B, N, C) float.
            key: (B, L, C) float.
            value: (B, L, C) float.
            gate: (B, N, L) float that multiplies the weights, or None.
            keys: (B, L) bool, which keys are attended to; None: all.
        """
        parts = zip((query, key, value), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x, w, b in parts)
        dropout = self.dropout if self.training else 0.0
        if gate is None:
            mixed = (
                F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
                if dropout
                else attend(q, k, v, _scores_of(keys, q.dtype))
            )
        else:
            attention = F.dropout(_weights(q, k, keys), dropout)
            mixed = (attention * gate[:, None]) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """A post-norm decoder layer, as in the proposal network (docs/method.md §2)."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.self_attention = _Attention(config)
        self.cross_attention = _Attention(config)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        state: Tensor,
        query: Tensor,
        tokens: Tensor,
        keys: Tensor,
        gate: Tensor | None,
        inside: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """New state (B, N, C) from state and query (B, N, C), tokens and keys (B, L, C), gate (B, N, L) or None.

        ``inside`` (B, L) and ``valid`` (B, N) are as in ``AnchorDecoder.forward``.
        """
        positioned = state + query
        state = self.norm1(state + self.dropout(self.self_attention(positioned, positioned, state, keys=valid)))
        update = self.cross_attention(state + query, keys, tokens, gate, inside)
        state = self.norm2(state + self.dropout(update))
        inner = self.dropout(F.relu(self.up(state)))
        return self.norm3(state + self.dropout(self.down(inner)))


def _weights(queries: Tensor, keys: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention weights (B, heads, N, L); 0 for keys that are not ``allowed`` (B, L)."""
    scores = queries @ keys.mT / queries.shape[-1] ** 0.5
    mask = _scores_of(allowed, scores.dtype)
    return (scores if mask is None else scores + mask).softmax(-1)


def _scores_of(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What to add to the scores (B, heads, N, L) so that only ``allowed`` (B, L) keys count.

    Finite, since a photo may have no valid proposal: the result then has no meaning, but it is a number.
    """
    if allowed is None:
        return None
    return torch.where(allowed, 0.0, torch.finfo(dtype).min / 2).to(dtype)[:, None, None]

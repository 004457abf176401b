"""The transformer block of the vision encoders, whose attention can be severed (docs/method.md §3)."""

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.encoders.int8 import plain_weights, some_outputs
from deop.encoders.similarity import Mix, Project
from deop.errors import CheckpointError
from deop.networks.attention import attend

if TYPE_CHECKING:
    from deop.encoders.clip import VisionConfig
    from deop.encoders.siglip import SiglipVisionConfig
    from deop.encoders.tips import TipsVisionConfig


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU: x * sigmoid(1.702 x)."""
    if torch.compiler.is_exporting():
        return x * torch.sigmoid(1.702 * x)  # ONNX Runtime computes this in one step
    # Computed as silu(1.702 x) / 1.702 in place: allocating the largest tensors takes longer than the arithmetic.
    return F.silu(1.702 * x, inplace=not torch.is_grad_enabled()).mul_(1 / 1.702)


def swiglu(x: Tensor) -> Tensor:
    """silu(g) * u of (..., 2 n), the gates g before u: (..., n)."""
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "swiglu": swiglu,
}


def check_sizes(encoder: str, activation: str, allowed: Collection[str], width: int, heads: int) -> None:
    """Check the configuration of a "vision" or "text" encoder.

    Raises:
        CheckpointError: an activation that is not allowed, or heads that do not divide the width.
    """
    if activation not in allowed:
        raise CheckpointError(
            f"unknown activation {activation!r} of the {encoder} encoder: choose one of {', '.join(allowed)}"
        )
    if width % heads:
        raise CheckpointError(f"the width {width} of the {encoder} encoder is not divisible by its {heads} heads")


class Attention(nn.Module):
    """Multi-head self-attention that can also return its mixed values alone, for severed blocks.

    Args:
        width: channels.
        heads: attention heads.
        class_token: False: the first token is unused, and no token attends to it.
    """

    def __init__(self, width: int, heads: int, class_token: bool = True) -> None:
        super().__init__()
        self.heads, self.class_token = heads, class_token
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor | None = None, scope: Tensor | None = None) -> Tensor:
        """Ordinary attention.

        Args:
            x: (B, T, C) float, the tokens; with ``scope`` (B, T + N, C), the N region tokens last.
            keys: (B, 1, 1, T) bool, which tokens may be attended to; None: all.
            scope: (B, 1, N, T) float, added to the scores of the region tokens, which no token attends to.

        Returns:
            As ``x``.
        """
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if scope is None:
            if not self.class_token:
                key, value, keys = key[:, :, 1:], value[:, :, 1:], None if keys is None else keys[..., 1:]
            return self.out(attend(query, key, value, keys).transpose(1, 2).flatten(2))
        tokens = scope.shape[-1]
        key, value = key[:, :, :tokens], value[:, :, :tokens]
        ordinary = attend(query[:, :, :tokens], key, value, keys)
        regions = attend(query[:, :, tokens:], key, value, scope)
        return self.out(torch.cat([ordinary, regions], 2).transpose(1, 2).flatten(2))

    def severed(
        self,
        x: Tensor,
        mix: Mix,
        keys: Tensor | None = None,
        class_token: str = "ordinary",
        scope: Tensor | None = None,
        registers: int = 0,
    ) -> Tensor:
        """Attention whose values are mixed by ``mix`` instead: what ``mix`` does not use is never computed.

        Args:
            x: (B, R + 1 + L + N, C) float: registers, class token, patches, region tokens.
            mix: the mixing function, for class token and patches.
            keys: as in ``forward``, for the tokens that keep ordinary attention.
            class_token: "ordinary" or "severed", as in ``Severance``.
            scope: as in ``forward``; region tokens keep ordinary attention. None: there are none.
            registers: R, which keep ordinary attention.

        Returns:
            As ``x``, or with another number of patches if ``mix`` moves them to another grid.
        """
        tokens = x if scope is None else x[:, : scope.shape[-1]]
        values = self.values(tokens)
        project = self.projections(tokens, values)
        mixed = mix(values[:, registers:], (lambda letter: project(letter)[:, :, registers:]) if registers else project)
        ordinary = registers + (class_token == "ordinary")
        if ordinary:
            mixed = torch.cat(
                [self._attend_from_first(ordinary, tokens, values, keys), mixed[:, ordinary - registers :]], 1
            )
        if scope is not None:
            query = self._by_head(some_outputs(self.qkv, x[:, scope.shape[-1] :], 0, x.shape[-1]))
            regions = attend(query, project("k"), project("v"), scope).transpose(1, 2).flatten(2)
            mixed = torch.cat([mixed, regions], 1)
        return self.out(mixed)

    def values(self, x: Tensor) -> Tensor:
        """W_v x + b_v, (B, T, C)."""
        return some_outputs(self.qkv, x, 2 * x.shape[-1], 3 * x.shape[-1])

    def projections(self, x: Tensor, values: Tensor) -> Project:
        """The function that projects tokens (B, T, C) to queries, keys and values by head when they are needed."""
        width = x.shape[-1]

        known = {"v": self._by_head(values)}

        def project(letter: str) -> Tensor:
            if letter not in known:
                first = {"q": 0, "k": width}[letter]
                known[letter] = self._by_head(some_outputs(self.qkv, x, first, first + width))
            return known[letter]

        return project

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend_from_first(self, count: int, x: Tensor, values: Tensor, keys: Tensor | None) -> Tensor:
        """The rows of the first tokens in ordinary attention before the output projection, (B, count, C)."""
        width = x.shape[-1]
        weight, bias = plain_weights(self.qkv)
        query_weight, key_weight = weight[:width], weight[width : 2 * width]
        query = F.linear(x[:, :count], query_weight, bias[:width]).unflatten(-1, (self.heads, -1))  # (B, n, heads, d)
        # q · (W x + b) = (W^T q) · x + q · b, and the softmax ignores q · b: no key of a patch has to be computed.
        projected = torch.einsum(
            "bnhd,hdc->bnhc", query * query.shape[-1] ** -0.5, key_weight.unflatten(0, (self.heads, -1))
        )
        scores = (projected.flatten(1, 2) @ x.mT).float()  # (B, n * heads, T)
        if keys is not None:
            scores = scores.masked_fill(~keys[:, 0], float("-inf"))
        weights = scores.softmax(-1).to(x.dtype).unflatten(1, (count, self.heads))
        return torch.einsum("bnht,bthd->bnhd", weights, values.unflatten(-1, (self.heads, -1))).flatten(2)


class Block(nn.Module):
    """A pre-norm transformer block.

    Args:
        config: sizes.
        class_token: as in ``Attention``.
    """

    def __init__(
        self, config: "VisionConfig | SiglipVisionConfig | TipsVisionConfig", class_token: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config.width, config.heads, class_token)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.up = nn.Linear(config.width, config.hidden * (2 if config.activation == "swiglu" else 1))
        self.down = nn.Linear(config.hidden, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(
        self,
        x: Tensor,
        keys: Tensor | None = None,
        mix: Mix | None = None,
        residual: float = 1.0,
        class_token: str = "ordinary",
        mlp: bool = True,
        scope: Tensor | None = None,
        registers: int = 0,
    ) -> Tensor:
        """Apply the block.

        Args:
            x: (B, R + 1 + L + N, C) float: registers, class token, patches, region tokens.
            keys: (B, 1, 1, R + 1 + L) bool, which tokens may be attended to; None: all.
            mix: the mixing function of severed attention; None: ordinary attention.
            residual: weight of the residual stream beside severed attention.
            class_token: "ordinary" or "severed", as in ``Severance``.
            mlp: whether the MLP is applied to severed tokens.
            scope: (B, 1, N, R + 1 + L) float, added to the scores of region tokens; None: there are none.
            registers: R, tokens that keep ordinary attention, with a residual weight of 1 and the MLP.

        Returns:
            As ``x``, or with another number of patches if ``mix`` moves them to another grid.
        """
        if mix is None:
            x = x + self.attention(self.norm1(x), keys, scope)
            return x + self._mlp(x)
        attention = self.attention.severed(self.norm1(x), mix, keys, class_token, scope, registers)
        # In order: ordinary (registers, and the class token unless it is severed too), severed, ordinary (regions).
        first = registers + (class_token == "ordinary")
        regions = 0 if scope is None else scope.shape[-2]
        old, new = x.shape[1] - regions, attention.shape[1] - regions
        severed = attention[:, first:new]
        if residual:
            severed = residual * x[:, first:old] + severed
        ordinary = x[:, :first] + attention[:, :first]
        if scope is not None:
            ordinary = torch.cat([ordinary, x[:, old:] + attention[:, new:]], 1)
        if mlp:
            x = torch.cat([ordinary[:, :first], severed, ordinary[:, first:]], 1)
            return x + self._mlp(x)
        ordinary = ordinary + self._mlp(ordinary)
        return torch.cat([ordinary[:, :first], severed, ordinary[:, first:]], 1)

    def at_level(self, level: Tensor, x: Tensor, mix: Mix, residual: float, mlp: bool) -> Tensor:
        """The severed block, with the attention weights of the stream ``x``, applied to another stream.

        Args:
            level: (B, 1 + L, C) float, the other stream.
            x: (B, 1 + L, C) float, the stream that queries and keys are computed from.
            mix: the mixing function.
            residual: weight of ``level`` beside severed attention.
            mlp: whether the MLP is applied.

        Returns:
            (B, 1 + L, C), or with another number of patches if ``mix`` moves them to another grid; the class token is
            mixed as by ``mix``.
        """
        normed = self.norm1(x)
        project = self.attention.projections(normed, self.attention.values(normed))
        result = self.attention.out(mix(self.attention.values(self.norm1(level)), project))
        if residual:
            result = residual * level + result
        return result + self._mlp(result) if mlp else result

    def _mlp(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(self.norm2(x))))

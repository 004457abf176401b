"""Patch severance: what replaces attention in the last layers, so that segments stop leaking into each other.

A severed block keeps its own value and output projections and its MLP; only the mixing of tokens in between changes
(METHOD section 3). ``Severance`` says which mixing, where; ``mixer`` makes it for one batch, once for all layers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.networks.resampling import to_patches

KINDS = ("none", "self", "gate", "gate-normalized", "affinity", "affinity-normalized")

NOT_COVERED = 1e-6
"""Probabilities up to this are no coverage; that of a given mask where it is not is 2e-9."""

Mix = Callable[[Tensor], Tensor]
"""Values (B, 1 + L, C), class token first -> mixed values of the same shape."""


@dataclass(frozen=True)
class Severance:
    """Which attention is severed, and how.

    Attributes:
        kind: with v_l the value of token l, M_{n,l} the probability that proposal n covers patch l, and the class
            token first, the attention result before the output projection is

            * ``none``: ordinary attention; nothing is severed.
            * ``self``: v_l. No token sees another; the masks are not used ("identity" in METHOD).
            * ``gate``: g_l v_l with g_l = sum_n M_{n,l}, and g = N for the class token. What the released model
              runs ("maskgate"). The sum grows with N and with overlap, so the weights fit only the number of
              proposals that they were trained with.
            * ``gate-normalized``: g_l / mean(g) v_l, the mean over the image's patches, and 1 for the class token.
              Repairs ``gate``: the mean gain is 1 whatever N, so attention keeps the size that CLIP was trained
              with; repeating every proposal or adding empty ones changes nothing. Without any coverage it is ``self``.
            * ``affinity``: softmax over l' of (M^T M)_{l,l'} times v, class column of ones in M, one matrix for all
              heads ("masksim"). The entries grow with N, so that the softmax saturates, mostly on the class token.
            * ``affinity-normalized``: the rows of M^T M divided by their sum instead of a softmax, the class token
              on its own. Repairs ``affinity``: a patch receives the average value of the patches that it shares
              proposals with, whatever N; a patch that no proposal covers keeps its own value. Needs no L x L matrix.
        layers: severed blocks, counted from 0, or from the end where negative. The released model: the last.
        residual: weight of the residual stream in a severed block, x <- residual * x + attention(x); one number, or
            one a layer. The original's is 1.0, but 0.2 in the last block of its tower without learned positions.
    """

    kind: str = "none"
    layers: tuple[int, ...] = (-1,)
    residual: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"unknown severance {self.kind!r}: choose one of {', '.join(KINDS)}")
        if isinstance(self.layers, int | str):
            raise SettingError(f"the layers to sever are a list of numbers such as (-1,), not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        if isinstance(self.residual, (list, tuple)):
            object.__setattr__(self, "residual", tuple(self.residual))
            if len(self.residual) != len(self.layers):
                raise SettingError(f"{len(self.residual)} residual weights for {len(self.layers)} severed layers")

    @classmethod
    def parse(cls, value: "str | Severance | None", default: "Severance | None" = None) -> "Severance":
        """A severance from what people type: a kind, a ``Severance``, or None for ``default``.

        A kind alone keeps the layers and the residual weight of ``default`` (METHOD's where there is none).
        """
        default = default or cls()
        if value is None:
            return default
        if isinstance(value, cls):
            return value
        return cls(str(value), default.layers, default.residual)

    @property
    def needs_masks(self) -> bool:
        """Whether the proposals take part in the encoder."""
        return self.kind not in ("none", "self")

    def residuals(self, depth: int) -> dict[int, float]:
        """Severed block -> weight of its residual stream, in a tower of ``depth`` blocks.

        Raises:
            SettingError: a layer that the tower does not have.
        """
        if self.kind == "none":
            return {}
        weights = self.residual if isinstance(self.residual, tuple) else (self.residual,) * len(self.layers)
        severed = {}
        for layer, weight in zip(self.layers, weights, strict=True):
            if not -depth <= layer < depth:
                raise SettingError(f"cannot sever layer {layer}: the encoder has layers 0 to {depth - 1}")
            severed[layer % depth] = float(weight)
        return severed


def patch_coverage(logits: Tensor, image_size: tuple[int, int], patch: int) -> Tensor:
    """How far each proposal covers each patch: mask logits resized to the patch grid, then the sigmoid.

    The order (logits first) is the original's for severance (METHOD section 2, use a).

    Args:
        logits: (B, N, h, w) float, covering the image.
        image_size: (H, W) pixels of the image that the masks cover.
        patch: side of a patch in pixels.

    Returns:
        (B, N, gh, gw) in [0, 1], with gh = ceil(H / patch), gw = ceil(W / patch).
    """
    return to_patches(logits, image_size, patch).sigmoid()


def mixer(kind: str, coverage: Tensor | None = None, valid: Tensor | None = None, inside: Tensor | None = None) -> Mix:
    """The function that mixes the values of a severed block, for one batch.

    Args:
        kind: a severed kind of ``KINDS``.
        coverage: (B, N, L) float in [0, 1], proposals over patches; unused by ``self``.
        valid: (B, N) bool, which proposals are real where images of a batch have different N; None: all.
        inside: (B, L) bool, which patches belong to the image where a batch is padded; None: all.

    Returns:
        A function from values (B, 1 + L, C) to mixed values (B, 1 + L, C).
    """
    if kind == "self":
        return lambda values: values
    if coverage is None:
        raise SettingError(f"severance {kind!r} needs masks, and none were given")
    if valid is None:
        valid = torch.ones_like(coverage[:, :, 0], dtype=torch.bool)
    coverage = coverage * valid[..., None]
    if inside is not None:
        coverage = coverage * inside[:, None]
    return {
        "gate": _gate,
        "gate-normalized": _gate_normalized,
        "affinity": _affinity,
        "affinity-normalized": _affinity_normalized,
    }[kind](coverage, valid, inside)


def _gate(coverage: Tensor, valid: Tensor, inside: Tensor | None) -> Mix:
    count = valid.sum(1, keepdim=True, dtype=coverage.dtype)
    gain = torch.cat([count, coverage.sum(1)], 1)[..., None]
    return lambda values: gain.to(values.dtype) * values


def _gate_normalized(coverage: Tensor, valid: Tensor, inside: Tensor | None) -> Mix:
    gain = coverage.float().sum(1)  # (B, L)
    patches = gain.shape[1] if inside is None else inside.sum(1, keepdim=True)
    mean = gain.sum(1, keepdim=True) / patches
    gain = torch.where(mean > 0, gain / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)
    gain = torch.cat([torch.ones_like(gain[:, :1]), gain], 1)[..., None]
    return lambda values: gain.to(values.dtype) * values


def _affinity(coverage: Tensor, valid: Tensor, inside: Tensor | None) -> Mix:
    tokens = torch.cat([valid.to(coverage.dtype)[:, :, None], coverage], 2).mT  # M^T: (B, 1 + L, N)
    if tokens.shape[2] == 0:  # no proposals: an all-zero affinity, so every token receives the mean
        tokens = F.pad(tokens, (0, 1))
    # Nothing is taken from padding: (B, 1, 1 + L), true where a token may be looked at.
    keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None]

    def mix(values: Tensor) -> Tensor:
        # softmax(M^T M) v is attention with M^T as both queries and keys, unscaled: no L x L matrix is kept.
        factor = tokens.to(values.dtype)
        return F.scaled_dot_product_attention(factor, factor, values, attn_mask=keys, scale=1.0)

    return mix


def _affinity_normalized(coverage: Tensor, valid: Tensor, inside: Tensor | None) -> Mix:
    # In float32 throughout: sums over N proposals and L patches overflow float16.
    factor = coverage.float()
    # A sigmoid is never 0: without this a patch in no mask would get the mean of all that is in one.
    factor = factor * (factor > NOT_COVERED)
    row_sum = factor.mT @ factor.sum(2, keepdim=True)  # (B, L, 1), the rows of M^T M added up

    def mix(values: Tensor) -> Tensor:
        patches = values[:, 1:].float()
        shared = factor.mT @ (factor @ patches)
        average = torch.where(row_sum > 0, shared / row_sum.clamp_min(1e-12), patches)
        return torch.cat([values[:, :1], average.to(values.dtype)], 1)

    return mix

"""Patch severance: attention in the last layers is replaced, so that features do not leak between segments.

A severed block keeps its value projection, output projection and MLP; only the step that mixes tokens changes
(docs/method.md §3). ``Severance`` says how and in which blocks; ``mixer`` builds the mixing function of one batch,
which all severed blocks share.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.networks.resampling import to_patches

KINDS = ("none", "self", "gate", "gate-normalized", "affinity", "affinity-normalized")
CLASS_TOKEN = ("ordinary", "severed")

NOT_COVERED = 1e-6
"""Largest probability that counts as not covered. Outside a given mask the probability is 2e-9, never 0."""

Mix = Callable[[Tensor], Tensor]
"""Values (B, 1 + L, C), class token first -> mixed values of the same shape."""


@dataclass(frozen=True)
class Severance:
    """Where and how attention is severed.

    Attributes:
        kind: the result of attention before the output projection. With v_l the value of token l and M_{n,l} the
            probability that proposal n covers patch l:

            * ``none``: ordinary attention; nothing is severed.
            * ``self``: v_l. Tokens do not mix; masks are not used ("identity" in docs/method.md).
            * ``gate``: g_l v_l with g_l = sum_n M_{n,l}, and g = N for the class token. Used by the released model
              ("maskgate"). The gain grows with N and with overlap, so the weights only fit the number of proposals
              that they were trained with.
            * ``gate-normalized``: g_l / mean(g) v_l, the mean over the patches of the image; 1 for the class token.
              Unlike ``gate``, the mean gain is 1 for any N, so attention keeps the magnitude that CLIP was trained
              with; repeated or empty proposals change nothing. Without any coverage it equals ``self``.
            * ``affinity``: softmax over l' of (M^T M)_{l,l'} times v, where M has a first column of ones for the class
              token; all heads share one matrix ("masksim"). The entries grow with N, so the softmax saturates, mostly
              on the class token.
            * ``affinity-normalized``: the rows of M^T M are divided by their sum instead of a softmax, without the
              class token. Unlike ``affinity``, a patch receives the average value of the patches that it shares
              proposals with, for any N; a patch without a proposal keeps its own value. Needs no L x L matrix.
        layers: severed blocks, counted from 0, or from the end if negative. Released model: the last block.
        residual: weight of the residual stream in a severed block, x <- residual * x + attention(x); one number, or
            one per layer. 1.0 in the original, but 0.2 in the last block of its tower without learned positions.
        class_token: "ordinary": in severed blocks the class token still attends to all tokens, with a residual weight
            of 1; where only the last block is severed, the image embedding is therefore CLIP's own. "severed": the
            class token is mixed as described above, as in the original and in checkpoints converted from it. The
            choice affects patch features only in ordinary blocks after a severed one, and with ``affinity`` in more
            than one block.

    Raises:
        SettingError: an unknown kind, or layers and residual weights that do not fit together.

    >>> Severance("self", layers=(-2, -1), residual=0.2).residuals(12)
    {10: 0.2, 11: 0.2}
    """

    kind: str = "none"
    layers: tuple[int, ...] = (-1,)
    residual: float | tuple[float, ...] = 1.0
    class_token: str = "ordinary"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"unknown severance {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.class_token not in CLASS_TOKEN:
            raise SettingError(f"unknown class_token {self.class_token!r}: choose one of {', '.join(CLASS_TOKEN)}")
        if isinstance(self.layers, int | str):
            raise SettingError(f"severed layers must be a list of integers such as (-1,), not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        if isinstance(self.residual, (list, tuple)):
            object.__setattr__(self, "residual", tuple(self.residual))
            if len(self.residual) != len(self.layers):
                raise SettingError(
                    f"{len(self.residual)} residual weights for {len(self.layers)} severed layers: give one number, or "
                    "one for each layer"
                )

    @classmethod
    def parse(cls, value: "str | Severance | None", default: "Severance | None" = None) -> "Severance":
        """Convert what a user gives: a kind, a ``Severance``, or None for ``default``.

        A kind alone keeps all other fields of ``default``.

        >>> Severance.parse("gate", Severance("self", layers=(3,))).layers
        (3,)
        """
        default = default or cls()
        if value is None:
            return default
        if isinstance(value, cls):
            return value
        return replace(default, kind=str(value))

    @property
    def needs_masks(self) -> bool:
        """Whether the encoder needs masks."""
        return self.kind not in ("none", "self")

    def residuals(self, depth: int) -> dict[int, float]:
        """Index of each severed block -> weight of its residual stream.

        Args:
            depth: blocks of the encoder.

        Raises:
            SettingError: a layer that the encoder does not have.
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
    """Probability that each proposal covers each patch: mask logits resized to the patch grid, then the sigmoid.

    Logits are resized before the sigmoid, as the original does for severance (docs/method.md §2, use a).

    Args:
        logits: (B, N, h, w) float, covering the image.
        image_size: (H, W) pixels of the image that the masks cover.
        patch: side of a patch in pixels.

    Returns:
        (B, N, gh, gw) in [0, 1], with gh = ceil(H / patch), gw = ceil(W / patch).
    """
    return to_patches(logits, image_size, patch).sigmoid()


def mixer(kind: str, coverage: Tensor | None = None, valid: Tensor | None = None, inside: Tensor | None = None) -> Mix:
    """Build the function that mixes the values of severed blocks, for one batch.

    Args:
        kind: one of ``KINDS`` except "none".
        coverage: (B, N, L) float in [0, 1], coverage of each patch by each proposal; unused by ``self``.
        valid: (B, N) bool, False for padding if the images of a batch have different N; None: all are valid.
        inside: (B, L) bool, False for patches in the padding of an image; None: all are inside.

    Returns:
        A function from values (B, 1 + L, C) to mixed values (B, 1 + L, C).

    Raises:
        SettingError: the kind needs masks and ``coverage`` is None.
    """
    if kind == "self":
        return lambda values: values
    if coverage is None:
        raise SettingError(f"severance {kind!r} needs masks: pass masks to the encoder, or use severance 'self'")
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
    if tokens.shape[2] == 0:  # no proposals: the affinity is all zero, so every token receives the mean value
        tokens = F.pad(tokens, (0, 1))
    # (B, 1, 1 + L), True for tokens that may be attended to: nothing is taken from padding.
    keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None]

    def mix(values: Tensor) -> Tensor:
        # softmax(M^T M) v is unscaled attention with M^T as both queries and keys: no L x L matrix is stored.
        factor = tokens.to(values.dtype)
        return F.scaled_dot_product_attention(factor, factor, values, attn_mask=keys, scale=1.0)

    return mix


def _affinity_normalized(coverage: Tensor, valid: Tensor, inside: Tensor | None) -> Mix:
    # Computed in float32: sums over N proposals and L patches overflow float16.
    factor = coverage.float()
    # A sigmoid is never 0. Without this line, a patch in no mask would receive the mean of all covered patches.
    factor = factor * (factor > NOT_COVERED)
    row_sum = factor.mT @ factor.sum(2, keepdim=True)  # (B, L, 1), the row sums of M^T M

    def mix(values: Tensor) -> Tensor:
        patches = values[:, 1:].float()
        shared = factor.mT @ (factor @ patches)
        average = torch.where(row_sum > 0, shared / row_sum.clamp_min(1e-12), patches)
        return torch.cat([values[:, :1], average.to(values.dtype)], 1)

    return mix

"""Patch severance: attention in the last layers is replaced, so that features do not leak between segments.

A severed block keeps its value projection, output projection and MLP; only the step that mixes tokens changes
(docs/method.md §3). ``Severance`` says how and in which blocks; ``mixer`` builds the mixing function of one batch,
which all severed blocks share.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.networks.attention import attend
from deop.networks.resampling import to_patches
from deop.severance import KINDS, Severance

__all__ = ["KINDS", "Severance", "mixer", "patch_coverage"]

NOT_COVERED = 1e-6
"""Largest probability that counts as not covered. Outside a given mask the probability is 2e-9, never 0."""

Mix = Callable[[Tensor], Tensor]
"""Values (B, 1 + L, C), class token first -> mixed values of the same shape."""


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
    # Without proposals the affinity is all zero, so every token receives the mean value. A column of zeros changes
    # nothing otherwise; an exported graph always has it, since its number of proposals is not known.
    if torch.compiler.is_exporting() or tokens.shape[2] == 0:
        tokens = F.pad(tokens, (0, 1))
    # (B, 1, 1 + L), True for tokens that may be attended to: nothing is taken from padding.
    keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None]

    def mix(values: Tensor) -> Tensor:
        # softmax(M^T M) v is unscaled attention with M^T as both queries and keys: no L x L matrix is stored.
        factor = tokens.to(values.dtype)
        return attend(factor, factor, values, keys, scale=1.0)

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

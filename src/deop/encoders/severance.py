"""Patch severance: attention in the last layers is replaced, so that features do not leak between segments.

A severed block keeps its value projection, output projection and MLP; only the step that mixes tokens changes
(docs/method.md §3). ``Severance`` says how and in which blocks; ``mixer`` builds the mixing function of one batch,
which all severed blocks share. ``similar`` and ``region`` are in ``encoders/similarity.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.encoders.similarity import NOT_COVERED, Mix, Project, Scene, scene_of, similar
from deop.errors import SettingError
from deop.networks.attention import attend
from deop.networks.resampling import to_patches
from deop.severance import KINDS, Severance

__all__ = ["KINDS", "NOT_COVERED", "Mix", "Severance", "Tokens", "mixer", "patch_coverage"]


@dataclass(frozen=True)
class Tokens:
    """What a severed block passes to a function that is used as ``Severance.kind``.

    Attributes:
        values: (B, 1 + L, C) float, W_v x + b_v; the class token first. Towers without one have an unused token there.
        project: "q", "k" or "v" -> (B, heads, 1 + L, d) float, the queries, keys or values by head.
        grid: (gh, gw) of the L patches, in rows.
        coverage: (B, N, L) float in [0, 1], coverage of each patch by each proposal, 0 for proposals that are padding
            and patches outside the image; None without masks.
        inside: (B, L) bool, False for patches in the padding of an image; None: all are inside.
    """

    values: Tensor
    project: Project
    grid: tuple[int, int]
    coverage: Tensor | None
    inside: Tensor | None


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


def mixer(
    severance: Severance | str,
    coverage: Tensor | None = None,
    valid: Tensor | None = None,
    inside: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    proxy: Tensor | None = None,
    class_token: bool = True,
) -> Mix:
    """Build the function that mixes the values of severed blocks, for one batch.

    Args:
        severance: how; its layers are not used. Or one of ``KINDS`` except "none".
        coverage: (B, N, L) float in [0, 1], coverage of each patch by each proposal; unused by ``self`` and
            ``similar``. With ``proxy``, of the cells of its grid.
        valid: (B, N) bool, False for padding if the images of a batch have different N; None: all are valid.
        inside: (B, L) bool, False for patches in the padding of an image; None: all are inside.
        grid: (gh, gw) of the L patches; needed by functions, ``neighbours`` and "proxy".
        proxy: (B, c, gh', gw') float, features of another network on any grid; needed by ``similarity="proxy"``.
        class_token: False for a tower without class token, whose first token is never attended to.

    Returns:
        A function from values (B, 1 + L, C), and a function that projects queries and keys, to mixed values
        (B, 1 + L, C), or (B, 1 + gh' * gw', C) with "proxy".

    Raises:
        SettingError: masks or features that the severance needs are missing.
    """
    severance = Severance(severance) if isinstance(severance, str) else severance
    if severance.kind == "self":
        return lambda values, project=None: values
    if severance.needs_masks and coverage is None:
        raise SettingError(f"severance {severance.name!r} needs masks: pass masks to the encoder, or use 'self'")
    scene = scene_of(coverage, valid, inside, grid, proxy, class_token)
    if callable(severance.kind):
        return _function(severance.kind, scene)
    if severance.kind in ("similar", "region"):
        return similar(severance, scene)
    return {"gate": _gate, "gate-normalized": _gate_normalized, "affinity": _affinity}[severance.kind](scene)


def _function(function: Callable[..., Tensor], scene: Scene) -> Mix:
    assert scene.grid is not None

    def mix(values: Tensor, project: Project | None = None) -> Tensor:
        assert project is not None
        assert scene.grid is not None
        mixed = function(Tokens(values, project, scene.grid, scene.coverage, scene.inside))
        if mixed.shape != values.shape:
            raise SettingError(
                f"the severance {getattr(function, '__name__', function)!r} returned values of shape "
                f"{tuple(mixed.shape)}: expected {tuple(values.shape)}"
            )
        return mixed

    return mix


def _gate(scene: Scene) -> Mix:
    coverage, valid = scene.masks()
    count = valid.sum(1, keepdim=True, dtype=coverage.dtype)
    gain = torch.cat([count, coverage.sum(1)], 1)[..., None]
    return lambda values, project=None: gain.to(values.dtype) * values


def _gate_normalized(scene: Scene) -> Mix:
    gain = scene.masks()[0].float().sum(1)  # (B, L)
    patches = gain.shape[1] if scene.inside is None else scene.inside.sum(1, keepdim=True)
    mean = gain.sum(1, keepdim=True) / patches
    gain = torch.where(mean > 0, gain / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)
    gain = torch.cat([torch.ones_like(gain[:, :1]), gain], 1)[..., None]
    return lambda values, project=None: gain.to(values.dtype) * values


def _affinity(scene: Scene) -> Mix:
    coverage, valid = scene.masks()
    inside = scene.inside
    tokens = torch.cat([valid.to(coverage.dtype)[:, :, None], coverage], 2).mT  # M^T: (B, 1 + L, N)
    # Without proposals the affinity is all zero, so every token receives the mean value. A column of zeros changes
    # nothing otherwise; an exported graph always has it, since its number of proposals is not known.
    if torch.compiler.is_exporting() or tokens.shape[2] == 0:
        tokens = F.pad(tokens, (0, 1))
    # (B, 1, 1 + L), True for tokens that may be attended to: nothing is taken from padding.
    keys = None
    if inside is not None or not scene.class_token:
        shape = (coverage.shape[0], coverage.shape[2])
        inside = coverage.new_ones(shape, dtype=torch.bool) if inside is None else inside
        keys = F.pad(inside, (1, 0), value=scene.class_token)[:, None]

    def mix(values: Tensor, project: Project | None = None) -> Tensor:
        # softmax(M^T M) v is unscaled attention with M^T as both queries and keys: no L x L matrix is stored.
        factor = tokens.to(values.dtype)
        return attend(factor, factor, values, keys, scale=1.0)

    return mix

"""Severed attention by similarity: the kinds ``similar`` and ``region`` of ``Severance`` (docs/method.md §3).

Weights of L x L are only computed where a similarity is not uniform, and then by a fused kernel, to which the scope of
the masks and the Gaussian of the neighbours are passed as one bias for all heads. The bias is built for some rows at a
time, so that it never has more than ``LIMIT`` numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.networks.attention import attend
from deop.networks.resampling import resize_bilinear
from deop.severance import Severance

Project = Callable[[str], Tensor]
"""Letter "q", "k" or "v" -> queries, keys or values (B, heads, 1 + L, d), class token first."""

Mix = Callable[..., Tensor]
"""Values (B, 1 + L, C), class token first, and a ``Project`` -> mixed values of the same shape."""

NOT_COVERED = 1e-6
"""Largest probability that counts as not covered. Outside a given mask the probability is 2e-9, never 0."""

LIMIT = 1 << 24
"""Numbers of a bias or of shared weights that are in memory at once (64 MiB in float32); a few such arrays exist at a
time. A single row of a batch may exceed it."""


@dataclass(frozen=True)
class Scene:
    """Masks and geometry of a batch, which all severed blocks share.

    Attributes:
        coverage: (B, N, L) float, 0 for proposals that are padding and for patches outside the image; or None.
        valid: (B, N) bool, or None without masks.
        inside: (B, L) bool, or None if all patches are inside.
        grid: (gh, gw), or None if unknown.
        proxy: (B, gh' * gw', c) float32 of unit length, or None.
        proxy_grid: (gh', gw'), or None.
        class_token: whether the first token is a class token; else it is unused.
    """

    coverage: Tensor | None
    valid: Tensor | None
    inside: Tensor | None
    grid: tuple[int, int] | None
    proxy: Tensor | None
    proxy_grid: tuple[int, int] | None
    class_token: bool = True

    def masks(self) -> tuple[Tensor, Tensor]:
        """Coverage and validity of a scene that has masks."""
        assert self.coverage is not None
        assert self.valid is not None
        return self.coverage, self.valid


def scene_of(
    coverage: Tensor | None,
    valid: Tensor | None,
    inside: Tensor | None,
    grid: tuple[int, int] | None,
    proxy: Tensor | None,
    class_token: bool = True,
) -> Scene:
    """The scene of a batch; arguments as in ``encoders.severance.mixer``."""
    if coverage is not None:
        if valid is None:
            valid = torch.ones_like(coverage[:, :, 0], dtype=torch.bool)
        coverage = coverage * valid[..., None]
        if inside is not None:
            coverage = coverage * inside[:, None]
    if proxy is None:
        return Scene(coverage, valid, inside, grid, None, None, class_token)
    unit = F.normalize(proxy.float().flatten(2).mT, dim=-1)
    return Scene(coverage, valid, inside, grid, unit, (proxy.shape[-2], proxy.shape[-1]), class_token)


def region_scope(coverage: Tensor, valid: Tensor | None, inside: Tensor | None, registers: int = 0) -> Tensor:
    """What is added to the scores of region tokens: the log of the coverage, and 0 for registers and class token.

    Args:
        coverage: (B, N, gh, gw) in [0, 1], coverage of each patch by each mask.
        valid: as in ``encoders.severance.mixer``.
        inside: as in ``encoders.severance.mixer``.
        registers: R, the number of registers.

    Returns:
        (B, 1, N, R + 1 + gh * gw), -inf for patches that a mask does not cover.
    """
    factor, _ = scene_of(coverage.flatten(2), valid, inside, None, None).masks()
    covered = factor > NOT_COVERED
    bias = torch.where(covered, factor, 1).log().masked_fill(~covered, float("-inf"))
    return F.pad(bias, (1 + registers, 0))[:, None]


def similar(severance: Severance, scene: Scene) -> Mix:
    """The mixing function of the kinds ``similar`` and ``region``."""
    if severance.similarity == "proxy":
        return _by_proxy(severance, scene)
    if severance.similarity:
        return _by_heads(severance, scene)
    return _by_neighbours(severance, scene) if severance.neighbours else _uniform(severance, scene)


def _uniform(severance: Severance, scene: Scene) -> Mix:
    """Averages over the scope, computed as products with the coverage: no L x L matrix."""
    region = severance.kind == "region"
    factor = inside = own = row_sum = None
    if region:
        # Computed in float32: sums over N proposals and L patches overflow float16.
        factor = _covered(scene.masks()[0])
        own = factor.square().sum(1)[..., None]  # (B, L, 1), the diagonal of M^T M
        row_sum = factor.mT @ factor.sum(2, keepdim=True)  # (B, L, 1), the row sums of M^T M
        if severance.class_key:
            row_sum = row_sum + own
    elif scene.inside is not None:
        inside = scene.inside[..., None]

    def mix(values: Tensor, project: Project | None = None) -> Tensor:
        patches, class_value = values[:, 1:].float(), values[:, :1].float()
        total = patches if inside is None else patches * inside
        everywhere = total.sum(1, keepdim=True)
        count = patches.shape[1] if inside is None else inside.sum(1, keepdim=True)
        if severance.class_key:
            everywhere, count = everywhere + class_value, count + 1
        average = (everywhere / count).expand_as(patches)
        if factor is not None and own is not None and row_sum is not None:
            shared = factor.mT @ (factor @ patches)
            if severance.class_key:
                shared = shared + own * class_value
            alone = patches if severance.uncovered == "self" else average
            if severance.class_key and severance.uncovered == "self":
                alone = (patches + class_value) / 2
            average = torch.where(row_sum > 0, shared / row_sum.clamp_min(1e-12), alone)
        return _with_class_token(values, severance.gain * average)

    return mix


def _by_heads(severance: Severance, scene: Scene) -> Mix:
    """Attention of each head with its own queries, keys or values, by a fused kernel."""
    pairs = [("q", "k")] if severance.similarity == "cross" else [(letter, letter) for letter in severance.similarity]
    first_key = 0 if severance.class_key else 1

    def mix(values: Tensor, project: Project | None = None) -> Tensor:
        assert project is not None
        sides = [(project(query)[:, :, 1:], project(key)[:, :, first_key:]) for query, key in pairs]
        heads, depth = sides[0][0].shape[1], sides[0][0].shape[3]
        value = values[:, first_key:].unflatten(-1, (heads, depth)).transpose(1, 2)
        scale = severance.sharpness * depth**-0.5
        parts = []
        for rows, bias in _biases(severance, scene, values):
            mixed = [attend(query[:, :, rows], key, value, bias, scale) for query, key in sides]
            parts.append(mixed[0] if len(mixed) == 1 else torch.stack(mixed).mean(0))
        patches = (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).transpose(1, 2).flatten(2)
        return _with_class_token(values, severance.gain * patches)

    return mix


def _by_neighbours(severance: Severance, scene: Scene) -> Mix:
    """The Gaussian alone, at the scale of ordinary scores: mean |q| |k| / sqrt(d) over heads, queries and keys."""

    def mix(values: Tensor, project: Project | None = None) -> Tensor:
        assert project is not None
        queries, keys = project("q").float(), project("k").float()
        weight = queries.new_ones(values.shape[0], values.shape[1] - 1)
        if scene.inside is not None:
            weight = scene.inside.float()  # tokens in the padding do not count
        weight = F.pad(weight, (1, 0), value=float(scene.class_token))
        weight = weight[:, None] / weight.sum(1)[:, None, None]  # (B, 1, 1 + L)
        lengths = (queries.norm(dim=-1) * weight).sum(2) * (keys.norm(dim=-1) * weight).sum(2)  # (B, heads)
        scale = severance.sharpness * lengths.mean(1)[:, None, None] * queries.shape[-1] ** -0.5
        source = (values if severance.class_key else values[:, 1:]).float()
        parts = [
            (scale * _neighbours(severance, scene, rows, values.device) + _zero_or(scope)).softmax(-1) @ source
            for rows, scope in _scopes(severance, scene, values.shape[1] - 1, values.shape[0])
        ]
        return _with_class_token(values, severance.gain * torch.cat(parts, 1))

    return mix


def _by_proxy(severance: Severance, scene: Scene) -> Mix:
    """Cosine similarities of another network's features, on its grid, as one matrix for all heads."""
    if scene.proxy is None or scene.proxy_grid is None or scene.grid is None:
        raise SettingError(
            'similarity="proxy" needs the features of a second network: pass proxy to the encoder, or load the model '
            "with one (proxy=..., --proxy)"
        )
    unit, grid, proxy_grid = scene.proxy, scene.grid, scene.proxy_grid
    count = unit.shape[1]
    mean = unit.sum(1).square().sum(-1)[:, None, None] / count**2  # of all L' x L' similarities
    covered = _covered(scene.masks()[0]) if severance.kind == "region" else None
    if covered is not None and severance.merge:
        covered = _merged(covered, unit, severance.merge)

    def scores(rows: slice) -> Tensor:
        cosines = unit[:, rows] @ unit.mT  # (B, R, L')
        index = torch.arange(count, device=unit.device)
        own = index[rows, None] == index
        result = cosines if severance.sharpness == 1 else severance.sharpness * cosines
        if severance.shift:
            result = result - severance.sharpness * severance.shift * mean
            result = result.masked_fill((result < 0) & ~own, float("-inf"))
        if severance.neighbours:
            result = result + _gaussian(proxy_grid, severance.neighbours, rows, unit.device)
        if covered is not None:
            scope = covered[:, :, rows].mT @ covered
            none = covered.sum(1) == 0  # (B, L')
            if severance.uncovered == "similar":
                either = none[:, rows, None] | none[:, None]
                scope = torch.where(either, (cosines > mean).to(scope.dtype), scope)
            result = result + torch.where(own & none[:, None], 1, scope).log()
        return result

    def mix(values: Tensor, project: Project | None = None) -> Tensor:
        maps = values[:, 1:].float().mT.unflatten(2, grid)
        source = resize_bilinear(maps, proxy_grid).flatten(2).mT
        parts = [scores(rows).softmax(-1) @ source for rows in _rows(count, len(unit) * count)]
        return _with_class_token(values, severance.gain * torch.cat(parts, 1))

    return mix


def similar_masks(coverage: Tensor, features: Tensor, threshold: float) -> Tensor:
    """Find groups of masks with similar mean features: connected components of the masks within a threshold.

    Args:
        coverage: (B, N, L) float32, coverage of each cell by each mask.
        features: (B, L, c) float32 of unit length.
        threshold: largest cosine similarity of any two masks, minus theirs, at which two masks are linked.

    Returns:
        (B, N, N) bool, whether two masks are in one group; an empty mask is alone.
    """
    means = F.normalize(coverage @ features, dim=-1)
    cosines = means @ means.mT
    filled = coverage.sum(2) > 0
    largest = cosines.amax((1, 2), keepdim=True) if coverage.shape[1] else cosines
    linked = (largest - cosines <= threshold) & filled[:, :, None] & filled[:, None]
    linked = linked | torch.eye(coverage.shape[1], dtype=torch.bool, device=coverage.device)
    # Paths of up to 2^8 links. A fixed number of steps, so that the function can be exported.
    for _ in range(8):
        linked = (linked.float() @ linked.float()) > 0
    return linked


def _merged(coverage: Tensor, features: Tensor, threshold: float) -> Tensor:
    """Coverage (B, N, L) by the group of each mask, scaled so that M^T M counts each group once."""
    group = similar_masks(coverage, features, threshold).float()
    return (group @ coverage).clamp_max(1) / group.sum(2, keepdim=True).sqrt()


def _with_class_token(values: Tensor, patches: Tensor) -> Tensor:
    """Mixed patches behind the value of the class token, which the caller replaces unless it is severed."""
    return torch.cat([values[:, :1], patches.to(values.dtype)], 1)


def _covered(coverage: Tensor) -> Tensor:
    """Coverage in float32, 0 where a patch counts as not covered.

    A sigmoid is never 0. Without this, a patch in no mask would receive the mean of all covered patches.
    """
    factor = coverage.float()
    return factor * (factor > NOT_COVERED)


def _rows(count: int, numbers_per_pass: int) -> Iterator[slice]:
    """Slices of the rows, so that each has about ``LIMIT`` of ``numbers_per_pass`` numbers; one slice in an export."""
    if torch.compiler.is_exporting():
        yield slice(None)
        return
    step = max(1, count * LIMIT // max(numbers_per_pass, 1))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def _scopes(severance: Severance, scene: Scene, count: int, batch: int) -> Iterator[tuple[slice, Tensor | None]]:
    """For some rows at a time: log O as (B, R, K) float32, -inf for patches outside the scope; None: all patches.

    The class token, if it is a key, is the first of the K; it counts like the patch itself, so that repeating all
    proposals changes nothing. No gradient passes through the masks: that of log 0 is infinite.
    """
    region = severance.kind == "region"
    if not region:
        keys = None
        if scene.inside is not None:
            keys = torch.zeros_like(scene.inside, dtype=torch.float32).masked_fill(~scene.inside, float("-inf"))
            keys = F.pad(keys, (int(severance.class_key), 0))[:, None]
        for rows in _rows(count, count**2 if severance.neighbours else 1):
            yield rows, keys
        return
    with torch.no_grad():
        factor = _covered(scene.masks()[0])
        own = factor.square().sum(1)  # (B, L)
        none = own == 0
        index = torch.arange(factor.shape[2], device=factor.device)
    for rows in _rows(count, batch * count**2):
        with torch.no_grad():
            scope = factor[:, :, rows].mT @ factor
            if severance.uncovered == "similar":
                reach = none[:, rows, None]
                if scene.inside is not None:
                    reach = reach & (scene.inside[:, None] | (index[rows, None] == index))
            else:
                reach = none[:, rows, None] & (index[rows, None] == index)
            scope = torch.where(reach, 1, scope)
            if severance.class_key:
                scope = torch.cat([torch.where(none, 1, own)[:, rows, None], scope], 2)
            scope = scope.log()
        yield rows, scope


def _biases(severance: Severance, scene: Scene, values: Tensor) -> Iterator[tuple[slice, Tensor | None]]:
    """As ``_scopes``, with the Gaussian added: (B, 1, R, K) of the dtype of ``values``."""
    for rows, scope in _scopes(severance, scene, values.shape[1] - 1, values.shape[0]):
        bias = scope
        if severance.neighbours:
            bias = _neighbours(severance, scene, rows, values.device) + _zero_or(scope)
        yield rows, None if bias is None else bias[:, None].to(values.dtype)


def _neighbours(severance: Severance, scene: Scene, rows: slice, device: torch.device) -> Tensor:
    """The Gaussian (1, R, K); 0 for the class token."""
    if scene.grid is None:
        raise SettingError("neighbours need the patch grid: pass grid")
    gaussian = _gaussian(scene.grid, severance.neighbours, rows, device)
    return F.pad(gaussian, (1, 0)) if severance.class_key else gaussian


def _gaussian(grid: tuple[int, int], sigma: float, rows: slice, device: torch.device) -> Tensor:
    """(1, R, L): exp(-d^2 / (2 sigma^2)), with d the distance of two patches of a grid in patches."""
    across, down = (
        torch.exp(-(steps[:, None] - steps).square() / (2 * sigma**2))
        for steps in (torch.arange(size, device=device, dtype=torch.float32) for size in reversed(grid))
    )
    row = torch.arange(grid[0], device=device)[:, None].expand(grid).flatten()
    column = torch.arange(grid[1], device=device).expand(grid).flatten()
    return (down[row[rows]][:, row] * across[column[rows]][:, column])[None]


def _zero_or(scope: Tensor | None) -> Tensor | float:
    return 0.0 if scope is None else scope

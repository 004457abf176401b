"""The tokens of a batch on their way through severed and ordinary blocks, and windows that are joined in between."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deop.encoders.severance import Mix, Severance, mixer
from deop.encoders.windows import Layout


@dataclass(frozen=True)
class Plan:
    """Which blocks are severed, and how, for one batch.

    Attributes:
        severance: its values.
        residuals: index of each severed block -> weight of its residual stream.
        levels: the blocks whose streams are averaged.
        mix: the mixing function of severed blocks.
        first: the first severed block, or the last block if none is.
        grid: (rows, columns) of the resulting patch features.
    """

    severance: Severance
    residuals: dict[int, float]
    levels: frozenset[int]
    mix: Mix | None
    first: int
    grid: tuple[int, int]

    @classmethod
    def of(
        cls,
        severance: Severance,
        depth: int,
        coverage: Tensor | None,
        valid: Tensor | None,
        inside: Tensor | None,
        grid: tuple[int, int],
        proxy: Tensor | None,
        class_token: bool = True,
    ) -> "Plan":
        """The plan of a batch for an encoder of ``depth`` blocks; other arguments as in ``mixer``."""
        residuals, mix = severance.residuals(depth), None
        if residuals:
            flat = None if coverage is None else coverage.flatten(2)
            mix = mixer(severance, flat, valid, inside, grid, proxy, class_token)
            if severance.needs_proxy and proxy is not None:
                grid = (proxy.shape[-2], proxy.shape[-1])
        levels = frozenset(level % depth for level in severance.levels) if residuals else frozenset()
        return cls(severance, residuals, levels, mix, min(residuals, default=depth - 1), grid)


@dataclass
class Stream:
    """Tokens on their way through the blocks.

    Attributes:
        x: (B, R + 1 + L + N, C): registers, class token, patches, region tokens.
        level: (B, 1 + L, C), sum of the streams after the levels so far, then the severed block's result for their
            mean; None without levels.
        branches: (B, L, C), sum of the severed blocks' results, if they are parallel.
        ordinary: (B, 1 + L, C), the tokens as if nothing were severed; None if they are not needed.
    """

    x: Tensor
    level: Tensor | None = None
    branches: Tensor | None = None
    ordinary: Tensor | None = None


def stitched(stream: Stream, layout: Layout, scope: Tensor | None) -> Stream:
    """The stream of an image from that of its windows, with the coverage ``scope`` of region tokens by window."""
    count = stream.x.shape[1] - (0 if scope is None else scope.shape[1])
    x = layout.stitch(stream.x[:, :count])
    if scope is not None:
        x = torch.cat([x, layout.stitch_regions(stream.x[:, count:], scope)], 1)
    return Stream(x, None if stream.level is None else layout.stitch(stream.level))


def part_of(maps: Tensor | None, chosen: list[int], share: tuple[float, float]) -> Tensor | None:
    """Some images of maps (B, C, rows, columns), with the first ``share`` of their rows and columns."""
    if maps is None:
        return None
    rows, columns = (max(1, round(part * size)) for part, size in zip(share, maps.shape[-2:], strict=True))
    return maps[chosen, :, :rows, :columns]

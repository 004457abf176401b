"""Overlapping windows of an image for an encoder that was trained at one size (docs/method.md §3, "Windows")."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from deop.errors import SettingError

Windows = tuple[int, int]
"""Side of a window and distance of neighbouring windows, in pixels."""


def check_windows(windows: Windows | None) -> None:
    """Refuse windows that do not cover an image.

    Raises:
        SettingError: naming the value.
    """
    if windows is None:
        return
    if len(windows) != 2 or not 0 < windows[1] <= windows[0]:
        raise SettingError(
            f"windows are {tuple(windows)}: give their side and their distance in pixels, such as (336, 224); the "
            "distance is at most the side"
        )


@dataclass(frozen=True)
class Layout:
    """Where the windows lie on a patch grid.

    Attributes:
        grid: (gh, gw) of the image in patches.
        window: (rows, columns) of a window in patches; no larger than the grid.
        origins: first row and column of each of the W windows.
    """

    grid: tuple[int, int]
    window: tuple[int, int]
    origins: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, windows: Windows, grid: tuple[int, int], patch: int) -> "Layout":
        """Windows at multiples of the stride; the last one of each row and column ends at the border.

        Raises:
            SettingError: a window smaller than a patch.
        """
        check_windows(windows)
        side, stride = windows[0] // patch, max(windows[1] // patch, 1)
        if side < 1:
            raise SettingError(f"a window of {windows[0]} pixels is smaller than a patch of {patch}")
        window = (min(side, grid[0]), min(side, grid[1]))
        rows, columns = (
            [*range(0, length - part, stride), length - part] for length, part in zip(grid, window, strict=True)
        )
        return cls(grid, window, tuple((row, column) for row in rows for column in columns))

    @property
    def count(self) -> int:
        """W, the number of windows."""
        return len(self.origins)

    def cut(self, maps: Tensor) -> Tensor:
        """Maps (B, C, gh, gw) of an image as maps (B * W, C, rows, columns) of its windows."""
        (rows, columns), origins = self.window, self.origins
        return torch.stack([maps[..., r : r + rows, c : c + columns] for r, c in origins], 1).flatten(0, 1)

    def stitch(self, tokens: Tensor) -> Tensor:
        """Tokens of windows (B * W, P + rows * columns, C) as tokens (B, P + gh * gw, C).

        Patches in several windows are averaged, with weights that decrease linearly towards the border of a window, so
        that no border is visible. The P tokens before the patches, registers and the class token, are the means of
        those of the windows.
        """
        each = tokens.unflatten(0, (-1, self.count))  # (B, W, P + rows * columns, C)
        rows, columns = self.window
        first = tokens.shape[1] - rows * columns
        weight = self._weight.to(tokens.device)
        total = torch.zeros(len(each), tokens.shape[-1], *self.grid, device=tokens.device)
        share = torch.zeros(self.grid, device=tokens.device)
        for index, (r, c) in enumerate(self.origins):
            patches = each[:, index, first:].float().mT.unflatten(2, self.window)
            total[..., r : r + rows, c : c + columns] += weight * patches
            share[r : r + rows, c : c + columns] += weight
        image = (total / share).flatten(2).mT.to(tokens.dtype)
        return torch.cat([each[:, :, :first].mean(1), image], 1)

    def stitch_regions(self, tokens: Tensor, coverage: Tensor) -> Tensor:
        """Region tokens of windows (B * W, N, C) as tokens (B, N, C), by how much of the mask each window shows.

        Args:
            tokens: those of the windows.
            coverage: (B * W, N, rows, columns) in [0, 1], coverage of each patch by each mask.
        """
        shown = coverage.float().sum((-2, -1)).unflatten(0, (-1, self.count))[..., None] + 1e-6  # (B, W, N, 1)
        return ((tokens.unflatten(0, (-1, self.count)) * shown).sum(1) / shown.sum(1)).to(tokens.dtype)

    @cached_property
    def _weight(self) -> Tensor:
        """(rows, columns) float32: 1 at the border of a window, larger inside."""
        down, across = (
            torch.minimum(torch.arange(1, size + 1), torch.arange(size, 0, -1)).float() for size in self.window
        )
        return down[:, None] * across

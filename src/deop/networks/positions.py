"""Sinusoidal position codes of a grid, used by the proposal networks and the anchor decoder."""

import torch
from torch import Tensor


def sine_positions(
    channels: int,
    height: int,
    width: int,
    *,
    extent: tuple[int | Tensor, int | Tensor] | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sinusoidal code of each cell of a grid (docs/method.md §2, "Sinusoidal position code").

    Rows and columns are counted from 1 and scaled so that the last one is at (almost) 2 pi for any size.

    Args:
        channels: channels of the code, a multiple of 4. The first half encodes the row, the second the column.
        height: rows of the grid.
        width: columns of the grid.
        extent: rows and columns that positions are scaled by; None: those of the grid. Cells beyond have no meaning.
        device: device of the result.
        dtype: dtype of the result; the code is computed in float32.

    Returns:
        (channels, height, width), values in [-1, 1].
    """
    half = channels // 2
    index = torch.arange(half, device=device, dtype=torch.float32)
    period = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def code(cells: int, length: int | Tensor) -> Tensor:
        position = torch.arange(1, cells + 1, device=device, dtype=torch.float32) / (length + 1e-6) * (2 * torch.pi)
        angle = position[:, None] / period
        return torch.where(index.long() % 2 == 0, angle.sin(), angle.cos()).T  # (half, cells)

    down, across = extent or (height, width)
    rows = code(height, down)[:, :, None].expand(half, height, width)
    columns = code(width, across)[:, None, :].expand(half, height, width)
    return torch.cat([rows, columns]).to(dtype)

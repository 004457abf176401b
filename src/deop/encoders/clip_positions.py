"""Position tables of CLIP's vision transformer, fitted to images of any size (docs/method.md §3, "Positions")."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.networks.resize_matrices import antialiased_weights, bicubic_weights


def interpolate_positions(table: Tensor, grid: tuple[int, int], rule: str = "grid") -> Tensor:
    """Fit a position table to a patch grid, usually bicubic without antialiasing (docs/method.md §3, "Positions").

    Args:
        table: (1 + g * g, C) float, the class token's row first.
        grid: (gh, gw), the patch grid of the image.
        rule: "grid": interpolate unless the grid is (g, g); "count": unless gh * gw = g * g, the original's rule;
            "offset": as "grid", at the scale of a grid of (gh + 0.1, gw + 0.1); "antialiased": as "grid", bilinear with
            antialiasing.

    Returns:
        (1 + gh * gw, C), or ``table`` itself.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if grid == (side, side) or (rule == "count" and grid[0] * grid[1] == side * side):
        return table
    if rule == "antialiased" and grid[1] == 1:
        return positions_within(table, grid, grid, rule)  # torch 2.13 repeats the first row in results of one column
    square = table[1:].unflatten(0, (side, side)).permute(2, 0, 1)[None]
    if rule == "antialiased":
        fitted = F.interpolate(square.float(), size=grid, mode="bilinear", align_corners=False, antialias=True)[0]
        return torch.cat([table[:1], fitted.to(table.dtype).flatten(1).T])
    size: dict[str, Any] = {"size": grid}
    if rule == "offset":
        size = {"scale_factor": ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)}
    # In float32: not every device has a half-precision kernel for bicubic, and the table is small.
    fitted = F.interpolate(square.float(), **size, mode="bicubic", align_corners=False)[0].to(table.dtype)
    return torch.cat([table[:1], fitted.flatten(1).T])


def positions_within(
    table: Tensor, grid: tuple[int, int], extent: tuple[int | Tensor, int | Tensor], rule: str = "grid"
) -> Tensor:
    """``interpolate_positions`` in a form that can be exported for sizes that are not known.

    Args:
        table: (1 + g * g, C) float, the class token's row first.
        grid: (gh, gw), the patch grid of the canvas.
        extent: rows and columns of the patches that the image covers, integers or tensors of one.
        rule: as in ``interpolate_positions``.

    Returns:
        (1 + gh * gw, C); rows of patches beyond ``extent`` have no meaning.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    square = table[1:].unflatten(0, (side, side)).permute(2, 0, 1).float()
    weights = antialiased_weights if rule == "antialiased" else bicubic_weights
    rows, columns = (weights(side, length, count).to(square.device) for length, count in zip(extent, grid, strict=True))
    fitted = (rows @ square @ columns.mT).flatten(1).T.to(table.dtype)
    if rule == "count":
        lengths = [length if isinstance(length, Tensor) else torch.scalar_tensor(length) for length in extent]
        down, across = (torch.arange(count) for count in grid)
        place = (down[:, None] * lengths[1].long() + across).flatten().clamp_max(side * side - 1)
        as_counted = lengths[0].long() * lengths[1].long() == side * side
        fitted = torch.where(as_counted, table[1:][place], fitted)
    return torch.cat([table[:1], fitted])

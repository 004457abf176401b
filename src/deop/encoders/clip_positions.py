"""Position tables of CLIP's vision transformer, fitted to images of any size (docs/method.md §3, "Positions")."""

from functools import lru_cache

import torch
from torch import Tensor

from deop.networks.resize_matrices import Length, antialiased_weights, bicubic_weights

OFFSET = 0.1
"""What the rule "offset" adds to the sides of a grid."""


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
    side = _side(table)
    if grid == (side, side) or (rule == "count" and grid[0] * grid[1] == side * side):
        return table
    weights = _weights if torch.compiler.is_compiling() else _kept_weights
    added = OFFSET if rule == "offset" else 0
    rows, columns = (weights(side, count + added, count, rule, table.device) for count in grid)
    with torch.autocast(table.device.type, enabled=False):  # in float32: the table is small
        return torch.cat([table[:1], _resized(table, rows, columns)])


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
    side = _side(table)
    lengths = [length if isinstance(length, Tensor) else torch.scalar_tensor(length) for length in extent]
    if rule == "offset":
        differs = 1 - (lengths[0] == side).float() * (lengths[1] == side).float()  # else the table is used as it is
        extent = (lengths[0] + OFFSET * differs, lengths[1] + OFFSET * differs)
    rows, columns = (
        _weights(side, length, count, rule, table.device) for length, count in zip(extent, grid, strict=True)
    )
    fitted = _resized(table, rows, columns)
    if rule == "count":
        down, across = (torch.arange(count) for count in grid)
        place = (down[:, None] * lengths[1].long() + across).flatten().clamp_max(side * side - 1)
        as_counted = lengths[0].long() * lengths[1].long() == side * side
        fitted = torch.where(as_counted, table[1:][place], fitted)
    return torch.cat([table[:1], fitted])


def _side(table: Tensor) -> int:
    return round((table.shape[0] - 1) ** 0.5)


def _weights(side: int, length: Length, count: int, rule: str, device: torch.device) -> Tensor:
    """(count, side) float32, the weights of one side."""
    return (antialiased_weights if rule == "antialiased" else bicubic_weights)(side, length, count).to(device)


@lru_cache(maxsize=64)
def _kept_weights(side: int, length: float, count: int, rule: str, device: torch.device) -> Tensor:
    """``_weights``, which would have to be brought to the device for each image."""
    with torch.inference_mode(False):  # training may need them later
        return _weights(side, length, count, rule, device)


def _resized(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The table of patches (g * g, C) without the first row, as (gh * gw, C).

    As products, which are faster than torch's bicubic resize, and keep the order of the table.
    """
    cells = (rows @ table[1:].float().unflatten(0, (rows.shape[1], -1)).flatten(1)).unflatten(1, (columns.shape[1], -1))
    return (columns @ cells).flatten(0, 1).to(table.dtype)

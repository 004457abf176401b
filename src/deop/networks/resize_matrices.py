"""Resizing as products with matrices, which can be exported as an ONNX graph for sizes that are not known at export.

A separable resize is ``rows @ maps @ columns.mT``, where each row of a matrix has the weights of the source cells of
one target cell. ONNX's Resize would need sizes that the exporter can prove to be consistent, and its antialiasing is
missing in some back ends.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Length = float | Tensor
"""Length of one side; a tensor has no dimensions."""

BICUBIC = -0.75
"""The parameter of torch's bicubic kernel."""


def to_patches_by_matrices(maps: Tensor, image_size: tuple[int, int], patch: int, *, antialias: bool = False) -> Tensor:
    """``resampling.to_patches`` for sizes that are unknown at export; the arguments are the same."""
    # Not -(-side // patch), which exporters round towards 0.
    down, across = (
        bilinear_weights(cells, _tensor(cells) * patch / _tensor(side), (side + patch - 1) // patch, antialias, patch)
        for cells, side in zip(maps.shape[-2:], image_size, strict=True)
    )
    # Columns first: that is one product with all rows, not one with each map.
    return (down @ (maps.float() @ across.mT)).to(maps.dtype)


def resize_tokens_by_matrices(tokens: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """``resampling.resize_tokens`` for sizes that are unknown at export; the arguments are the same.

    The channels stay last; a Resize would need a transposition before and after it.
    """
    down, across = (
        bilinear_weights(cells, _tensor(cells) / _tensor(count), count, False, 0)
        for cells, count in zip(grid, size, strict=True)
    )
    rows = down @ tokens.unflatten(1, grid).flatten(2)
    return across @ rows.unflatten(2, (grid[1], -1))


def bilinear_weights(cells: int, scale: Tensor, count: int, antialias: bool, most_beyond: int) -> Tensor:
    """The weights of a bilinear resize of one side (``align_corners=False``).

    Args:
        cells: source cells.
        scale: source cells for each target cell, a number.
        count: target cells, which may extend beyond the source: its last cell is then repeated.
        antialias: average over each target cell where it is larger than a source cell.
        most_beyond: the target extends beyond the source by fewer cells than this.

    Returns:
        (count, cells) float32; each row sums to 1.
    """
    length, scale = _tensor(cells).float(), scale.float()
    index = torch.arange(count, dtype=torch.float32)[:, None]
    if not antialias:
        position = ((index + 0.5) * scale - 0.5).clamp_min(0).minimum(length - 1)
        return _tent(torch.arange(cells, dtype=torch.float32) - position)
    width, end = scale.clamp_min(1), (count * scale).ceil().maximum(length)
    source = torch.arange(cells + most_beyond, dtype=torch.float32) + 0.5
    weights = _tent((source - (index + 0.5) * scale) / width) * (source < end)
    weights = weights / weights.sum(1, keepdim=True)
    repeated = weights[:, cells:].sum(1, keepdim=True) * (torch.arange(cells) == cells - 1)
    return weights[:, :cells] + repeated


def bicubic_weights(cells: int, length: Length, count: int) -> Tensor:
    """The weights of torch's bicubic resize of one side (``align_corners=False``).

    Args:
        cells: source cells.
        length: target cells that the source is resized to.
        count: rows of the result, at least ``length``; those beyond ``length`` have no meaning.

    Returns:
        (count, cells) float32; each row sums to 1.
    """
    index = torch.arange(count, dtype=torch.float32)
    position = (index + 0.5) * (cells / _tensor(length).float()) - 0.5
    first = position.floor()
    offset = position - first
    source = torch.arange(cells)
    weights = torch.zeros(1)
    for tap in (-1, 0, 1, 2):
        place = (first.long() + tap).clamp(0, cells - 1)
        weights = weights + _cubic((offset - tap).abs())[:, None] * (place[:, None] == source)
    return weights


def antialiased_weights(cells: int, length: Length, count: int) -> Tensor:
    """As ``bicubic_weights``, for torch's bilinear resize with antialiasing."""
    scale = _tensor(cells).float() / _tensor(length).float()
    position = (torch.arange(count, dtype=torch.float32)[:, None] + 0.5) * scale
    weights = _tent((torch.arange(cells, dtype=torch.float32) + 0.5 - position) / scale.clamp_min(1))
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-6)  # 0 beyond ``length``


def _tent(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def _cubic(distance: Tensor) -> Tensor:
    a = BICUBIC
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, far)


def _tensor(length: Length) -> Tensor:
    """A length as a tensor without dimensions: lengths that are unknown at export cannot be divided exactly."""
    return length if isinstance(length, Tensor) else torch.scalar_tensor(length, dtype=torch.float64)

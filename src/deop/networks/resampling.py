"""Resizing of masks: to the patch grid of an encoder, and to parts of the photo at its own size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.networks.resize_matrices import resize_tokens_by_matrices, to_patches_by_matrices


def resize_bilinear(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, h, w) bilinearly to ``size`` (H, W), without antialiasing (``align_corners=False``)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def resize_tokens(tokens: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """``resize_bilinear`` of tokens (B, gh * gw, C) on a grid (gh, gw), channels last: (B, H, W, C)."""
    if torch.compiler.is_exporting():
        return resize_tokens_by_matrices(tokens, grid, size)
    return resize_bilinear(tokens.mT.unflatten(2, grid), size).permute(0, 2, 3, 1)


def double(maps: Tensor, size: Sequence[int]) -> Tensor:
    """As ``resize_bilinear`` for a ``size`` that is that of the maps, or twice as large.

    With the factor as a constant, ONNX Runtime resizes the maps in the layout of its convolutions.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def to_patches(maps: Tensor, image_size: tuple[int, int], patch: int, *, antialias: bool = False) -> Tensor:
    """Resize maps of an image to the patch grid of the encoder, for any stride and patch size.

    If a side is not a multiple of the patch, the grid extends beyond the image; the last cells are then repeated.

    Args:
        maps: (B, N, h, w) float, covering the image; logits or probabilities.
        image_size: (H, W) of the image in pixels.
        patch: side of a patch in pixels.
        antialias: False: bilinear at the patch centres, as the original; True: averaged over each patch, so that
            masks smaller than a patch are not lost.

    Returns:
        (B, N, gh, gw) with gh = ceil(H / patch), gw = ceil(W / patch).
    """
    (height, width), (rows, columns) = image_size, maps.shape[-2:]
    grid = grid_of(image_size, patch)
    if torch.compiler.is_exporting() or (antialias and grid[1] == 1):
        # torch 2.13 returns the first row in all rows if the result is one cell wide.
        return to_patches_by_matrices(maps, image_size, patch, antialias=antialias)
    if 0 in maps.shape:
        return maps.new_zeros(*maps.shape[:2], *grid)
    dtype = maps.dtype
    if antialias:
        maps = maps.float()  # the CPU has no half-precision kernel for antialiasing
    if (grid[0] * patch, grid[1] * patch) != (height, width):
        # Pad the maps to the whole grid, and resize them at the scale of the image.
        cells = (-(-grid[0] * patch * rows // height), -(-grid[1] * patch * columns // width))
        maps = F.pad(maps, (0, cells[1] - columns, 0, cells[0] - rows), mode="replicate")
        scale = (height / rows / patch, width / columns / patch)
        resized = F.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False, antialias=antialias)
        if resized.shape[-2:] == grid:  # rounding of the scale may remove or add a last cell
            return resized.to(dtype)
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False, antialias=antialias).to(dtype)


def grid_of(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The patch grid (gh, gw) of an image of (H, W) pixels, rounded up.

    >>> grid_of((50, 64), 16)
    (4, 4)
    """
    # Not -(-size // patch), which exporters round towards 0.
    return (size[0] + patch - 1) // patch, (size[1] + patch - 1) // patch


def inside_images(
    sizes: Sequence[tuple[int, int]] | Tensor, grid: tuple[int, int], patch: int, device: torch.device
) -> Tensor | None:
    """Find the patches of a padded batch that contain a part of their image.

    Args:
        sizes: (height, width) of each image in pixels; or as a tensor (B, 2) int64 on ``device``, for exported graphs.
        grid: (gh, gw), the patch grid of the canvas.
        patch: side of a patch in pixels.
        device: device of the result.

    Returns:
        (B, gh * gw) bool, or None if all patches do, which is only found for sizes that are not a tensor. Computed
        from the sizes alone, without waiting for the device.
    """
    if not isinstance(sizes, Tensor) and all(grid_of(size, patch) == grid for size in sizes):
        return None
    tops, lefts = (torch.arange(count, device=device) * patch for count in grid)
    return torch.stack([(tops < height)[:, None] & (lefts < width) for height, width in sizes]).flatten(1)


def pool_cells(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``F.adaptive_avg_pool2d`` as two products with matrices, so that the sizes may be unknown at export.

    Cell i of n covers the rows floor(i L / n) to ceil((i + 1) L / n), exclusive, of L; columns likewise.

    Args:
        maps: (..., h, w) float.
        size: (rows, columns) of the result.

    Returns:
        (..., rows, columns), of the dtype of ``maps``; means are computed in float32.
    """
    rows, columns = (_bins(count, length, maps.device) for count, length in zip(size, maps.shape[-2:], strict=True))
    return (rows @ maps.float() @ columns.mT).to(maps.dtype)


def _bins(count: int, length: int, device: torch.device) -> Tensor:
    """(count, length) float32: the weight of each cell in the mean of each bin."""
    index, cell = torch.arange(count, device=device)[:, None], torch.arange(length, device=device)
    inside = (cell >= index * length // count) & (cell < ((index + 1) * length + count - 1) // count)
    return inside / inside.sum(1, keepdim=True)


def interpolate_rows(
    maps: Tensor, size: tuple[int, int], first: int, last: int, source: tuple[int, int] | None = None
) -> Tensor:
    """Rows ``first`` to ``last`` (exclusive) of ``F.interpolate(maps, size, mode="bilinear")``, without the others.

    Args:
        maps: (N, h, w) float; all rows of the map, or only those of ``source_rows``.
        size: (H, W) of the whole result.
        first: first row to compute.
        last: one past the last row to compute.
        source: if ``maps`` has only some rows: the index of the first of them, and the number of all rows.

    Returns:
        (N, last - first, W), equal to these rows of the whole result.
    """
    offset, rows = source or (0, maps.shape[-2])
    if size[0] == rows:
        chosen = maps[:, first - offset : last - offset]
    else:
        upper, lower, weight = _row_sources(rows, size[0], first, last, maps.device)
        weight = weight.to(maps.dtype)[:, None]
        chosen = torch.lerp(maps.index_select(1, upper - offset), maps.index_select(1, lower - offset), weight)
    if size[1] == maps.shape[-1]:
        return chosen
    if 0 in chosen.shape:
        return chosen.new_zeros(*chosen.shape[:2], size[1])
    return F.interpolate(chosen[None], size=(last - first, size[1]), mode="bilinear", align_corners=False)[0]


def source_rows(rows: int, height: int, first: int, last: int) -> tuple[int, int]:
    """The rows [low, high) of a map with ``rows`` rows that rows [first, last) depend on when resized to ``height``."""
    if rows == height:
        return first, last
    upper, lower, _ = _row_sources(rows, height, first, last, torch.device("cpu"))
    return int(upper.min()), int(lower.max()) + 1


def _row_sources(rows: int, height: int, first: int, last: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each row [first, last) its two source rows and the weight of the second (align_corners=False)."""
    position = (torch.arange(first, last, device=device, dtype=torch.float32) + 0.5) * (rows / height) - 0.5
    position = position.clamp_min(0)
    upper = position.long().clamp_max(rows - 1)
    return upper, (upper + 1).clamp_max(rows - 1), position - upper

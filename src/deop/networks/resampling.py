"""Masks at other resolutions: on the patch grid of the encoder, and a part at a time at the photo's size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_bilinear(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) resized bilinearly to ``size`` (H, W), without antialiasing."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def to_patches(maps: Tensor, image_size: tuple[int, int], patch: int, *, antialias: bool = False) -> Tensor:
    """Resize maps over an image to the patch grid of the encoder, for any stride and any patch size.

    Where the grid reaches beyond the image, because a side is no multiple of the patch, the last cells are repeated.

    Args:
        maps: (B, N, h, w) float, covering the image; logits or probabilities.
        image_size: (H, W) pixels of the image.
        patch: side of a patch, pixels.
        antialias: False: bilinear at the patch centres, as the original; True: averaged over the patch, so that
            nothing smaller than a patch is lost.

    Returns:
        (B, N, gh, gw) with gh = ceil(H / patch), gw = ceil(W / patch).
    """
    (height, width), (rows, columns) = image_size, maps.shape[-2:]
    grid = grid_of(image_size, patch)
    if 0 in maps.shape:
        return maps.new_zeros(*maps.shape[:2], *grid)
    dtype = maps.dtype
    if antialias:
        maps = maps.float()  # there is no half-precision kernel for it on the CPU
    if (grid[0] * patch, grid[1] * patch) != (height, width):
        # Lay the maps out over the whole grid; the scale stays that of the image.
        cells = (-(-grid[0] * patch * rows // height), -(-grid[1] * patch * columns // width))
        maps = F.pad(maps, (0, cells[1] - columns, 0, cells[0] - rows), mode="replicate")
        scale = (height / rows / patch, width / columns / patch)
        resized = F.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False, antialias=antialias)
        if resized.shape[-2:] == grid:  # rounding of the scale may cost or add a last cell
            return resized.to(dtype)
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False, antialias=antialias).to(dtype)


def grid_of(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The patch grid (gh, gw) of an image of (H, W) pixels; a patch begun counts."""
    return -(-size[0] // patch), -(-size[1] // patch)


def inside_images(
    sizes: list[tuple[int, int]], grid: tuple[int, int], patch: int, device: torch.device
) -> Tensor | None:
    """Which patches of a padded batch hold some of their image.

    Args:
        sizes: the (height, width) of each image, pixels.
        grid: (gh, gw) of the canvas.
        patch: side of a patch, pixels.
        device: where the answer is wanted.

    Returns:
        (B, gh * gw) bool, or None where all do. Found from the sizes alone: the device is not waited for.
    """
    grids = [grid_of(size, patch) for size in sizes]
    if all(own == grid for own in grids):
        return None
    inside = torch.zeros(len(grids), *grid, dtype=torch.bool, device=device)
    for index, (rows, columns) in enumerate(grids):
        inside[index, :rows, :columns] = True
    return inside.flatten(1)


def interpolate_rows(
    maps: Tensor, size: tuple[int, int], first: int, last: int, source: tuple[int, int] | None = None
) -> Tensor:
    """Rows ``first`` to ``last`` (exclusive) of ``F.interpolate(maps, size, mode="bilinear")``, and only those.

    Args:
        maps: (N, h, w) float; all rows of the map, or those that ``source_rows`` says are looked at.
        size: (H, W) of the whole result.
        first: first row wanted.
        last: one past the last row wanted.
        source: where only some rows are given, the number of the first of them and of all rows of the map.

    Returns:
        (N, last - first, W), equal to the rows of the whole.
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
    """The rows [low, high) of a map of ``rows`` rows that rows [first, last) of its resize to ``height`` look at."""
    if rows == height:
        return first, last
    upper, lower, _ = _row_sources(rows, height, first, last, torch.device("cpu"))
    return int(upper.min()), int(lower.max()) + 1


def resize_weights(source: int, target: int, first: int, last: int) -> tuple[slice, Tensor]:
    """Cells [first, last) of one side of a bilinear resize as a product with a few cells of what is resized.

    Args:
        source: cells of the side before.
        target: cells of the side after.
        first: first cell wanted.
        last: one past the last wanted.

    Returns:
        The cells before that count, and the (last - first, cells) float32 weights of each of them, on the CPU.
    """
    upper, lower, weight = _row_sources(source, target, first, last, torch.device("cpu"))
    low, high = int(upper.min()), int(lower.max()) + 1
    weights = torch.zeros(last - first, high - low)
    weights.scatter_add_(1, (upper - low)[:, None], (1 - weight)[:, None])
    weights.scatter_add_(1, (lower - low)[:, None], weight[:, None])
    return slice(low, high), weights


def _row_sources(rows: int, height: int, first: int, last: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each wanted row the two source rows and the weight of the second (align_corners=False)."""
    place = (torch.arange(first, last, device=device, dtype=torch.float32) + 0.5) * (rows / height) - 0.5
    place = place.clamp_min(0)
    upper = place.long().clamp_max(rows - 1)
    return upper, (upper + 1).clamp_max(rows - 1), place - upper

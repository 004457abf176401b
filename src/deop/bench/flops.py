"""Floating-point operations of an encoder, counted from its shape, and the rate that a machine multiplies at."""

import torch

from deop.encoders.clip import VisionConfig
from deop.networks.resampling import grid_of


def encoder_flops(config: VisionConfig, size: tuple[int, int], severed: int = 0) -> int:
    """Operations of one image: two for each multiplication with an addition, matrix products alone.

    Args:
        config: the tower.
        size: (H, W) of the image in pixels.
        severed: blocks whose values alone are computed, without queries, keys and attention.
    """
    rows, columns = grid_of(size, config.patch)
    patches, width = rows * columns, config.width
    tokens = patches + 1
    linear = tokens * width * (4 * width + 2 * config.hidden)
    attention = 2 * tokens**2 * width
    saved = severed * (tokens * 2 * width**2 + attention)
    embedding = patches * 3 * config.patch**2 * width
    projection = tokens * width * config.output
    return 2 * (config.layers * (linear + attention) - saved + embedding + projection)


class Product:
    """A matrix product, the best that the machine's library does.

    Args:
        device: where.
        dtype: of the matrices.
        side: of both.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, side: int) -> None:
        self.left = torch.randn(side, side, device=device, dtype=dtype)
        self.right = torch.randn(side, side, device=device, dtype=dtype)
        self.flops = 2 * side**3

    def __call__(self) -> torch.Tensor:
        """Multiply."""
        return self.left @ self.right

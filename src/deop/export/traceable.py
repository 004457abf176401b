"""Forms of other libraries' functions that can be traced for any size of photo."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


@contextmanager
def traceable() -> Iterator[None]:
    """Within this context, transformers' Mask2Former computes nothing whose size is a constant of the graph."""
    from transformers.models.mask2former import modeling_mask2former as mask2former

    # ``torch.linspace`` takes its number of steps as an integer, which the exporter then keeps for all photos.
    with patch.object(mask2former.Mask2FormerPixelDecoderEncoderOnly, "get_reference_points", staticmethod(_points)):
        yield


def _points(spatial_shapes_list: Sequence[Any], valid_ratios: Tensor, device: torch.device) -> Tensor:
    """``Mask2FormerPixelDecoderEncoderOnly.get_reference_points``: the centres of the cells of all feature maps."""
    points = []
    for level, sides in enumerate(spatial_shapes_list):
        y, x = (
            (torch.arange(side, dtype=valid_ratios.dtype, device=device) + 0.5)[None]
            / (valid_ratios[:, level, axis, None] * side)
            for side, axis in zip(sides, (1, 0), strict=True)
        )
        height, width = sides
        grid = y[:, :, None].expand(-1, height, width), x[:, None].expand(-1, height, width)
        points.append(torch.stack([grid[1].flatten(1), grid[0].flatten(1)], -1))
    return torch.cat(points, 1)[:, :, None] * valid_ratios[:, None]

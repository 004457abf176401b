"""Forms of other libraries' functions that can be traced for any size of photo."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


@contextmanager
def traceable() -> Iterator[None]:
    """Within this context, transformers' Mask2Former, OneFormer and Swin can be traced for sizes that are unknown."""
    from transformers.models.mask2former import modeling_mask2former as mask2former
    from transformers.models.oneformer import modeling_oneformer as oneformer
    from transformers.models.swin import modeling_swin as swin

    with ExitStack() as forms:
        # Checks of values, for which ONNX has no operation.
        forms.enter_context(patch.dict(os.environ, {"TRANSFORMERS_DISABLE_TORCH_CHECK": "1"}))
        # ``torch.linspace`` takes its number of steps as an integer, which the exporter then keeps for all photos.
        for encoder in (mask2former.Mask2FormerPixelDecoderEncoderOnly, oneformer.OneFormerPixelDecoderEncoderOnly):
            forms.enter_context(patch.object(encoder, "get_reference_points", staticmethod(_points)))
        forms.enter_context(patch.object(swin.SwinLayer, "maybe_pad", _pad_to_windows))
        yield


def _pad_to_windows(layer: Any, hidden_states: Tensor, height: int, width: int) -> tuple[Tensor, tuple[int, ...]]:
    """``SwinLayer.maybe_pad``: nested remainders take the exporter many minutes to simplify."""
    side = layer.window_size
    below, beside = ((length + side - 1) // side * side - length for length in (height, width))
    padding = (0, 0, 0, beside, 0, below)
    return torch.nn.functional.pad(hidden_states, padding), padding


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

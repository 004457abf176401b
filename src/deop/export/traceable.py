"""Forms of other libraries' functions that can be traced for any size of photo."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


def knows_forms() -> bool:
    """Whether the installed transformers has the form of Swin that ``traceable`` replaces."""
    from transformers.models.swin.modeling_swin import SwinLayer

    return hasattr(SwinLayer, "cyclic_shift")


@contextmanager
def traceable() -> Iterator[None]:
    """Within this context, transformers' Mask2Former, OneFormer and Swin can be traced for sizes that are unknown."""
    if not knows_forms():
        yield
        return
    from transformers.models.mask2former import modeling_mask2former as mask2former
    from transformers.models.oneformer import modeling_oneformer as oneformer
    from transformers.models.swin import modeling_swin as swin

    with ExitStack() as forms:
        # Checks of values, for which ONNX has no operation.
        forms.enter_context(patch.dict(os.environ, {"TRANSFORMERS_DISABLE_TORCH_CHECK": "1"}))
        # ``torch.linspace`` takes its number of steps as an integer, which the exporter then keeps for all photos.
        for encoder in (mask2former.Mask2FormerPixelDecoderEncoderOnly, oneformer.OneFormerPixelDecoderEncoderOnly):
            forms.enter_context(patch.object(encoder, "get_reference_points", staticmethod(_points)))
        # ``torch.tensor`` and ``torch.as_tensor`` take sizes as integers, too.
        for module in (mask2former, oneformer):
            forms.enter_context(patch.object(module, "torch", _TorchOfSizes()))
        forms.enter_context(patch.object(swin.SwinLayer, "forward", _layer))
        forms.enter_context(patch.object(swin.SwinPatchMerging, "forward", _merge))
        yield


class _TorchOfSizes:
    """The module ``torch``, whose functions that make tensors accept lists of pairs of sizes that are unknown."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def as_tensor(self, values: Any, **options: Any) -> Tensor:
        """Also a tensor of pairs of sizes."""
        if not isinstance(values, list) or not any(isinstance(one, torch.SymInt) for pair in values for one in pair):
            return torch.as_tensor(values, **options)
        return torch.stack([torch.stack([torch.scalar_tensor(one, **options) for one in pair]) for pair in values])

    tensor = as_tensor


def _layer(
    layer: Any, hidden_states: Tensor, input_dimensions: Sequence[Any], always_partition: bool = True, **options: Any
) -> tuple[Tensor, Tensor]:
    """``SwinLayer.forward``: the padding to windows is always cut off again, whether or not there is any.

    The original asks for it, and for the remainders of sizes, whose answers the exporter would keep for all photos.
    """
    side, shift = layer.window_size, layer.shift_size
    height, width = input_dimensions
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    x = layer.layernorm_before(hidden_states).unflatten(1, (height, width))
    x = torch.nn.functional.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
    if shift > 0:
        x = x.roll((-shift, -shift), (1, 2))
    windows = x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3).flatten(0, 2).flatten(1, 2)
    mask = layer.get_attn_mask(rows * side, columns * side, dtype=windows.dtype, device=windows.device)
    mixed, weights = layer.attention(windows, mask, **options)
    x = mixed.unflatten(1, (side, side)).unflatten(0, (hidden_states.shape[0], rows, columns)).transpose(2, 3)
    x = x.flatten(3, 4).flatten(1, 2)
    if shift > 0:
        x = x.roll((shift, shift), (1, 2))
    # Not a slice, whose strides the exporter would compare with those of an array that was not cut.
    x = x.index_select(1, torch.arange(height, device=x.device)).index_select(2, torch.arange(width, device=x.device))
    x = hidden_states + x.flatten(1, 2)
    return x + layer.mlp(layer.layernorm_after(x)), weights


def _merge(merging: Any, input_feature: Tensor, input_dimensions: Sequence[Any]) -> Tensor:
    """``SwinPatchMerging.forward`` for even sides, which they are: photos are padded to multiples of 32 pixels."""
    height, width = input_dimensions
    cells = input_feature.unflatten(1, (height // 2, 2, width // 2, 2))
    cells = cells.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
    return merging.reduction(merging.norm(cells))


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

"""An encoder whose linear layers multiply in int8, for CPUs: docs/speed.md says what that brings and what it costs."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from deop.errors import SettingError


def to_int8(encoder: nn.Module) -> None:
    """Replace the linear layers of an encoder, in place; everything else stays in float32.

    Weights are rounded once, a scale for each layer; what comes in is rounded as it comes ("dynamic"). Such layers can
    neither be trained nor saved.

    Raises:
        SettingError: this build of torch has no int8 products for this machine.
    """
    if torch.backends.quantized.engine in (None, "none"):
        raise SettingError("dtype 'int8' cannot be used here: this torch has no int8 products for this processor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a move of these functions to another package
        from torch.ao.quantization import quantize_dynamic

        quantize_dynamic(encoder, {nn.Linear}, dtype=torch.qint8, inplace=True)


def is_int8(module: nn.Module) -> bool:
    """Whether ``to_int8`` was here: such modules hold packed weights, which are no tensors."""
    return not all(isinstance(value, Tensor) for value in module.state_dict().values())


def last_outputs(linear: nn.Module, x: Tensor, first: int) -> Tensor:
    """The outputs of a linear layer from ``first`` on, the others never computed where its weights can be taken apart.

    Args:
        linear: ``nn.Linear`` or its int8 form, whose weights are packed for its product.
        x: (..., C).
        first: the first output wanted.

    Returns:
        (..., outputs - first).
    """
    if isinstance(linear, nn.Linear):
        return nn.functional.linear(x, linear.weight[first:], linear.bias[first:])
    whole: Any = linear(x)
    return whole[..., first:]

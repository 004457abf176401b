"""Vision encoders whose linear layers compute in int8, for CPUs. docs/speed.md reports the gain and the cost."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from deop.errors import SettingError


def to_int8(encoder: nn.Module) -> None:
    """Replace the linear layers of an encoder by int8 layers, in place; everything else stays float32.

    Weights are quantised once with one scale per layer, inputs at each call ("dynamic quantization"). Such layers can
    neither be trained nor saved.

    Raises:
        SettingError: this build of torch has no int8 kernels for this processor.
    """
    if torch.backends.quantized.engine in (None, "none"):
        raise SettingError(
            "dtype 'int8' is not available: this build of torch has no int8 kernels for this processor; use float32"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that these functions will move to another package
        try:
            from torch.ao.quantization import quantize_dynamic
        except ImportError as error:  # torch has announced to remove it
            raise SettingError(
                f"dtype 'int8' is not available: torch {torch.__version__} has no dynamic quantization; use float32"
            ) from error
        quantize_dynamic(encoder, {nn.Linear}, dtype=torch.qint8, inplace=True)


def is_int8(module: nn.Module) -> bool:
    """Whether ``to_int8`` has converted the module: its state then holds packed weights, which are not tensors."""
    return not all(isinstance(value, Tensor) for value in module.state_dict().values())


def some_outputs(linear: nn.Module, x: Tensor, first: int, last: int) -> Tensor:
    """The outputs [first, last) of a linear layer; the others are not computed unless the layer is int8.

    Args:
        linear: ``nn.Linear`` or its int8 form, whose packed weights cannot be sliced.
        x: (..., C) float.
        first: index of the first output to return.
        last: one past the index of the last output to return.

    Returns:
        (..., last - first).
    """
    if isinstance(linear, nn.Linear):
        return nn.functional.linear(x, linear.weight[first:last], linear.bias[first:last])
    outputs: Any = linear(x)
    return outputs[..., first:last]


def plain_weights(linear: Any) -> tuple[Tensor, Tensor]:
    """Weight (outputs, inputs) and bias (outputs,) of a linear layer as float tensors, dequantised if it is int8."""
    if isinstance(linear, nn.Linear):
        return linear.weight, linear.bias
    return linear.weight().dequantize(), linear.bias()

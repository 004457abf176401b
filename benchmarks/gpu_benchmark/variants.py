"""Faster variants of the networks, to compare the package with. Their weights are those of the networks."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.encoders.blocks import quick_gelu
from deop.proposals.resnet import FrozenBatchNorm, NormedConv


def fused_quick_gelu() -> Callable[[Tensor], Tensor]:
    """OpenAI's GELU as one Triton kernel that works in place; the package's function on a CPU or without Triton."""
    try:
        from gpu_benchmark.triton_kernels import quick_gelu_in_place
    except ImportError:
        return quick_gelu
    return lambda x: quick_gelu_in_place(x) if x.is_cuda else quick_gelu(x)


def with_activation(encoder: nn.Module, activation: Callable[[Tensor], Tensor]) -> Any:
    """A copy of an encoder that shares its weights, with another activation in its blocks."""
    shared = {id(parameter): parameter for parameter in encoder.parameters()}
    variant: Any = copy.deepcopy(encoder, shared)
    for block in variant.blocks:
        block.activation = activation
    return variant


class CuDNNAttention:
    """An encoder that prefers cuDNN's attention.

    Args:
        encoder: the encoder.
    """

    def __init__(self, encoder: Callable[..., Any]) -> None:
        self.encoder = encoder

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the encoder."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
        with sdpa_kernel([*backends, SDPBackend.MATH], set_priority=True):
            return self.encoder(*arguments, **options)


def fold_norms(network: nn.Module, *, fuse_relu: bool = False) -> nn.Module:
    """A copy of a proposal network whose frozen norms are part of its convolutions, with channels-last weights.

    Args:
        network: network of a ``MaskFormer``.
        fuse_relu: compute bias and ReLU in cuDNN's convolution, and keep channels last after group norms.
    """
    variant = copy.deepcopy(network)
    for module in variant.modules():
        if isinstance(module, NormedConv) and isinstance(module.norm, FrozenBatchNorm):
            norm, conv = module.norm, module.conv
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = conv.weight.float() * gain[:, None, None, None]
            conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
            bias = (norm.bias - norm.running_mean * gain).to(conv.weight.dtype)
            conv.bias = nn.Parameter(bias, requires_grad=False)
            module.norm = nn.Identity()
            if fuse_relu and module.relu and conv.weight.is_cuda:
                module.forward = _ConvolutionWithReLU(conv)
        elif fuse_relu and isinstance(module, nn.GroupNorm):
            module.register_forward_hook(_channels_last)
    return variant.to(memory_format=torch.channels_last)


class _ConvolutionWithReLU:
    """A convolution with bias and ReLU as one call of cuDNN."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        return torch.cudnn_convolution_relu(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )


def _channels_last(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.contiguous(memory_format=torch.channels_last)


def mean_cosine(result: Tensor, expected: Tensor) -> float:
    """Mean cosine similarity over dimension 1 of the outputs of two variants."""
    return float(F.cosine_similarity(result.float(), expected.float(), dim=1).mean())

"""The backbone of the original's proposal network: deep-stem ResNets R50c and R101c (docs/method.md §2)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> bottleneck blocks in res2, res3, res4, res5."""

LAST_STAGE_DILATIONS = (1, 2, 4)
"""Dilation of the 3x3 convolution in each block of res5 (multi-grid)."""


class Features(NamedTuple):
    """Feature maps of the backbone, at strides 4, 8, 16 and 32."""

    res2: Tensor
    res3: Tensor
    res4: Tensor
    res5: Tensor


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and affine parameters (docs/method.md §2)."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (B, C, h, w) of any float dtype with the stored statistics."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenBatchNorm":
        # The statistics move with the module but stay at least float32: a variance may exceed the range of float16, and
        # batch_norm accepts half-precision maps with float32 statistics.
        for name, buffer in self._buffers.items():
            assert buffer is not None
            moved = fn(buffer)
            self._buffers[name] = moved if moved.element_size() >= 4 else buffer.to(moved.device)
        return self


class NormedConv(nn.Module):
    """Convolution without bias and with "same" padding, then a norm, then optionally ReLU."""

    def __init__(
        self,
        norm: Callable[[int], nn.Module],
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.norm = norm(outputs)
        self.relu = relu
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        x = self.norm(self.conv(x))
        return _relu(x) if self.relu else x


def _relu(x: Tensor) -> Tensor:
    """ReLU, in place if gradients are disabled: allocating memory takes longer than the operation."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


class Stem(nn.Module):
    """Three 3x3 convolutions, the first with stride 2, then 3x3 max pooling with stride 2: total stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(FrozenBatchNorm, 3, width, 3, stride=2)
        self.conv2 = NormedConv(FrozenBatchNorm, width, width, 3)
        self.conv3 = NormedConv(FrozenBatchNorm, width, 2 * width, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2 width, H/4, W/4)."""
        x = self.conv3(self.conv2(self.conv1(pixels)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with stride and dilation) and 1x1 convolutions, added to the (projected) input."""

    def __init__(self, inputs: int, width: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = NormedConv(FrozenBatchNorm, inputs, outputs, 1, stride=stride, relu=False)
        self.conv1 = NormedConv(FrozenBatchNorm, inputs, width, 1)
        self.conv2 = NormedConv(FrozenBatchNorm, width, width, 3, stride=stride, dilation=dilation)
        self.conv3 = NormedConv(FrozenBatchNorm, width, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return _relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


class DeepStemResNet(nn.Module):
    """ResNet with the deep stem and a dilated last stage (docs/method.md §2).

    Args:
        depth: 50 or 101.
        stem_width: channels of the first two stem convolutions; the third has twice as many.
        width: channels inside a bottleneck of res2; doubled in each later stage. A stage outputs 4 times its width.
    """

    def __init__(self, depth: int = 101, stem_width: int = 64, width: int = 64) -> None:
        super().__init__()
        self.stem = Stem(stem_width)
        self.channels = tuple(4 * width * 2**stage for stage in range(4))
        inputs = 2 * stem_width
        stages = []
        for stage, blocks in enumerate(BLOCKS[depth]):
            last = stage == 3
            stages.append(
                nn.Sequential(
                    *(
                        Bottleneck(
                            inputs if block == 0 else self.channels[stage],
                            width * 2**stage,
                            self.channels[stage],
                            stride=2 if block == 0 and stage > 0 else 1,
                            dilation=LAST_STAGE_DILATIONS[block] if last else 1,
                        )
                        for block in range(blocks)
                    )
                )
            )
            inputs = self.channels[stage]
        self.res2, self.res3, self.res4, self.res5 = stages

    def forward(self, pixels: Tensor) -> Features:
        """Compute the feature maps of normalised pixels (B, 3, H, W)."""
        # Channels last is an eighth faster on a CPU (docs/speed.md).
        res2 = self.res2(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        res3 = self.res3(res2)
        res4 = self.res4(res3)
        return Features(res2, res3, res4, self.res5(res4))

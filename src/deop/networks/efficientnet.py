"""EfficientNet-Lite with batch norms folded into the convolutions: the trunk of the small model.

Tan and Le, "EfficientNet", ICML 2019; "Lite" means no squeeze-and-excitation, and ReLU6 as activation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from deop.images.preprocessing import Normalization

NORMALIZATION = Normalization((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
"""Normalisation that the weights were trained with."""


@dataclass(frozen=True)
class BlockGroup:
    """Consecutive inverted residual blocks of one width; the first block applies the stride.

    Attributes:
        kernel: side of the depthwise kernels.
        stride: 1 or 2.
        expand: factor by which a block widens its input.
        width: output channels.
        repeats: number of blocks.
    """

    kernel: int
    stride: int
    expand: int
    width: int
    repeats: int


LITE2 = (
    BlockGroup(3, 1, 1, 16, 1),
    BlockGroup(3, 2, 6, 24, 3),
    BlockGroup(5, 2, 6, 48, 3),
    BlockGroup(3, 2, 6, 88, 4),
    BlockGroup(5, 1, 6, 120, 4),
    BlockGroup(5, 2, 6, 208, 5),
    BlockGroup(3, 1, 6, 352, 1),
)
"""EfficientNet-Lite2."""
STEM = 32
"""Channels of the first convolution."""


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: at stride 2 it pads more at the bottom and the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=0 if stride > 1 else kernel // 2, groups=groups)
        self.before = ((kernel - stride) // 2, kernel - stride - (kernel - stride) // 2) * 2 if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) with even H and W -> (B, outputs, H / stride, W / stride)."""
        return super().forward(x if self.before is None else F.pad(x, self.before))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input if stride and width stay the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.expand = Convolution(inputs, inner) if expand > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=not self.training)
        inner = F.relu6(self.depthwise(inner), inplace=not self.training)
        result = self.project(inner)
        return x + result if self.residual else result


class EfficientNetLite(nn.Module):
    """Four feature maps of an image.

    Args:
        groups: the blocks after the first convolution.
        dense: omit the last stride, so that the deepest map has stride 16 instead of 32.
    """

    def __init__(self, groups: tuple[BlockGroup, ...] = LITE2, *, dense: bool = True) -> None:
        super().__init__()
        last = max(index for index, group in enumerate(groups) if group.stride == 2)
        self.stem = Convolution(3, STEM, 3, 2)
        blocks: list[InvertedResidual] = []
        self.taps: list[int] = []  # blocks whose output is returned: before each stride from 8 on, and the last block
        width, stride = STEM, 2
        self.widths: tuple[int, ...] = ()
        for index, group in enumerate(groups):
            for repeat in range(group.repeats):
                if repeat == 0 and group.stride == 2:
                    if stride > 2:
                        self.taps.append(len(blocks) - 1)
                        self.widths += (width,)
                    stride *= 2
                shrinks = repeat == 0 and not (dense and index == last)
                blocks.append(
                    InvertedResidual(width, group.width, group.kernel, group.stride if shrinks else 1, group.expand)
                )
                width = group.width
        self.taps.append(len(blocks) - 1)
        self.widths += (width,)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            pixels: (B, 3, H, W) float, normalised. Sides that are not multiples of 32 are padded with 0 at the bottom
                and the right.

        Returns:
            Four maps (B, C_s, ceil(H / 32) * 32 / s, ceil(W / 32) * 32 / s) for s = 4, 8, 16 and 16, or 32 if not
            dense.
        """
        height, width = pixels.shape[-2:]
        if height % 32 or width % 32:
            pixels = F.pad(pixels, (0, -width % 32, 0, -height % 32))
        x = F.relu6(self.stem(pixels))
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features


def fold(state: Mapping[str, Tensor], epsilon: float = 1e-3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fold the batch norms of the published weights (lukemelas' key names) into the convolutions.

    Args:
        state: ``_conv_stem.weight``, ``_bn0.*``, ``_blocks.0._expand_conv.weight``, ... ``_fc.bias``.
        epsilon: epsilon of the batch norms.

    Returns:
        The state of ``EfficientNetLite``, and that of its classifier: ``head.weight`` (1280, 352), ``head.bias``,
        ``classifier.weight`` (1000, 1280), ``classifier.bias``.
    """

    def folded(convolution: str, norm: str) -> tuple[Tensor, Tensor]:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + epsilon).sqrt()
        weight = state[f"{convolution}.weight"] * gain[:, None, None, None]
        return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain

    trunk: dict[str, Tensor] = {}
    trunk["stem.weight"], trunk["stem.bias"] = folded("_conv_stem", "_bn0")
    parts = (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"))
    for block in range(1 + max(int(key.split(".")[1]) for key in state if key.startswith("_blocks."))):
        for name, convolution, norm in (*parts, ("project", "_project_conv", "_bn2")):
            if f"_blocks.{block}.{convolution}.weight" in state:
                key = f"blocks.{block}.{name}"
                trunk[f"{key}.weight"], trunk[f"{key}.bias"] = folded(
                    f"_blocks.{block}.{convolution}", f"_blocks.{block}.{norm}"
                )
    head, bias = folded("_conv_head", "_bn1")
    classifier = {
        "head.weight": head[:, :, 0, 0],
        "head.bias": bias,
        "classifier.weight": state["_fc.weight"],
        "classifier.bias": state["_fc.bias"],
    }
    return trunk, classifier

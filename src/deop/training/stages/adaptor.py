"""A low-rank adaptor: a linear map of the joint space with few parameters, which starts as the identity.

Patch features p become (1 + G S) p. S has few rows, and G is zero at first. The last layer of the encoder is linear
too, so the map is folded into its weights after training: the trained model has no additional layer or computation.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deop.encoders.clip import CLIPVision
from deop.encoders.nano import NanoEncoder
from deop.errors import SettingError

PARAMETER = r"\.(shrink|grow)"
"""Regular expression for the end of the names of adaptor parameters."""


class LowRank(nn.Module):
    """Maps the weights W of a layer whose output is the joint space to (1 + G S) W.

    Args:
        width: C, the width of the joint space.
        rank: rows of S.
        dim: dimension of W that belongs to the joint space.
    """

    def __init__(self, width: int, rank: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.shrink = nn.Parameter(torch.randn(rank, width) * width**-0.5)
        self.grow = nn.Parameter(torch.zeros(width, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The mapped weights, in the same shape."""
        rows = weight.movedim(self.dim, 0)
        flat = rows.reshape(len(rows), -1)
        return (flat + self.grow @ (self.shrink @ flat)).reshape(rows.shape).movedim(0, self.dim)


def add_adaptor(encoder: Any, rank: int) -> None:
    """Add a new adaptor to an encoder. Its output does not change until the adaptor is trained.

    Raises:
        SettingError: an unsupported encoder, or a rank below 1.
    """
    if rank < 1:
        raise SettingError(f"an adaptor of rank {rank}: expected 1 or more")
    layers = _last_layers(encoder)
    module, name, dim = layers[0]
    width = module.get_parameter(name).shape[dim]
    shared = LowRank(width, rank, 0)
    for module, name, dim in layers:
        adaptor = shared if dim == 0 else LowRank(width, rank, dim)
        parametrize.register_parametrization(module, name, adaptor)


def fold_adaptor(encoder: Any) -> None:
    """Fold the adaptor into the weights and remove it. An encoder without adaptor is not changed."""
    for module, name, _ in _last_layers(encoder):
        if parametrize.is_parametrized(module, name):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _last_layers(encoder: Any) -> list[tuple[nn.Module, str, int]]:
    """Weights whose output is the joint space: module, parameter name, and dimension of the joint space."""
    if isinstance(encoder, CLIPVision):
        return [(encoder, "projection", 1)]
    if isinstance(encoder, NanoEncoder):
        layers = (encoder.projection, encoder.regions.down)
        return [(layer, name, 0) for layer in layers for name in ("weight", "bias")]
    raise SettingError(f"{type(encoder).__name__} has no adaptor: omit adaptor from learn")

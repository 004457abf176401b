"""A light adaptor: a linear map of the joint space that begins as the identity, of few numbers.

Patches p become (1 + G S) p, with S of a few rows and G zero at first. As the encoder's last layer is linear too, the
map is folded into its weights when training ends: the finished model has neither a part nor a step more.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deop.encoders.clip import CLIPVision
from deop.encoders.nano import NanoEncoder
from deop.errors import SettingError

PARAMETER = r"\.(shrink|grow)"
"""How the names of its parameters end, as a regular expression."""


class LowRank(nn.Module):
    """Weights W of a layer that ends in the joint space -> (1 + G S) W.

    Args:
        width: C of the space.
        rank: rows of S.
        dim: dimension of W that is the space's.
    """

    def __init__(self, width: int, rank: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.shrink = nn.Parameter(torch.randn(rank, width) * width**-0.5)
        self.grow = nn.Parameter(torch.zeros(width, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The same shape, mapped along ``dim``."""
        rows = weight.movedim(self.dim, 0)
        flat = rows.reshape(len(rows), -1)
        return (flat + self.grow @ (self.shrink @ flat)).reshape(rows.shape).movedim(0, self.dim)


def add_adaptor(encoder: Any, rank: int) -> None:
    """Put a fresh adaptor into an encoder: for now it changes nothing.

    Raises:
        SettingError: an encoder whose last layer is not known, or a rank below 1.
    """
    if rank < 1:
        raise SettingError(f"an adaptor of rank {rank}: expected 1 or more")
    places = _places(encoder)
    width = places[0][0].get_parameter(places[0][1]).shape[places[0][2]]
    shared = LowRank(width, rank, 0)
    for module, name, dim in places:
        own = shared if dim == 0 else LowRank(width, rank, dim)
        parametrize.register_parametrization(module, name, own)


def fold_adaptor(encoder: Any) -> None:
    """Write what the adaptor does into the weights, and take it away; nothing happens where there is none."""
    for module, name, _ in _places(encoder):
        if parametrize.is_parametrized(module, name):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _places(encoder: Any) -> list[tuple[nn.Module, str, int]]:
    """Weights whose output is the joint space: module, name, and the dimension that is the space's."""
    if isinstance(encoder, CLIPVision):
        return [(encoder, "projection", 1)]
    if isinstance(encoder, NanoEncoder):
        layers = (encoder.projection, encoder.regions.down)
        return [(layer, name, 0) for layer in layers for name in ("weight", "bias")]
    raise SettingError(f"no adaptor is known for {type(encoder).__name__}: leave adaptor out of learn")

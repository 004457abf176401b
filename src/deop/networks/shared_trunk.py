"""A trunk that encoder and proposer share, so that it runs once per photo."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from deop.networks.efficientnet import EfficientNetLite

# (trunk id, input id) -> input and features. Each thread has its own value, so several threads can use one model.
_features: ContextVar[dict[tuple[int, int], tuple[Tensor, list[Tensor]]] | None] = ContextVar("features", default=None)


@contextmanager
def reuse_features() -> Iterator[None]:
    """Within this context, a ``SharedTrunk`` computes the features of each input tensor only once.

    Nothing is kept afterwards. Weights and inputs must not change within the context.
    """
    token = _features.set({})
    try:
        yield
    finally:
        _features.reset(token)


class SharedTrunk(nn.Module):
    """A trunk that several parts of a model call with the same pixels.

    Args:
        trunk: the network to share.
    """

    def __init__(self, trunk: EfficientNetLite) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps of ``pixels`` as in ``EfficientNetLite``; within ``reuse_features`` computed once per tensor."""
        computed = _features.get()
        if computed is None:
            return self.trunk(pixels)
        key = (id(self), id(pixels))
        if key not in computed:
            computed[key] = pixels, self.trunk(pixels)  # keeping the tensor ensures that its id is not reused
        return computed[key][1]

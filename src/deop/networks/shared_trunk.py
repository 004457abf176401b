"""A trunk that encoder and proposer share, so that a photo goes through it once."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from deop.networks.efficientnet import EfficientNetLite

# Features by trunk and input. Each thread has its own value, so models may be used by several threads at once.
_features: ContextVar[dict[tuple[int, int], tuple[Tensor, list[Tensor]]] | None] = ContextVar("features", default=None)


@contextmanager
def reuse_features() -> Iterator[None]:
    """Inside, a ``SharedTrunk`` computes the features of a tensor once, however often it is called with it.

    Nothing is kept afterwards. Neither weights nor pixels may change inside.
    """
    token = _features.set({})
    try:
        yield
    finally:
        _features.reset(token)


class SharedTrunk(nn.Module):
    """A trunk that several parts of a model call with the same pixels."""

    def __init__(self, trunk: EfficientNetLite) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As ``EfficientNetLite``; inside ``reuse_features`` once for each tensor."""
        known = _features.get()
        if known is None:
            return self.trunk(pixels)
        key = (id(self), id(pixels))  # the tensor is kept beside its features, so that its id stays its own
        if key not in known:
            known[key] = pixels, self.trunk(pixels)
        return known[key][1]

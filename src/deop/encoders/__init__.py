"""Pixels and text into one space."""

from typing import NamedTuple, Protocol

from torch import Tensor

from deop.encoders.severance import Severance
from deop.images import Normalization


class VisionFeatures(NamedTuple):
    """What an encoder makes of an image: its patches and the whole, in the joint space, not normalised."""

    patches: Tensor  # (B, C, gh, gw); zero outside an image that is smaller than the canvas
    image: Tensor  # (B, C), from the class token


class VisionEncoder(Protocol):
    """What every encoder of whole images has: ``deop.encoders.clip.CLIPVision`` says it in full."""

    @property
    def normalization(self) -> Normalization:
        """How pixels are to be normalised."""
        ...

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        ...

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        ...

    @property
    def crop_side(self) -> int:
        """Side of the images that it was made for, pixels: the two-stream baseline's crops."""
        ...

    def __call__(
        self,
        pixels: Tensor,
        masks: Tensor | None = None,
        *,
        severance: Severance | None = None,
        valid: Tensor | None = None,
        sizes: list[tuple[int, int]] | None = None,
    ) -> VisionFeatures:
        """Pixels (B, 3, H, W) and mask logits (B, N, h, w) -> features; one pass."""
        ...

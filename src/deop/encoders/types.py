"""Return type of all vision encoders."""

from typing import NamedTuple

from torch import Tensor


class VisionFeatures(NamedTuple):
    """Features of a batch of images in the joint space of images and text. Not necessarily normalised.

    Attributes:
        patches: (B, C, gh, gw) float, one embedding per patch; 0 outside an image that is smaller than the canvas.
        image: (B, C) float, the embedding of the whole image, from the class token.
        regions: (B, N, C) float, an embedding of each mask from a token of its own; None unless requested.
    """

    patches: Tensor
    image: Tensor
    regions: Tensor | None = None

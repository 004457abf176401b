"""What every vision encoder returns."""

from typing import NamedTuple

from torch import Tensor


class VisionFeatures(NamedTuple):
    """An image in the space that it shares with text; not normalised.

    Attributes:
        patches: (B, C, gh, gw) float, one embedding per patch; zero outside an image that is smaller than the canvas.
        image: (B, C) float, the embedding of the whole image, from the class token.
    """

    patches: Tensor
    image: Tensor

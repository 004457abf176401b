"""The three parts of a model that can be exchanged: what a vision encoder, a text encoder and a proposer must have.

Any object with these attributes fits; it need not inherit from anything (docs/research.md shows how to write one).
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from deop.encoders.severance import Severance
from deop.encoders.types import VisionFeatures
from deop.images.preprocessing import Normalization
from deop.proposals.types import Proposals


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


class TextEncoder(Protocol):
    """What embeds texts."""

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        ...

    @property
    def identity(self) -> str:
        """Changes whenever an embedding may change; fit for a file name."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        ...

    @property
    def uses_templates(self) -> bool:
        """Whether names are to be put into sentences."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens that a text takes of the context, all that is put around it included."""
        ...

    def embed(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, C) float32, not normalised."""
        ...


class Proposer(Protocol):
    """What every source of masks that looks at pixels has."""

    normalization: Normalization

    def __call__(self, pixels: Tensor) -> list[Proposals]:
        """Propose masks for ``pixels`` (B, 3, H, W), normalised with ``self.normalization`` and padded."""
        ...

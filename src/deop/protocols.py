"""The three exchangeable parts of a model, as protocols: vision encoder, text encoder and proposer.

Any object with these attributes can be used; it does not have to inherit from anything. docs/research.md shows how to
write one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from deop.images.preprocessing import Normalization
from deop.severance import Severance

if TYPE_CHECKING:  # the text side and the surface of a model work without torch
    import numpy as np
    from torch import Tensor

    from deop.encoders.types import VisionFeatures
    from deop.proposals.types import Proposals


class VisionEncoder(Protocol):
    """Encodes whole images into the joint space of images and text."""

    @property
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        ...

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        ...

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        ...

    @property
    def crop_side(self) -> int:
        """Side of the crops of the two-stream classifier in pixels: that of the training images."""
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
        """Encode images in one pass.

        An encoder may take further arguments, which are passed only if they are used: those of ``CLIPVision``. It lists
        their names in the attribute ``options``.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded at the bottom and the right.
            masks: (B, N, h, w) float, mask logits over the same canvas at any stride; None: no masks.
            severance: where and how attention is severed; None: nowhere.
            valid: (B, N) bool, False for padding if the images of a batch have different N; None: all are valid.
            sizes: (height, width) of each image in pixels, without padding; None: every image fills the canvas.

        Returns:
            Patch features (B, C, gh, gw) float with gh = ceil(H / patch) and gw = ceil(W / patch), 0 outside an image;
            and image embeddings (B, C) float.

        Raises:
            SettingError: a severed layer that the encoder does not have, or missing masks.
        """
        ...


class FeatureNetwork(Protocol):
    """Another network whose features weigh the attention of a severed block (``similarity="proxy"``)."""

    @property
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        ...

    def __call__(self, pixels: Tensor) -> Tensor:
        """Features (B, c, h, w) float on any grid that covers the pixels (B, 3, H, W) float."""
        ...


def is_table(encoder: TextEncoder) -> bool:
    """Whether a text encoder only looks up rows that never change; False for one that does not say."""
    return bool(getattr(encoder, "is_table", False))


class TextEncoder(Protocol):
    """Encodes texts into the joint space of images and text.

    An encoder may also have the attribute ``is_table``, a bool: True if its embeddings never change and take no time,
    so that they are neither cached on disk nor hashed.
    """

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that embeddings depend on, usable as a file name. Read once per photo: must be fast."""
        ...

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text."""
        ...

    @property
    def uses_templates(self) -> bool:
        """Whether names are inserted into sentence templates."""
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, including all that the encoder adds; may exceed ``context_length``."""
        ...

    def embed(self, texts: Sequence[str]) -> Tensor | np.ndarray:
        """Encode n texts; returns (n, C) float32, a tensor or an array, not normalised."""
        ...


def masks_are_instances(proposer: Proposer) -> bool:
    """Whether each mask of a proposer is one whole thing; True for a proposer that does not say."""
    return bool(getattr(proposer, "masks_are_instances", True))


class Proposer(Protocol):
    """Proposes class-agnostic masks from pixels.

    A proposer may also have the attribute ``masks_are_instances``, a bool, which decides how panoptic and instance mode
    find things. True: each mask that gets the name of a thing is one whole thing. False: it can be a part of a thing,
    or several things, so that things are the connected pieces of the semantic map (``labelling.maps.divide_things``). A
    proposer without the attribute counts as True.
    """

    @property
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        ...

    def __call__(self, pixels: Tensor) -> list[Proposals]:
        """Propose masks.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded at the bottom and the right.

        Returns:
            B ``Proposals``, each with mask logits (N, h, w) over the padded image; N may differ and may be 0.
        """
        ...

"""A second network, such as DINO or DINOv2, whose features weigh the attention of a severed block."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import IMAGENET, Normalization
from deop.networks.loading import building_model, read_normalization
from deop.networks.pretrained import load_network
from deop.networks.resampling import grid_of

KINDS = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
"""The ``model_type`` of supported models in transformers' layout, and the class that loads them."""


class FeatureNetwork(nn.Module):
    """The final, normalised patch tokens of a vision transformer of transformers.

    Args:
        network: ``ViTModel``, ``Dinov2Model``, ``Dinov2WithRegistersModel`` or ``DINOv3ViTModel``.
        normalization: normalisation of the pixels.
    """

    def __init__(self, network: nn.Module, normalization: Normalization = IMAGENET) -> None:
        super().__init__()
        self.network, self.normalization = network, normalization
        config: Any = network.config
        self.patch: int = config.patch_size
        self.options = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Features (B, c, h, w) of pixels (B, 3, H, W), which are resized to whole patches."""
        patch = self.patch
        rows, columns = grid_of((pixels.shape[-2], pixels.shape[-1]), patch)
        size = (rows * patch, columns * patch)
        if tuple(pixels.shape[-2:]) != size:
            pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        tokens = self.network(pixel_values=pixels, **self.options).last_hidden_state
        return tokens[:, tokens.shape[1] - rows * columns :].mT.unflatten(2, (rows, columns))

    @classmethod
    def from_folder(cls, folder: str | Path) -> "FeatureNetwork":
        """Load a network from a folder in transformers' layout.

        Raises:
            CheckpointError: another kind of model, or weights that are pickled, damaged or incomplete.
            MissingDependencyError: transformers is too old for the model.
        """
        kind = str(read_json(Path(folder) / "config.json").get("model_type"))
        if kind not in KINDS:
            raise CheckpointError(
                f"{folder} is a model of kind {kind!r}: a second network must be one of {', '.join(KINDS)}, such as "
                "facebook/dino-vitb8"
            )
        with building_model(Path(folder)):
            network = load_network(Path(folder), KINDS, unused="pooler.")
        return cls(network, read_normalization(Path(folder), IMAGENET))

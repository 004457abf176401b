"""MaskFormer and Mask2Former models of the hub as proposers; their classes are ignored."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from deop.errors import CheckpointError
from deop.images.preprocessing import IMAGENET, Normalization
from deop.networks.loading import list_some, read_normalization
from deop.proposals.maskformer import every_query
from deop.proposals.pretrained import build_network, config_of, load_network
from deop.proposals.types import Proposals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLASSES = {"maskformer": "MaskFormerForInstanceSegmentation", "mask2former": "Mask2FormerForUniversalSegmentation"}
"""Supported model types of transformers -> the class that loads them."""


class TransformersProposer(nn.Module):
    """A MaskFormer or Mask2Former of transformers: each query proposes its mask; its classes are ignored.

    Args:
        network: ``MaskFormerForInstanceSegmentation`` or ``Mask2FormerForUniversalSegmentation``.
        normalization: normalisation that its pixels need.
    """

    kind = "transformers"
    masks_are_instances = True

    def __init__(self, network: "PreTrainedModel", normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization
        self.train(network.training)  # loaded networks are in evaluation mode

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose one mask per query.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded to multiples of 32.

        Returns:
            One ``Proposals`` per image: float32 logits (at stride 4 in published models), slot = index of the query.
        """
        output = self.network(pixel_values=pixels.to(self.network.dtype), output_auxiliary_logits=False)
        return [every_query(logits) for logits in output.masks_queries_logits]

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TransformersProposer":
        """Load a model from a folder in the hub's layout, in evaluation mode, as float32 on the CPU.

        Args:
            folder: a folder with config.json and safetensors weights, for example from ``deop.weights.hub.fetch``.

        Raises:
            CheckpointError: another type of model, or weights that are pickled or incomplete.
            MissingDependencyError: transformers is too old for the model.
        """
        path = Path(folder)
        return cls(load_network(path, CLASSES), read_normalization(path, IMAGENET))

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return {"network": config_of(self.network), "normalization": asdict(self.normalization)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TransformersProposer":
        """Create a proposer with random weights, in evaluation mode, from the values of ``config_dict``.

        Raises:
            CheckpointError: unknown or missing entries, or another type of model.
            MissingDependencyError: transformers is too old for the model.
        """
        if differing := sorted(set(config) ^ {"network", "normalization"}):
            raise CheckpointError(f"unknown or missing entries in the proposer's configuration: {list_some(differing)}")
        return cls(build_network(config["network"], CLASSES), Normalization(**config["normalization"]))

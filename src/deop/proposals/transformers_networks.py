"""Any MaskFormer or Mask2Former of the hub as a source of masks; its classes are ignored."""

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
"""Model types of transformers that give mask logits for queries -> the class that reads them."""


class TransformersProposer(nn.Module):
    """A MaskFormer or Mask2Former of transformers: every query proposes its mask, whatever it says of classes.

    Args:
        network: ``MaskFormerForInstanceSegmentation`` or ``Mask2FormerForUniversalSegmentation``.
        normalization: what its pixels are normalised with.
    """

    kind = "transformers"

    def __init__(self, network: "PreTrainedModel", normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization
        self.train(network.training)  # a loaded network evaluates, and so does what holds it

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose one mask a query.

        Args:
            pixels: (B, 3, H, W), normalised with ``self.normalization``, padded to multiples of 32.

        Returns:
            For every image, one proposal a query, float32 logits (at stride 4 in published models), slot = query.
        """
        output = self.network(pixel_values=pixels.to(self.network.dtype), output_auxiliary_logits=False)
        return [every_query(logits) for logits in output.masks_queries_logits]

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TransformersProposer":
        """Load from a folder in the hub's layout; evaluation mode, float32, on the CPU.

        Args:
            folder: with config.json and safetensors weights; ``deop.weights.hub.fetch`` brings one from the hub.

        Raises:
            CheckpointError: another type of model, pickled weights only, or incomplete weights.
            MissingDependencyError: transformers is too old for the model.
        """
        path = Path(folder)
        return cls(load_network(path, CLASSES), read_normalization(path, IMAGENET))

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it; ``from_config`` reads it back."""
        return {"network": config_of(self.network), "normalization": asdict(self.normalization)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TransformersProposer":
        """Build with random weights from what ``config_dict`` gave; evaluation mode.

        Raises:
            CheckpointError: unknown or missing entries, or a configuration of another model.
            MissingDependencyError: transformers is too old for the model.
        """
        if differing := sorted(set(config) ^ {"network", "normalization"}):
            raise CheckpointError(f"unknown or missing entries in the proposer's configuration: {list_some(differing)}")
        return cls(build_network(config["network"], CLASSES), Normalization(**config["normalization"]))

"""MaskFormer, Mask2Former, OneFormer and EoMT of the hub as proposers; their classes are ignored unless asked."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deop.errors import CheckpointError
from deop.images.preprocessing import IMAGENET, Normalization
from deop.networks.loading import list_some, read_normalization
from deop.networks.pretrained import build_network, config_of, load_network
from deop.proposals.frames import place_in_frame, shape_in_frame
from deop.proposals.maskformer import every_query
from deop.proposals.types import Proposals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLASSES = {
    "maskformer": "MaskFormerForInstanceSegmentation",
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "oneformer": "OneFormerForUniversalSegmentation",
    "eomt": "EomtForUniversalSegmentation",
    "eomt_dinov3": "EomtDinov3ForUniversalSegmentation",
}
"""Supported model types of transformers -> the class that loads them."""

PANOPTIC_TASK = (49406, 518, 10549, 533, 1072, 24755, 49407)
"""CLIP's tokens of "the task is panoptic", an input of OneFormer."""


class TransformersProposer(nn.Module):
    """A network of transformers whose queries each propose a mask; its classes only matter for ``Settings.prior``.

    EoMT takes square images of one size: photos are resized to fit in its frame, as its authors do for panoptic masks.

    Args:
        network: an instance of one of ``CLASSES``.
        normalization: normalisation that its pixels need.
    """

    kind = "transformers"
    masks_are_instances = True

    def __init__(self, network: "PreTrainedModel", normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization
        self.train(network.training)  # loaded networks are in evaluation mode
        self.frame: int | None = None
        if network.config.model_type.startswith("eomt"):
            size = network.config.image_size
            self.frame = size if isinstance(size, int) else size[0]
            # How often masks guide the attention, by block. At the end of EoMT's training these are 0; as plain numbers
            # they can be exported.
            del network.attn_mask_probs
            network.attn_mask_probs = [0.0] * network.config.num_blocks  # type: ignore[assignment]

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose one mask per query.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded to multiples of 32.

        Returns:
            One ``Proposals`` per image: float32 logits (at stride 4 in published models), slot = index of the query,
            score = 1 - P("no object").
        """
        if self.frame is None:
            logits, classes = self._run(pixels)
        else:
            logits, classes = self._run_in_frame(pixels, self.frame)
        names = self.class_names
        result = []
        for masks, scores in zip(logits, classes.float().softmax(-1)[..., :-1], strict=True):
            query = every_query(masks)
            result.append(replace(query, scores=scores.sum(-1), class_scores=scores, class_names=names))
        return result

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the network was trained with, as its configuration names them."""
        labels: dict[int, str] = self.network.config.id2label  # type: ignore[assignment]
        return tuple(labels[index] for index in sorted(labels))

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Of images that the network takes as they are: mask logits (B, N, h, w), class logits (B, N, C + 1).

        The last class is "no object".
        """
        options: dict[str, Any] = {}
        config = self.network.config
        if config.model_type in ("maskformer", "mask2former"):
            options["output_auxiliary_logits"] = False
        elif config.model_type == "oneformer":
            task = torch.tensor(PANOPTIC_TASK, device=pixels.device)
            task = nn.functional.pad(task, (0, config.task_seq_len - len(task)))
            options["task_inputs"] = task.expand(len(pixels), -1)
        output = self.network(pixel_values=pixels.to(self.network.dtype), **options)
        return output.masks_queries_logits, output.class_queries_logits

    def _run_in_frame(self, pixels: Tensor, frame: int) -> tuple[Tensor, Tensor]:
        """As ``_run``, of images of any size, from a network that takes square frames."""
        size = (pixels.shape[-2], pixels.shape[-1])
        rows, columns = shape_in_frame(*size, frame, self.network.config.patch_size)
        black = [-mean / std for mean, std in zip(self.normalization.mean, self.normalization.std, strict=True)]
        logits, classes = self._run(place_in_frame(pixels, rows, columns, frame, black))
        return logits[..., : rows * logits.shape[-2] // frame, : columns * logits.shape[-1] // frame], classes

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

"""The networks of a model as one ONNX graph: pixels of a photo -> masks and region embeddings.

The exported graph has no weights: they stay in the model's ``model.safetensors`` (``deop.export.stored_weights``).
"""

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deop.encoders.nano import NanoEncoder
from deop.errors import MissingDependencyError, SettingError
from deop.export.stored_weights import StoredWeights, refer_to_weights
from deop.export.translations import translations
from deop.files import replacing, sha256
from deop.model import DeOP
from deop.networks.shared_trunk import reuse_features
from deop.proposals.nano import NanoProposer
from deop.proposals.types import Proposals
from deop.regions.encoding import embed_masks

if TYPE_CHECKING:
    import onnx

GRAPH = "encode.onnx"
WEIGHTS = "model.safetensors"
OPSET = 20
MULTIPLE = 32
"""Sides of the pixels that the graph takes are multiples of this."""
LARGEST = 512
"""Largest side of the pixels, in multiples of ``MULTIPLE``."""


class Encode(nn.Module):
    """The networks of a model that proposes its own masks, for one photo.

    Args:
        model: with nano's encoder and proposer.

    Raises:
        SettingError: a model of another kind.
    """

    def __init__(self, model: DeOP) -> None:
        super().__init__()
        if not isinstance(model.encoder, NanoEncoder) or not isinstance(model.proposer, NanoProposer):
            raise SettingError(
                f"cannot export a {type(model.encoder).__name__} with a {type(model.proposer).__name__}: only the "
                "small model (nano) can be exported"
            )
        self.encoder, self.proposer, self.settings = model.encoder, model.proposer, model.settings

    def forward(self, pixels: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a photo.

        Args:
            pixels: (1, 3, H, W) float32, normalised and padded; H and W are multiples of 32.
            size: (2,) int64, height and width of the photo in ``pixels`` (``Canvas.resized``; ``Canvas.padded`` for
                models with ``padding="inside"``).

        Returns:
            Mask logits (N, H / 4, W / 4) float32; (N,) bool, which of the masks are proposals; and region embeddings
            (N, C) float32, L2-normalised.
        """
        with reuse_features():
            partition, colours, divisions = self.proposer.parts(pixels)
            masks, valid = self.proposer.masks(partition[0], colours[0], [division[0] for division in divisions])
            features = self.encoder(
                pixels, masks[None], severance=self.settings.severance, valid=valid[None], sizes=size[None]
            )
        padded = (pixels.shape[-2], pixels.shape[-1])
        proposals = [Proposals(masks)]
        regions = embed_masks(features.patches, proposals, padded, self.encoder.patch, None, self.settings, "pool")
        return masks, valid, regions.embeddings[0]


def export_encoder(model: DeOP, folder: str | Path) -> Path:
    """Write ``encode.onnx`` beside the ``model.safetensors`` of a model's folder.

    Args:
        model: the model that the folder holds, in float32 on the CPU.
        folder: with ``model.safetensors``; the graph refers to the weights in it by offset.

    Returns:
        The graph file.

    Raises:
        SettingError: a model that cannot be exported.
        CheckpointError: ``model.safetensors`` is missing or damaged, or holds the weights of another model.
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
        OutputError: the graph cannot be written.
    """
    network = Encode(model).eval()
    weights = StoredWeights(Path(folder) / WEIGHTS)
    graph = trace(network)
    refer_to_weights(graph, weights)
    graph.producer_name = "deop"
    graph.metadata_props.add(key="deop.graph", value="encode")
    graph.metadata_props.add(key="deop.weights.sha256", value=sha256(weights.path))
    target = Path(folder) / GRAPH
    with replacing(target) as file:
        file.write(graph.SerializeToString(deterministic=True))
    return target


def trace(network: Encode) -> "onnx.ModelProto":
    """The ONNX graph of the networks with their weights as float32, for any size of photo.

    Raises:
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('export needs onnx and onnxscript: pip install "deop[export]"') from error
    height, width = (torch.export.Dim(name, min=2, max=LARGEST) for name in ("h", "w"))
    shapes = {"pixels": {2: MULTIPLE * height, 3: MULTIPLE * width}, "size": None}
    example = torch.zeros(1, 3, 14 * MULTIPLE, 19 * MULTIPLE), torch.tensor([440, 600])
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            network,
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["pixels", "size"],
            output_names=["masks", "valid", "regions"],
            opset_version=OPSET,
            custom_translation_table=translations(OPSET),
            verbose=False,
        )
    graph: Any = program.model_proto
    return graph

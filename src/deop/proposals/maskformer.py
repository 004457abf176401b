"""The original's proposer: MaskFormer with a deep-stem ResNet, its classes ignored (docs/method.md §2)."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.errors import CheckpointError, SettingError
from deop.images.preprocessing import IMAGENET
from deop.networks.loading import list_some
from deop.proposals.query_decoder import MLP, QueryDecoder
from deop.proposals.resnet import BLOCKS, DeepStemResNet, Features, NormedConv
from deop.proposals.types import Proposals

GROUPS = 32
"""Groups of the group norms in the pixel decoder."""


@dataclass(frozen=True)
class MaskFormerConfig:
    """Sizes of the proposal network. The defaults are the published R101c.

    Attributes:
        depth: 50 or 101 layers in the backbone.
        stem_width: channels of the backbone's first convolution.
        width: channels inside a bottleneck of res2 (the stages output 4, 8, 16, 32 times as many).
        hidden: channels of the transformer, a multiple of 4 and of ``heads``.
        heads: attention heads.
        ffn: hidden channels of the feed-forward parts.
        decoder_layers: transformer decoder layers, at least 1.
        queries: proposals per image, N.
        conv_dim: channels inside the pixel decoder, a multiple of 32.
        mask_dim: channels of mask and per-pixel embeddings.
        class_mlp: widths of the class-embedding head; starts with ``hidden``.
        dropout: probability; active only in training mode.

    Raises:
        SettingError: sizes that do not fit together.
    """

    depth: int = 101
    stem_width: int = 64
    width: int = 64
    hidden: int = 256
    heads: int = 8
    ffn: int = 2048
    decoder_layers: int = 6
    queries: int = 100
    conv_dim: int = 256
    mask_dim: int = 256
    class_mlp: tuple[int, ...] = (256, 1024, 512)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_mlp", tuple(self.class_mlp))  # JSON has only lists
        if self.depth not in BLOCKS:
            raise SettingError(f"unknown MaskFormer depth {self.depth}: choose one of {sorted(BLOCKS)}")
        if self.hidden % self.heads or self.hidden % 4:
            raise SettingError(
                f"MaskFormer hidden width {self.hidden} must be a multiple of 4 and of {self.heads} heads"
            )
        if self.conv_dim % GROUPS:
            raise SettingError(f"MaskFormer conv_dim {self.conv_dim} must be a multiple of {GROUPS}")
        if len(self.class_mlp) < 2 or self.class_mlp[0] != self.hidden:
            raise SettingError(f"MaskFormer class_mlp {self.class_mlp} must start with the hidden width {self.hidden}")


class LayerOutput(NamedTuple):
    """Output of one decoder layer.

    Attributes:
        mask_logits: (B, N, H/4, W/4).
        class_embeddings: (B, N, class_mlp[-1]), not normalised.
    """

    mask_logits: Tensor
    class_embeddings: Tensor


class MaskFormerOutput(NamedTuple):
    """Output of the network: that of the last decoder layer, and of the earlier layers.

    Attributes:
        mask_logits: (B, N, H/4, W/4).
        class_embeddings: (B, N, class_mlp[-1]), not normalised.
        auxiliary: output of the earlier layers, in order; empty unless requested.
    """

    mask_logits: Tensor
    class_embeddings: Tensor
    auxiliary: tuple[LayerOutput, ...]


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(GROUPS, channels)


class PixelDecoder(nn.Module):
    """Feature pyramid from stride 32 up to stride 4 (docs/method.md §2, "Pixel decoder").

    Args:
        inputs: channels of res2, res3, res4, res5.
        width: channels inside, a multiple of 32.
        outputs: channels of the per-pixel embedding.
    """

    def __init__(self, inputs: tuple[int, ...], width: int, outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(NormedConv(_group_norm, c, width, 1, relu=False) for c in inputs[:-1])
        self.top = NormedConv(_group_norm, inputs[-1], width, 3)
        self.smooth = nn.ModuleList(NormedConv(_group_norm, width, width, 3) for _ in inputs[:-1])
        self.embed = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, features: Features) -> Tensor:
        """Per-pixel embeddings (B, outputs, H/4, W/4) from the feature maps of the backbone."""
        y = self.top(features.res5)
        for level in (2, 1, 0):
            side = self.lateral[level](features[level])
            y = self.smooth[level](side + F.interpolate(y, size=side.shape[-2:], mode="nearest"))
        return self.embed(y)


class MaskFormerNetwork(nn.Module):
    """The network: mask logits and class embeddings of all queries from pixels."""

    def __init__(self, config: MaskFormerConfig) -> None:
        super().__init__()
        self.backbone = DeepStemResNet(config.depth, config.stem_width, config.width)
        channels = self.backbone.channels
        self.pixel_decoder = PixelDecoder(channels, config.conv_dim, config.mask_dim)
        self.decoder = QueryDecoder(
            channels[-1],
            config.hidden,
            config.heads,
            config.ffn,
            config.decoder_layers,
            config.queries,
            config.dropout,
        )
        self.mask_head = MLP((config.hidden, config.hidden, config.hidden, config.mask_dim))
        self.class_head = MLP(config.class_mlp)

    def forward(self, pixels: Tensor, auxiliary: bool = False) -> MaskFormerOutput:
        """Run the network (docs/method.md §2).

        Args:
            pixels: (B, 3, H, W) float, normalised with ImageNet's statistics, H and W multiples of 32.
            auxiliary: also return the output of earlier decoder layers, which the losses of stage 2 need.
        """
        features = self.backbone(pixels.to(self.decoder.project.weight.dtype))
        per_pixel = self.pixel_decoder(features)
        states = self.decoder(features.res5)
        outputs = tuple(self._layer_output(state, per_pixel) for state in (states if auxiliary else states[-1:]))
        return MaskFormerOutput(*outputs[-1], auxiliary=outputs[:-1])

    def _layer_output(self, state: Tensor, per_pixel: Tensor) -> LayerOutput:
        masks = torch.einsum("bnc,bchw->bnhw", self.mask_head(state), per_pixel)
        return LayerOutput(masks, self.class_head(state))


class MaskFormer(nn.Module):
    """The original's proposer.

    Args:
        config: sizes; None: the published R101c. The weights are random until they are loaded.
    """

    kind = "maskformer"
    masks_are_instances = True
    normalization = IMAGENET

    def __init__(self, config: MaskFormerConfig | None = None) -> None:
        super().__init__()
        self.config = config or MaskFormerConfig()
        self.network = MaskFormerNetwork(self.config)

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose one mask per query.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded to multiples of 32.

        Returns:
            One ``Proposals`` per image: float32 logits at stride 4, slots 0 to N - 1, class embeddings.
        """
        output = self.predict(pixels)
        return [every_query(*image) for image in zip(output.mask_logits, output.class_embeddings, strict=True)]

    def predict(self, pixels: Tensor, auxiliary: bool = False) -> MaskFormerOutput:
        """Mask logits and class embeddings as tensors, for training.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded to multiples of 32.
            auxiliary: also return the output of earlier decoder layers.
        """
        return self.network(pixels, auxiliary)

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "MaskFormer":
        """Create a proposer with random weights from the values of ``config_dict``.

        Raises:
            CheckpointError: an unknown entry or value.
        """
        return cls(from_json(MaskFormerConfig, config, "the MaskFormer"))


def every_query(logits: Tensor, embeddings: Tensor | None = None) -> Proposals:
    """One proposal per query, from logits (N, h, w) and class embeddings (N, C); slots are the query indices."""
    return Proposals(
        logits.float(), torch.arange(len(logits)), embeddings=None if embeddings is None else embeddings.float()
    )


_ORIGINAL_PREFIXES = {
    "backbone.": "backbone.",
    **{f"sem_seg_head.pixel_decoder.adapter_{i}.": f"pixel_decoder.lateral.{i - 1}." for i in (1, 2, 3)},
    **{f"sem_seg_head.pixel_decoder.layer_{i}.": f"pixel_decoder.smooth.{i - 1}." for i in (1, 2, 3)},
    "sem_seg_head.pixel_decoder.layer_4.": "pixel_decoder.top.",
    "sem_seg_head.pixel_decoder.mask_features.": "pixel_decoder.embed.",
    "sem_seg_head.predictor.transformer.decoder.": "decoder.",
    "sem_seg_head.predictor.input_proj.": "decoder.project.",
    "sem_seg_head.predictor.query_embed.weight": "decoder.queries",
    "sem_seg_head.predictor.mask_embed.": "mask_head.",
    "sem_seg_head.predictor.class_embed.": "class_head.",
}
# In the original a convolution contains its norm; here both are children of ``NormedConv``.
_NORMED_WEIGHT = re.compile(r"((?:conv\d|shortcut|lateral\.\d|smooth\.\d|top)\.)weight$")


def from_original_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of an original checkpoint to those of ``MaskFormer``.

    Args:
        state: the entries ``backbone.*`` and ``sem_seg_head.*`` of an original stage-2 or stage-3 checkpoint.

    Returns:
        The same tensors under the keys of ``MaskFormer.state_dict()``; strict loading checks that they are complete.

    Raises:
        CheckpointError: a key that is not part of the original's proposal network.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        prefix = next((p for p in _ORIGINAL_PREFIXES if key.startswith(p)), None)
        if prefix is None:
            unknown.append(key)
            continue
        name = _ORIGINAL_PREFIXES[prefix] + key[len(prefix) :]
        name = name.replace(".self_attn.", ".self_attention.").replace(".multihead_attn.", ".cross_attention.")
        renamed["network." + _NORMED_WEIGHT.sub(r"\1conv.weight", name)] = value
    if unknown:
        raise CheckpointError(f"keys that are not part of the original's proposal network: {list_some(unknown)}")
    return renamed


def config_of_original(state: Mapping[str, Tensor], heads: int = 8) -> MaskFormerConfig:
    """Read the sizes of an original checkpoint from the shapes of its tensors.

    Args:
        state: as in ``from_original_state``.
        heads: attention heads, which the shapes do not determine; 8 in the published models.

    Raises:
        CheckpointError: entries are missing, or the backbone is neither R50c nor R101c.
    """
    decoder = "sem_seg_head.predictor"
    layers = {key.split(".")[5] for key in state if key.startswith(f"{decoder}.transformer.decoder.layers.")}
    blocks = len({key.split(".")[2] for key in state if key.startswith("backbone.res4.")})
    depth = next((d for d, counts in BLOCKS.items() if counts[2] == blocks), None)
    if depth is None:
        raise CheckpointError(f"the backbone has {blocks} blocks in res4: expected 6 (R50c) or 23 (R101c)")
    try:
        queries, hidden = state[f"{decoder}.query_embed.weight"].shape
        class_head = [state[f"{decoder}.class_embed.layers.{i}.bias"] for i in (0, 1)]
        return MaskFormerConfig(
            depth=depth,
            stem_width=len(state["backbone.stem.conv1.weight"]),
            width=len(state["backbone.res2.0.conv1.weight"]),
            hidden=hidden,
            heads=heads,
            ffn=len(state[f"{decoder}.transformer.decoder.layers.0.linear1.bias"]),
            decoder_layers=len(layers),
            queries=queries,
            conv_dim=len(state["sem_seg_head.pixel_decoder.layer_1.weight"]),
            mask_dim=len(state["sem_seg_head.pixel_decoder.mask_features.weight"]),
            class_mlp=(hidden, *(len(bias) for bias in class_head)),
        )
    except KeyError as error:
        raise CheckpointError(f"the checkpoint lacks {error.args[0]} of the proposal network") from error

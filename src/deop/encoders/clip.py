"""CLIP's vision transformer with severance inside its attention (docs/method.md §3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop.encoders.blocks import ACTIVATIONS, Block, check_sizes
from deop.encoders.clip_keys import read_vision_config, vision_from_openai, vision_from_transformers
from deop.encoders.severance import Severance
from deop.encoders.tower import Sizes, VisionTower, need_masks
from deop.encoders.types import VisionFeatures
from deop.encoders.windows import Windows
from deop.errors import CheckpointError
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import load_strictly, read_weights


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a vision transformer. The defaults are ViT-B/16 of OpenAI's CLIP.

    Attributes:
        width: channels of the residual stream.
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        hidden: channels inside the MLP.
        patch: side of a patch in pixels.
        grid: patches per side that the position table was trained for.
        output: channels of the joint space.
        activation: "quick_gelu" or "gelu".
        norm_eps: epsilon of the layer norms.
        learned_at_input: whether a learned position table is added to the input, as in DeOP.
        learned_in_blocks: blocks that add a learned position table to their residual stream at entry.
        learned_grid: patches per side of the learned tables.
        position_rule: "grid": interpolate a table unless the patch grid has the table's shape; "count": unless it has
            the table's number of patches. The latter is the original's rule, kept for its checkpoints: a grid of
            another shape is then read row by row (docs/method.md §13.7). "offset": as "grid", with the scale computed
            for 0.1 patches more, as in SCLIP and the methods derived from it (docs/attention.md).
        normalization: normalisation of the pixels.

    Raises:
        CheckpointError: an unknown activation or position rule, or heads that do not divide the width.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    grid: int = 14
    output: int = 512
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    learned_at_input: bool = False
    learned_in_blocks: tuple[int, ...] = ()
    learned_grid: int = 24
    position_rule: str = "grid"
    normalization: Normalization = CLIP

    def __post_init__(self) -> None:
        object.__setattr__(self, "learned_in_blocks", tuple(self.learned_in_blocks))
        check_sizes("vision", self.activation, ACTIVATIONS, self.width, self.heads)
        if self.position_rule not in ("grid", "count", "offset"):
            raise CheckpointError(f"unknown position rule {self.position_rule!r}: expected 'grid', 'count' or 'offset'")


class CLIPVision(VisionTower):
    """CLIP's vision transformer for images of any size; any of its blocks can be severed.

    Args:
        config: sizes; the weights are random until they are loaded.
    """

    kind = "clip"
    config_type = VisionConfig
    options = ("windows", "region_tokens", "proxy")
    """Arguments of ``forward`` that not every encoder has."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config)
        width = config.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + config.grid**2, width) * width**-0.5)
        learned = ["input"] * config.learned_at_input + [str(block) for block in config.learned_in_blocks]
        # Initialised at random, not to zero, as in the original (docs/method.md §3, "Positions").
        self.learned_positions = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(1 + config.learned_grid**2, width) * width**-0.5) for name in learned}
        )
        self.norm_pre = nn.LayerNorm(width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_post = nn.LayerNorm(width, eps=config.norm_eps)
        self.projection = nn.Parameter(torch.randn(width, config.output) * width**-0.5)

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

    def forward(
        self,
        pixels: Tensor,
        masks: Tensor | None = None,
        *,
        severance: Severance | None = None,
        valid: Tensor | None = None,
        sizes: list[tuple[int, int]] | Tensor | None = None,
        proxy: Tensor | None = None,
        windows: Windows | None = None,
        region_tokens: bool = False,
    ) -> VisionFeatures:
        """Encode whole images in one pass.

        Args:
            pixels: (B, 3, H, W) float, normalised. Sides that are not multiples of the patch are padded with 0.
            masks: (B, N, h, w) float, mask logits over the same canvas at any stride; needed by kinds of severance
                that use masks.
            severance: where and how attention is severed; None: nowhere.
            valid: (B, N) bool, False for padding if the images of a batch have different N; None: all are valid.
            sizes: (height, width) of each image in pixels, or a tensor (1, 2) int64 for exported graphs. What lies
                beyond an image is excluded from attention, and its features do not depend on the rest of the batch.
                None: every image fills the canvas, so padding is encoded like image content, as in the original.
            proxy: (B, c, gh', gw') float, features of another network over the same canvas, for
                ``similarity="proxy"``; patch features then have their grid.
            windows: (size, stride) in pixels: the blocks before the first severed one (before the last one, if none is)
                run on overlapping windows of this size (docs/method.md §3, "Windows"); None: on the whole image.
            region_tokens: also return an embedding of each mask, from a copy of the class token that attends to the
                class token and the patches of its mask in every block (docs/method.md §5, "Region tokens").

        Returns:
            Patch features (B, C, gh, gw) and image embeddings (B, C), not normalised (docs/method.md §3).

        Raises:
            SettingError: a severed layer that the encoder does not have, or missing masks.
        """
        need_masks(masks, region_tokens, "region tokens")
        return self._features(
            pixels, masks, severance or Severance(), valid, sizes, proxy, windows, regions=region_tokens
        )

    def _enter(self, cells: Tensor, sizes: Sizes, regions: int) -> Tensor:
        grid = (cells.shape[-2], cells.shape[-1])
        x = torch.cat([self.class_token.to(cells.dtype).expand(cells.shape[0], 1, -1), cells.flatten(2).mT], 1)
        x = x + self._positions(self.positions, grid, sizes)
        if self.config.learned_at_input:
            x = x + self._positions(self.learned_positions["input"], grid, sizes)
        x = self.norm_pre(x)
        return torch.cat([x, x[:, :1].expand(-1, regions, -1)], 1) if regions else x

    def _project(self, tokens: Tensor) -> Tensor:
        return tokens @ self.projection

    @classmethod
    def from_folder(cls, folder: str | Path) -> "CLIPVision":
        """Load the encoder from a folder in the layout of transformers' CLIP, of any size and patch.

        Raises:
            CheckpointError: another layout, or weights that are missing, unexpected, damaged or pickled.
        """
        settings, normalization = read_vision_config(Path(folder))
        encoder = cls(VisionConfig(**settings, normalization=normalization))
        load_strictly(encoder, vision_from_transformers(read_weights(folder)), str(folder))
        return encoder.eval()

    @classmethod
    def from_openai(
        cls,
        state: dict[str, Tensor],
        *,
        heads: int | None = None,
        normalization: Normalization = CLIP,
        **options: Any,
    ) -> "CLIPVision":
        """Load the encoder from a state dict in OpenAI's layout, which the original's checkpoints use too.

        Args:
            state: keys below ``visual.``: ``conv1.weight``, ``transformer.resblocks.0...``, and the learned position
                tables where there are any. Sizes are read from the shapes.
            heads: attention heads; None: those of the published CLIP of this width.
            normalization: normalisation of the pixels.
            options: further fields of ``VisionConfig``.

        Raises:
            CheckpointError: listing missing and unexpected keys.
        """
        settings, renamed = vision_from_openai(state, heads)
        encoder = cls(VisionConfig(**settings, normalization=normalization, **options))
        load_strictly(encoder, renamed, "the state dict")
        return encoder.eval()

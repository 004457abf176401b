"""The vision encoder of the small model: a convolutional trunk, a transformer with severance, and a fine branch.

The joint space has one dimension more than the text space: it is 1 in patch features before normalisation, and 0 in
text embeddings. Since embeddings are compared by cosine, the norm of the text part of a patch is its confidence.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.blocks import Block
from deop.encoders.clip import VisionConfig
from deop.encoders.severance import Severance, mixer, patch_coverage
from deop.encoders.types import VisionFeatures
from deop.errors import SettingError
from deop.images.preprocessing import Normalization
from deop.networks.efficientnet import NORMALIZATION, EfficientNetLite
from deop.networks.resampling import grid_of, inside_images, resize_tokens
from deop.networks.shared_trunk import SharedTrunk

TOKEN = 16
"""Side of a transformer token in pixels."""
CELL = 8
"""Side of an output patch in pixels."""


@dataclass(frozen=True)
class NanoConfig:
    """Sizes of the encoder.

    Attributes:
        text: dimensions of the text space; patch features have one more.
        width: channels of the transformer.
        layers: transformer blocks.
        heads: attention heads.
        hidden: channels inside the MLP.
        region_width: channels of the fine branch.
        region_hidden: channels inside the MLP of the fine branch.
        dropout: probability in the fine branch, in training only.
        sources: channels of the four feature maps of the trunk.
        severed: blocks that were severed in training.
        residual: weight of the residual stream in severed blocks; 0.2 as in the original's plain encoder.
    """

    text: int = 256
    width: int = 256
    layers: int = 3
    heads: int = 4
    hidden: int = 1024
    region_width: int = 256
    region_hidden: int = 512
    dropout: float = 0.1
    sources: tuple[int, ...] = (24, 48, 120, 352)
    severed: tuple[int, ...] = (-2, -1)
    residual: float = 0.2

    def __post_init__(self) -> None:
        for name in ("sources", "severed"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


class RegionBranch(nn.Module):
    """The fine branch: from tokens of 16 pixels and the trunk's map at stride 8 to cells of 8 pixels.

    Args:
        config: sizes of the encoder.
        inputs: channels of the tokens.
        width: channels of the branch.
    """

    def __init__(self, config: NanoConfig, inputs: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(config.sources[1], width, 1)
        self.coarse = nn.Linear(inputs, width)
        self.filter = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.region_hidden)
        self.down = nn.Linear(config.region_hidden, config.text)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.down.weight, std=0.003)  # at first all confidences are low

    def forward(
        self, fine: Tensor, tokens: Tensor, grid: torch.Size, every: int = 1, phase: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """Text part of the features of each cell.

        Args:
            fine: (B, sources[1], h, w) float, the trunk's map at stride 8.
            tokens: (B, L, inputs) float, without the class token.
            grid: (gh, gw) of the tokens.
            every: in training, compute only every n-th row and column.
            phase: the first of these rows and columns.

        Returns:
            (B, h, w, text), or fewer rows and columns.
        """
        coarse = resize_tokens(self.coarse(tokens), grid, fine.shape[-2:])
        x = F.gelu(self.fine(fine).permute(0, 2, 3, 1) + coarse)
        x = (x + self.filter(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))[:, phase[0] :: every, phase[1] :: every]
        return self.down(self.dropout(F.gelu(self.up(self.norm(x)))))


class NanoEncoder(nn.Module):
    """The vision encoder of the small model, for images of any size.

    Args:
        config: sizes; the weights are random until they are loaded.
        trunk: the trunk, which the proposer may share.
    """

    kind = "nano"

    def __init__(self, config: NanoConfig, trunk: SharedTrunk) -> None:
        super().__init__()
        self.config, self.trunk = config, trunk
        tower = VisionConfig(
            width=config.width, layers=config.layers, heads=config.heads, hidden=config.hidden, activation="gelu"
        )
        self.embedding = nn.Linear(sum(config.sources[2:]), config.width)
        self.class_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(tower) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.text)
        self.regions = RegionBranch(config, config.width, config.region_width)
        nn.init.normal_(self.projection.weight, std=0.002)

    @property
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        return NORMALIZATION

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.text + 1

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return CELL

    @property
    def crop_side(self) -> int:
        """Side of the crops of the two-stream classifier in pixels."""
        return 224

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "NanoEncoder":
        """Create an encoder with random weights and a new trunk from the values of ``config_dict``.

        Raises:
            CheckpointError: an unknown entry or value.
        """
        return cls(from_json(NanoConfig, values, "the nano encoder"), SharedTrunk(EfficientNetLite())).eval()

    @property
    def severance(self) -> Severance:
        """The severance that the weights were trained with; the class token was trained without."""
        return Severance("self", self.config.severed, self.config.residual)

    def forward(
        self,
        pixels: Tensor,
        masks: Tensor | None = None,
        *,
        severance: Severance | None = None,
        valid: Tensor | None = None,
        sizes: Sequence[tuple[int, int]] | Tensor | None = None,
    ) -> VisionFeatures:
        """Encode whole images in one pass.

        Args:
            pixels: (B, 3, H, W) float, normalised.
            masks: (B, N, h, w) float, mask logits over the same canvas at any stride; needed by kinds of severance
                that use masks.
            severance: where and how attention is severed; None: nowhere.
            valid: (B, N) bool, False for padding if the images of a batch have different N; None: all are valid.
            sizes: (height, width) of each image in pixels, or a tensor (B, 2) int64; tokens beyond an image are
                excluded from attention. None: every image fills the canvas.

        Returns:
            Patch features (B, C, gh, gw) at stride 8 and image embeddings (B, C), L2-normalised float32. Patch features
            are 0 outside an image.

        Raises:
            SettingError: a severed layer that the encoder does not have, or missing masks.
        """
        severance = severance or Severance()
        residuals = severance.residuals(len(self.blocks))
        if severance.needs_proxy or severance.parallel or severance.levels:
            missing = "a second network" if severance.needs_proxy else "parallel" if severance.parallel else "levels"
            raise SettingError(f"the small model (nano) has no severance with {missing}: use a CLIP (--model clip-b16)")
        features: list[Tensor] = self.trunk(pixels)
        grid = features[2].shape[-2:]
        x = self.tokens(features)
        inside = None if sizes is None else inside_images(sizes, (grid[0], grid[1]), TOKEN, x.device)

        keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None, None]
        mix = None
        if residuals:
            coverage = None
            if severance.uses_masks and masks is not None:
                coverage = patch_coverage(masks, (pixels.shape[-2], pixels.shape[-1]), TOKEN).flatten(2).to(x.dtype)
                coverage = _fit(coverage, (-(-pixels.shape[-2] // TOKEN), -(-pixels.shape[-1] // TOKEN)), grid)
            mix = mixer(severance, coverage, valid, inside, (grid[0], grid[1]))
        for index, block in enumerate(self.blocks):
            if index in residuals:
                x = block(x, keys, mix, residuals[index], severance.class_token, severance.mlp)
            else:
                x = block(x, keys)
        image, patches = (confident(part) for part in self.finish(x, features))
        rows, columns = grid_of((pixels.shape[-2], pixels.shape[-1]), CELL)
        patches = patches[:, :, :rows, :columns]
        if sizes is not None:
            inside = inside_images(sizes, (rows, columns), CELL, x.device)
            patches = patches if inside is None else patches * inside.unflatten(1, (rows, columns))[:, None]
        return VisionFeatures(patches, image)

    def tokens(self, features: list[Tensor]) -> Tensor:
        """Tokens (B, 1 + L, width) at stride 16, the class token first, from the feature maps of the trunk."""
        x = self.embedding(coarse(features))
        return torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)

    def finish(
        self, x: Tensor, features: list[Tensor], every: int = 1, phase: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Tensor]:
        """Text parts of the image embedding and of the cells' features.

        Args:
            x: (B, 1 + L, width) float, the tokens after the last block.
            features: the feature maps of the trunk.
            every: as in ``RegionBranch``.
            phase: as in ``RegionBranch``.

        Returns:
            (B, text) and (B, text, h, w) at stride 8, not normalised.
        """
        x, grid = self.norm(x), features[2].shape[-2:]
        text = self.projection(x)
        tokens = resize_tokens(text[:, 1:], grid, features[1].shape[-2:])[:, phase[0] :: every, phase[1] :: every]
        cells = tokens + self.regions(features[1], x[:, 1:], grid, every, phase)
        return text[:, 0], cells.permute(0, 3, 1, 2)


def coarse(features: list[Tensor]) -> Tensor:
    """The two deepest feature maps of the trunk, concatenated: (B, L, channels) at stride 16."""
    return torch.cat([each.permute(0, 2, 3, 1) for each in features[2:]], 3).flatten(1, 2)


def confident(x: Tensor) -> Tensor:
    """Append the constant 1 to text parts (B, text, ...) and L2-normalise: (B, text + 1, ...) float32."""
    x = x.float().movedim(1, -1)  # as ``finish`` computes it: the sum over channels is fast if they are the last ones
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    return (x / x.norm(dim=-1, keepdim=True)).movedim(-1, 1)


def _fit(coverage: Tensor, image_grid: tuple[int, int], grid: torch.Size) -> Tensor:
    """Pad coverage (B, N, L) from the token grid of the image to the token grid of the padded trunk input."""
    if image_grid == tuple(grid):
        return coverage
    rows, columns = image_grid
    return F.pad(coverage.unflatten(2, image_grid), (0, grid[1] - columns, 0, grid[0] - rows)).flatten(2)

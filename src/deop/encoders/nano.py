"""The small model's encoder: a convolutional trunk, a transformer with severable layers, and a region branch.

The joint space has one dimension more than the text: patches carry a constant there and names (almost) nothing. As
everything is compared by cosine, the length of a patch's text part against that constant is its confidence.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.clip import Block, VisionConfig
from deop.encoders.severance import Severance, mixer, patch_coverage
from deop.encoders.types import VisionFeatures
from deop.images.preprocessing import Normalization
from deop.networks.efficientnet import NORMALIZATION, EfficientNetLite
from deop.networks.resampling import grid_of, inside_images, resize_bilinear
from deop.networks.shared_trunk import SharedTrunk

TOKEN = 16
"""Pixels a side of a transformer token."""
CELL = 8
"""Pixels a side of an output patch."""


@dataclass(frozen=True)
class NanoConfig:
    """The shape of the encoder."""

    text: int = 256  # dimensions of the text space; patches have one more
    width: int = 256  # channels of the transformer
    layers: int = 3
    heads: int = 4
    hidden: int = 1024
    region_width: int = 256  # channels of the region branch
    region_hidden: int = 512
    dropout: float = 0.1  # in the region branch, in training only
    sources: tuple[int, ...] = (24, 48, 120, 352)  # channels of the trunk's four maps
    severed: tuple[int, ...] = (-2, -1)  # layers that were severed in training
    residual: float = 0.2  # weight of the residual stream in them, as in the last block of the original's second tower

    def __post_init__(self) -> None:
        for name in ("sources", "severed"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


class RegionBranch(nn.Module):
    """From tokens of sixteen pixels to cells of eight, with the trunk's finer features beside them."""

    def __init__(self, config: NanoConfig, inputs: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(config.sources[1], width, 1)
        self.coarse = nn.Linear(inputs, width)
        self.filter = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.region_hidden)
        self.down = nn.Linear(config.region_hidden, config.text)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.down.weight, std=0.003)  # cells begin unsure: their text parts are short

    def forward(
        self, fine: Tensor, tokens: Tensor, grid: torch.Size, every: int = 1, phase: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """The trunk's map at stride 8 and tokens (B, L, inputs) of ``grid`` -> (B, text, h, w) at stride 8.

        Training may ask for every n-th cell a side only, from the row and column of ``phase`` on.
        """
        coarse = self.coarse(tokens).mT.unflatten(2, grid)
        x = F.gelu(self.fine(fine) + resize_bilinear(coarse, fine.shape[-2:]))
        x = (x + self.filter(x))[:, :, phase[0] :: every, phase[1] :: every]
        x = self.dropout(F.gelu(self.up(self.norm(x.permute(0, 2, 3, 1)))))
        return self.down(x).permute(0, 3, 1, 2)


class NanoEncoder(nn.Module):
    """The encoder of the small model, for images of any size."""

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
        """How pixels are to be normalised."""
        return NORMALIZATION

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.text + 1

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return CELL

    @property
    def crop_side(self) -> int:
        """Side of the crops that the two-stream baseline cuts, pixels."""
        return 224

    def config_dict(self) -> dict[str, Any]:
        """The settings, as JSON would have them."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "NanoEncoder":
        """An encoder of random weights from ``config_dict``'s settings, with a trunk of its own.

        Raises:
            CheckpointError: settings that are not known.
        """
        return cls(from_json(NanoConfig, values, "the nano encoder"), SharedTrunk(EfficientNetLite())).eval()

    @property
    def severance(self) -> Severance:
        """The severance that the weights were trained with."""
        return Severance("self", self.config.severed, self.config.residual)

    def forward(
        self,
        pixels: Tensor,
        masks: Tensor | None = None,
        *,
        severance: Severance | None = None,
        valid: Tensor | None = None,
        sizes: list[tuple[int, int]] | None = None,
    ) -> VisionFeatures:
        """Encode whole images, once.

        Args:
            pixels: (B, 3, H, W) float, normalised.
            masks: (B, N, h, w) float, mask logits over the same canvas, of any stride; for severance that needs them.
            severance: where and how attention is severed; None: nowhere.
            valid: (B, N) bool, which proposals are real, where images of the batch have different N.
            sizes: the (height, width) of each image in pixels where some are smaller than the canvas; tokens beyond
                take no part in attention.

        Returns:
            Patches (B, C, gh, gw) at stride 8 and images (B, C), L2-normalised; zero outside an image.

        Raises:
            SettingError: a severed layer the encoder lacks, or severance that needs masks without any.
        """
        severance = severance or Severance()
        residuals = severance.residuals(len(self.blocks))
        features: list[Tensor] = self.trunk(pixels)
        grid = features[2].shape[-2:]
        x = self.tokens(features)
        inside = None if sizes is None else inside_images(sizes, (grid[0], grid[1]), TOKEN, x.device)

        keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None, None]
        mix = None
        if residuals:
            coverage = None
            if severance.needs_masks and masks is not None:
                coverage = patch_coverage(masks, (pixels.shape[-2], pixels.shape[-1]), TOKEN).flatten(2).to(x.dtype)
                coverage = _fit(coverage, (-(-pixels.shape[-2] // TOKEN), -(-pixels.shape[-1] // TOKEN)), grid)
            mix = mixer(severance.kind, coverage, valid, inside)
        for index, block in enumerate(self.blocks):
            x = block(x, keys, mix if index in residuals else None, residuals.get(index, 1.0))
        image, patches = (confident(part) for part in self.finish(x, features))
        rows, columns = grid_of((pixels.shape[-2], pixels.shape[-1]), CELL)
        patches = patches[:, :, :rows, :columns]
        if sizes is not None:
            for index, size in enumerate(sizes):
                rows, columns = grid_of(size, CELL)
                patches[index, :, rows:], patches[index, :, :, columns:] = 0, 0
        return VisionFeatures(patches, image)

    def tokens(self, features: list[Tensor]) -> Tensor:
        """Trunk features -> tokens (B, 1 + L, width) at stride 16, the class token first."""
        x = self.embedding(coarse(features))
        return torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)

    def finish(
        self, x: Tensor, features: list[Tensor], every: int = 1, phase: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Tensor]:
        """Tokens after the last block -> text parts of the image (B, text) and of cells (B, text, h, w) at stride 8.

        ``every`` and ``phase``: as in ``RegionBranch``.
        """
        x, grid = self.norm(x), features[2].shape[-2:]
        text = self.projection(x)
        tokens = resize_bilinear(text[:, 1:].mT.unflatten(2, grid), features[1].shape[-2:])
        tokens = tokens[:, :, phase[0] :: every, phase[1] :: every]
        return text[:, 0], tokens + self.regions(features[1], x[:, 1:], grid, every, phase)


def coarse(features: list[Tensor]) -> Tensor:
    """The trunk's two deepest maps side by side, (B, L, channels) at stride 16."""
    return torch.cat([features[2], features[3]], 1).flatten(2).mT


def confident(x: Tensor) -> Tensor:
    """(B, text, ...) -> (B, text + 1, ...), the constant 1 appended, L2-normalised."""
    x = x.float()
    return F.normalize(torch.cat([x, torch.ones_like(x[:, :1])], 1), dim=1)


def _fit(coverage: Tensor, own: tuple[int, int], grid: torch.Size) -> Tensor:
    """Coverage (B, N, L) of the image's own token grid laid out over the padded one."""
    if own == tuple(grid):
        return coverage
    return F.pad(coverage.unflatten(2, own), (0, grid[1] - own[1], 0, grid[0] - own[0])).flatten(2)

"""CLIP's vision transformer, one readable ViT, with severance inside its attention (METHOD section 3)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.clip_keys import from_openai, from_transformers, read_transformers_config
from deop.encoders.int8 import last_outputs
from deop.encoders.severance import Mix, Severance, mixer, patch_coverage
from deop.encoders.types import VisionFeatures
from deop.errors import CheckpointError
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import load_strictly, read_weights
from deop.networks.resampling import grid_of, inside_images


@dataclass(frozen=True)
class VisionConfig:
    """The shape of a vision tower. The defaults are ViT-B/16 of OpenAI's CLIP."""

    width: int = 768  # channels of the residual stream
    layers: int = 12
    heads: int = 12
    hidden: int = 3072  # channels inside the MLP
    patch: int = 16  # side of a patch, pixels
    grid: int = 14  # patches a side that the position table was made for
    output: int = 512  # channels of the joint space
    activation: str = "quick_gelu"  # or "gelu"
    norm_eps: float = 1e-5
    learned_at_input: bool = False  # a learned position table added to the input (DeOP's tower has one)
    learned_in_blocks: tuple[int, ...] = ()  # blocks whose residual stream receives a learned table at entry
    learned_grid: int = 24  # patches a side of the learned tables
    # "grid" interpolates a table unless the grid is the table's own; "count" is the original's rule, kept for its
    # checkpoints: a grid with the table's number of patches but another shape is read row by row (METHOD 13.7).
    position_rule: str = "grid"
    normalization: Normalization = CLIP

    def __post_init__(self) -> None:
        object.__setattr__(self, "learned_in_blocks", tuple(self.learned_in_blocks))
        if isinstance(self.normalization, dict):
            object.__setattr__(self, "normalization", Normalization(**self.normalization))
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"unknown activation {self.activation!r} in the vision tower: {', '.join(ACTIVATIONS)}"
            )
        if self.position_rule not in ("grid", "count"):
            raise CheckpointError(f"unknown position rule {self.position_rule!r}: 'grid' or 'count'")
        if self.width % self.heads:
            raise CheckpointError(f"{self.heads} heads do not divide the width {self.width}")


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU: x * sigmoid(1.702 x)."""
    # As silu(1.702 x) / 1.702, which works in place: new memory for the largest tensors costs more than the sums.
    return F.silu(1.702 * x, inplace=not torch.is_grad_enabled()).mul_(1 / 1.702)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    """Multi-head self-attention whose values alone can be had, for severed blocks."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Ordinary attention over tokens (B, T, C); ``keys`` (B, 1, 1, T) bool says which may be looked at."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def severed(self, x: Tensor, mix: Mix) -> Tensor:
        """The values, mixed by ``mix`` instead of by attention: queries and keys are never computed."""
        width = x.shape[-1]
        return self.out(mix(last_outputs(self.qkv, x, 2 * width)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, keys: Tensor | None = None, mix: Mix | None = None, residual: float = 1.0) -> Tensor:
        """Tokens (B, T, C) -> (B, T, C); with ``mix`` the attention is severed."""
        if mix is None:
            x = x + self.attention(self.norm1(x), keys)
        else:
            x = residual * x + self.attention.severed(self.norm1(x), mix)
        return x + self.down(self.activation(self.up(self.norm2(x))))


class CLIPVision(nn.Module):
    """CLIP's vision tower for images of any size, its last blocks severed on request."""

    kind = "clip"

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + config.grid**2, width) * width**-0.5)
        learned = ["input"] * config.learned_at_input + [str(block) for block in config.learned_in_blocks]
        # Drawn, not zero, as in the original (METHOD section 3, "Positions").
        self.learned_positions = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(1 + config.learned_grid**2, width) * width**-0.5) for name in learned}
        )
        self.norm_pre = nn.LayerNorm(width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_post = nn.LayerNorm(width, eps=config.norm_eps)
        self.projection = nn.Parameter(torch.randn(width, config.output) * width**-0.5)

    @property
    def normalization(self) -> Normalization:
        """How pixels are to be normalised."""
        return self.config.normalization

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return self.config.patch

    @property
    def crop_side(self) -> int:
        """Side of the images that the tower was trained on, pixels."""
        return self.config.grid * self.config.patch

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
            pixels: (B, 3, H, W) float, normalised. Sides that are no multiple of the patch are padded with 0.
            masks: (B, N, h, w) float, mask logits over the same canvas, of any stride; for severance that needs them.
            severance: where and how attention is severed; None: nowhere.
            valid: (B, N) bool, which proposals are real, where images of the batch have different N.
            sizes: the (height, width) of each image in pixels where some are smaller than the canvas; the rest of the
                canvas then takes no part: an image gives the same features alone and in any batch. None: every image
                fills the canvas (also the original's way with padding: it sees the padding as image).

        Returns:
            Patch and image embeddings in the joint space, not normalised (METHOD section 3).

        Raises:
            SettingError: a severed layer the tower lacks, or severance that needs masks without any.
        """
        severance = severance or Severance()
        residuals = severance.residuals(len(self.blocks))
        patch, (height, width) = self.config.patch, pixels.shape[-2:]
        x = self.patch_embedding(F.pad(pixels, (0, -width % patch, 0, -height % patch)))
        grid = (x.shape[-2], x.shape[-1])
        inside = None if sizes is None else inside_images(sizes, grid, patch, x.device)

        x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x.flatten(2).mT], 1)
        x = x + self._positions(self.positions, grid, sizes)
        if self.config.learned_at_input:
            x = x + self._positions(self.learned_positions["input"], grid, sizes)
        x = self.norm_pre(x)

        keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None, None]
        mix = None
        if residuals:
            coverage = None
            if severance.needs_masks and masks is not None:
                coverage = patch_coverage(masks, (height, width), patch).flatten(2).to(x.dtype)
            mix = mixer(severance.kind, coverage, valid, inside)
        for index, block in enumerate(self.blocks):
            if index in self.config.learned_in_blocks:
                x = x + self._positions(self.learned_positions[str(index)], grid, sizes)
            x = block(x, keys, mix if index in residuals else None, residuals.get(index, 1.0))

        x = self.norm_post(x) @ self.projection
        if inside is not None:
            x = x * F.pad(inside, (1, 0), value=True)[..., None]
        return VisionFeatures(x[:, 1:].mT.unflatten(2, grid), x[:, 0])

    def config_dict(self) -> dict[str, Any]:
        """The settings, as JSON would have them."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "CLIPVision":
        """A tower of random weights from ``config_dict``'s settings.

        Raises:
            CheckpointError: settings that are not known.
        """
        return cls(from_json(VisionConfig, values, "the vision tower")).eval()

    def _positions(self, table: Tensor, grid: tuple[int, int], sizes: list[tuple[int, int]] | None) -> Tensor:
        """A position table for the canvas (1, 1 + L, C), or one an image (B, 1 + L, C) where sizes differ."""
        rule = self.config.position_rule
        grids = {grid_of(size, self.config.patch) for size in sizes} if sizes is not None else {grid}
        if grids == {grid}:
            return interpolate_positions(table, grid, rule)[None]
        own = {}
        for rows, columns in grids:
            fitted = interpolate_positions(table, (rows, columns), rule)
            cells = fitted[1:].unflatten(0, (rows, columns))
            cells = F.pad(cells, (0, 0, 0, grid[1] - columns, 0, grid[0] - rows)).flatten(0, 1)
            own[rows, columns] = torch.cat([fitted[:1], cells])
        return torch.stack([own[grid_of(size, self.config.patch)] for size in sizes or []])

    @classmethod
    def from_folder(cls, folder: str | Path) -> "CLIPVision":
        """The tower of a folder in the layout of transformers' CLIP (any size and patch).

        Raises:
            CheckpointError: no such layout, weights missing, surplus, damaged or pickled.
        """
        settings, normalization = read_transformers_config(Path(folder))
        tower = cls(VisionConfig(**settings, normalization=normalization))
        load_strictly(tower, from_transformers(read_weights(folder)), str(folder))
        return tower.eval()

    @classmethod
    def from_openai(
        cls,
        state: dict[str, Tensor],
        *,
        heads: int | None = None,
        normalization: Normalization = CLIP,
        **options: Any,
    ) -> "CLIPVision":
        """The tower of a state dict in OpenAI's own layout, or of the original's checkpoints (below ``visual.``).

        Args:
            state: keys without prefix: ``conv1.weight``, ``transformer.resblocks.0...``; learned tables are found by
                their key. Sizes are read from the shapes.
            heads: attention heads; None: one for each 64 channels, as in every published CLIP.
            normalization: how pixels are normalised.
            options: further fields of ``VisionConfig``.

        Raises:
            CheckpointError: naming missing and surplus keys.
        """
        settings, renamed = from_openai(state, heads)
        tower = cls(VisionConfig(**settings, normalization=normalization, **options))
        load_strictly(tower, renamed, "the state dict")
        return tower.eval()


def interpolate_positions(table: Tensor, grid: tuple[int, int], rule: str = "grid") -> Tensor:
    """A position table fitted to a patch grid, bicubic without antialiasing (METHOD section 3, "Positions").

    Args:
        table: (1 + g * g, C), the class token's row first.
        grid: (gh, gw) wanted.
        rule: "grid": interpolate unless the grid is (g, g); "count": unless gh * gw = g * g, the original's rule.

    Returns:
        (1 + gh * gw, C).
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if grid == (side, side) or (rule == "count" and grid[0] * grid[1] == side * side):
        return table
    square = table[1:].unflatten(0, (side, side)).permute(2, 0, 1)[None]
    # In float32: bicubic has no half-precision kernel everywhere, and the table is small.
    fitted = F.interpolate(square.float(), size=grid, mode="bicubic", align_corners=False)[0].to(table.dtype)
    return torch.cat([table[:1], fitted.flatten(1).T])

"""CLIP's vision transformer with severance inside its attention (docs/method.md §3)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.clip_keys import read_vision_config, vision_from_openai, vision_from_transformers
from deop.encoders.clip_positions import interpolate_positions, positions_within
from deop.encoders.int8 import last_outputs, plain_weights
from deop.encoders.severance import Mix, Severance, mixer, patch_coverage
from deop.encoders.types import VisionFeatures
from deop.errors import CheckpointError
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.attention import attend
from deop.networks.loading import load_strictly, read_weights
from deop.networks.resampling import grid_of, inside_images


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
            another shape is then read row by row (docs/method.md §13.7).
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
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"unknown activation {self.activation!r} of the vision encoder: choose one of {', '.join(ACTIVATIONS)}"
            )
        if self.position_rule not in ("grid", "count"):
            raise CheckpointError(f"unknown position rule {self.position_rule!r}: expected 'grid' or 'count'")
        if self.width % self.heads:
            raise CheckpointError(
                f"the width {self.width} of the vision encoder is not divisible by its {self.heads} heads"
            )


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU: x * sigmoid(1.702 x)."""
    if torch.compiler.is_exporting():
        return x * torch.sigmoid(1.702 * x)  # ONNX Runtime computes this in one step
    # Computed as silu(1.702 x) / 1.702 in place: allocating the largest tensors takes longer than the arithmetic.
    return F.silu(1.702 * x, inplace=not torch.is_grad_enabled()).mul_(1 / 1.702)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    """Multi-head self-attention that can also return its mixed values alone, for severed blocks."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Ordinary attention.

        Args:
            x: (B, T, C) float, the tokens.
            keys: (B, 1, 1, T) bool, which tokens may be attended to; None: all.

        Returns:
            (B, T, C).
        """
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(attend(query, key, value, keys).transpose(1, 2).flatten(2))

    def severed(self, x: Tensor, mix: Mix, keys: Tensor | None = None, class_token: str = "ordinary") -> Tensor:
        """Attention whose values are mixed by ``mix`` instead: queries and keys of the patches are never computed.

        Args:
            x: (B, 1 + L, C) float, the class token first.
            mix: the mixing function.
            keys: as in ``forward``, for the class token.
            class_token: "ordinary" or "severed", as in ``Severance``.

        Returns:
            (B, 1 + L, C).
        """
        values = last_outputs(self.qkv, x, 2 * x.shape[-1])
        mixed = mix(values)
        if class_token == "ordinary":
            mixed = torch.cat([self._attend_from_class_token(x, values, keys), mixed[:, 1:]], 1)
        return self.out(mixed)

    def _attend_from_class_token(self, x: Tensor, values: Tensor, keys: Tensor | None) -> Tensor:
        """The class token's row of ordinary attention before the output projection, (B, 1, C)."""
        width = x.shape[-1]
        weight, bias = plain_weights(self.qkv)
        query_weight, key_weight = weight[:width], weight[width : 2 * width]
        query = F.linear(x[:, 0], query_weight, bias[:width]).unflatten(-1, (self.heads, -1))  # (B, heads, d)
        # q · (W x + b) = (W^T q) · x + q · b, and the softmax ignores q · b: no key of a patch has to be computed.
        projected = torch.einsum(
            "bhd,hdc->bhc", query * query.shape[-1] ** -0.5, key_weight.unflatten(0, (self.heads, -1))
        )
        scores = (projected @ x.mT).float()  # (B, heads, T)
        if keys is not None:
            scores = scores.masked_fill(~keys[:, 0], float("-inf"))
        weights = scores.softmax(-1).to(x.dtype)
        return torch.einsum("bht,bthd->bhd", weights, values.unflatten(-1, (self.heads, -1))).flatten(1)[:, None]


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

    def forward(
        self,
        x: Tensor,
        keys: Tensor | None = None,
        mix: Mix | None = None,
        residual: float = 1.0,
        class_token: str = "ordinary",
    ) -> Tensor:
        """Apply the block.

        Args:
            x: (B, 1 + L, C) float, the class token first.
            keys: (B, 1, 1, 1 + L) bool, which tokens may be attended to; None: all.
            mix: the mixing function of severed attention; None: ordinary attention.
            residual: weight of the residual stream beside severed attention.
            class_token: "ordinary" or "severed", as in ``Severance``.

        Returns:
            (B, 1 + L, C).
        """
        if mix is None:
            x = x + self.attention(self.norm1(x), keys)
        else:
            attention = self.attention.severed(self.norm1(x), mix, keys, class_token)
            if class_token == "ordinary":
                x = torch.cat([x[:, :1], residual * x[:, 1:]], 1) + attention
            else:
                x = residual * x + attention
        return x + self.down(self.activation(self.up(self.norm2(x))))


class CLIPVision(nn.Module):
    """CLIP's vision transformer for images of any size; any of its blocks can be severed.

    Args:
        config: sizes; the weights are random until they are loaded.
    """

    kind = "clip"

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
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
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        return self.config.normalization

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.config.patch

    @property
    def crop_side(self) -> int:
        """Side of the training images in pixels: the size of the crops of the two-stream classifier."""
        return self.config.grid * self.config.patch

    def forward(
        self,
        pixels: Tensor,
        masks: Tensor | None = None,
        *,
        severance: Severance | None = None,
        valid: Tensor | None = None,
        sizes: list[tuple[int, int]] | Tensor | None = None,
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

        Returns:
            Patch features (B, C, gh, gw) and image embeddings (B, C), not normalised (docs/method.md §3).

        Raises:
            SettingError: a severed layer that the encoder does not have, or missing masks.
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
            x = block(x, keys, mix if index in residuals else None, residuals.get(index, 1.0), severance.class_token)

        x = self.norm_post(x) @ self.projection
        if inside is not None:
            x = x * F.pad(inside, (1, 0), value=True)[..., None]
        return VisionFeatures(x[:, 1:].mT.unflatten(2, grid), x[:, 0])

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "CLIPVision":
        """Create an encoder with random weights from the values of ``config_dict``.

        Raises:
            CheckpointError: an unknown entry or value.
        """
        return cls(from_json(VisionConfig, values, "the vision encoder")).eval()

    def _positions(self, table: Tensor, grid: tuple[int, int], sizes: list[tuple[int, int]] | Tensor | None) -> Tensor:
        """A position table fitted to the canvas (1, 1 + L, C), or to each image (B, 1 + L, C) if sizes differ."""
        rule = self.config.position_rule
        if torch.compiler.is_exporting() or isinstance(sizes, Tensor):
            extent = [] if sizes is None else [(side + self.config.patch - 1) // self.config.patch for side in sizes[0]]
            return positions_within(table, grid, (extent[0], extent[1]) if extent else grid, rule)[None]
        grids = {grid_of(size, self.config.patch) for size in sizes} if sizes is not None else {grid}
        if grids == {grid}:
            return interpolate_positions(table, grid, rule)[None]
        tables = {}
        for rows, columns in grids:
            fitted = interpolate_positions(table, (rows, columns), rule)
            cells = fitted[1:].unflatten(0, (rows, columns))
            cells = F.pad(cells, (0, 0, 0, grid[1] - columns, 0, grid[0] - rows)).flatten(0, 1)
            tables[rows, columns] = torch.cat([fitted[:1], cells])
        return torch.stack([tables[grid_of(size, self.config.patch)] for size in sizes or []])

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

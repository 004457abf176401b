"""CLIP's vision transformer with severance inside its attention (docs/method.md §3)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.blocks import ACTIVATIONS, Block
from deop.encoders.clip_keys import read_vision_config, vision_from_openai, vision_from_transformers
from deop.encoders.clip_positions import interpolate_positions, positions_within
from deop.encoders.severance import Severance, patch_coverage
from deop.encoders.similarity import region_scope
from deop.encoders.stream import Plan, Stream, part_of, stitched
from deop.encoders.types import VisionFeatures
from deop.encoders.windows import Layout, Windows
from deop.errors import CheckpointError, SettingError
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import load_strictly, read_weights
from deop.networks.resampling import grid_of, inside_images, resize_bilinear


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
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"unknown activation {self.activation!r} of the vision encoder: choose one of {', '.join(ACTIVATIONS)}"
            )
        if self.position_rule not in ("grid", "count", "offset"):
            raise CheckpointError(f"unknown position rule {self.position_rule!r}: expected 'grid', 'count' or 'offset'")
        if self.width % self.heads:
            raise CheckpointError(
                f"the width {self.width} of the vision encoder is not divisible by its {self.heads} heads"
            )


class CLIPVision(nn.Module):
    """CLIP's vision transformer for images of any size; any of its blocks can be severed.

    Args:
        config: sizes; the weights are random until they are loaded.
    """

    kind = "clip"
    options = ("windows", "region_tokens", "proxy")
    """Arguments of ``forward`` that not every encoder has."""

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
        severance = severance or Severance()
        severance.residuals(len(self.blocks))  # raises errors early
        proxy = proxy if severance.needs_proxy else None
        patch, (height, width) = self.config.patch, pixels.shape[-2:]
        cells = self.patch_embedding(F.pad(pixels, (0, -width % patch, 0, -height % patch)))
        grid = (cells.shape[-2], cells.shape[-1])
        coverage = scope = None
        if region_tokens and masks is None:
            raise SettingError("region tokens need masks: pass masks to the encoder")
        if masks is not None and (region_tokens or severance.uses_masks):
            scope = patch_coverage(masks, (height, width), patch).to(cells.dtype)
            coverage = scope
            if proxy is not None and 0 not in masks.shape:
                coverage = resize_bilinear(masks, proxy.shape[-2:]).sigmoid().to(cells.dtype)
            elif proxy is not None:
                coverage = cells.new_zeros(*masks.shape[:2], *proxy.shape[-2:])
            coverage = coverage if severance.uses_masks else None
            scope = scope if region_tokens else None
        if sizes is None or (windows is None and proxy is None):
            return self._encode(cells, coverage, valid, sizes, proxy, scope, severance=severance, windows=windows)
        grids = [grid_of(size, patch) for size in sizes]
        if set(grids) == {grid}:
            return self._encode(cells, coverage, valid, None, proxy, scope, severance=severance, windows=windows)
        # Windows and other grids follow the image, so that its features do not depend on the padding.
        parts: dict[int, VisionFeatures] = {}
        for rows, columns in dict.fromkeys(grids):
            chosen = [index for index, one in enumerate(grids) if one == (rows, columns)]
            share = (rows / grid[0], columns / grid[1])
            features = self._encode(
                cells[chosen, :, :rows, :columns],
                part_of(coverage, chosen, share),
                None if valid is None else valid[chosen],
                None,
                part_of(proxy, chosen, share),
                part_of(scope, chosen, share),
                severance=severance,
                windows=windows,
            )
            for position, index in enumerate(chosen):
                regions = None if features.regions is None else features.regions[position]
                parts[index] = VisionFeatures(features.patches[position], features.image[position], regions)
        ordered = [parts[index] for index in range(len(cells))]
        target = grid if proxy is None else (proxy.shape[-2], proxy.shape[-1])
        patches = [
            F.pad(one.patches, (0, target[1] - one.patches.shape[-1], 0, target[0] - one.patches.shape[-2]))
            for one in ordered
        ]
        tokens = [one.regions for one in ordered if one.regions is not None]
        return VisionFeatures(
            torch.stack(patches),
            torch.stack([one.image for one in ordered]),
            torch.stack(tokens) if tokens else None,
        )

    def _encode(
        self,
        cells: Tensor,
        coverage: Tensor | None,
        valid: Tensor | None,
        sizes: list[tuple[int, int]] | Tensor | None,
        proxy: Tensor | None,
        scope: Tensor | None,
        *,
        severance: Severance,
        windows: Windows | None,
    ) -> VisionFeatures:
        """``forward`` from the embedded patches ``cells`` (B, C, gh, gw) on.

        ``coverage`` (B, N, rows, columns) is that of the severance, on the grid of ``proxy`` if there is one; ``scope``
        that of the region tokens, on the grid of ``cells``; None: there are none.
        """
        grid = (cells.shape[-2], cells.shape[-1])
        inside = None if sizes is None else inside_images(sizes, grid, self.config.patch, cells.device)
        bias = None if scope is None else region_scope(scope, valid, inside)
        plan = Plan.of(severance, len(self.blocks), coverage, valid, inside, grid, proxy)
        layout = None if windows is None else Layout.of(windows, grid, self.config.patch)
        if layout is None or layout.count == 1:
            stream = Stream(self._enter(cells, sizes, scope))
            self._run(stream, range(plan.first), plan, grid, sizes, inside, bias)
        else:
            parts = None if scope is None else layout.cut(scope)
            repeated = None if valid is None else valid.repeat_interleave(layout.count, 0)
            stream = Stream(self._enter(layout.cut(cells), None, parts))
            part_bias = None if parts is None else region_scope(parts, repeated, None)
            self._run(stream, range(plan.first), plan, layout.window, None, None, part_bias)
            stream = stitched(stream, layout, parts)
        self._run(stream, range(plan.first, len(self.blocks)), plan, grid, sizes, inside, bias)

        regions = 0 if scope is None else scope.shape[1]
        last = stream.x.shape[1] - regions
        tokens = (
            stream.x
            if stream.branches is None
            else torch.cat([stream.x[:, :1], stream.branches, stream.x[:, last:]], 1)
        )
        tokens = self.norm_post(tokens)
        patches = tokens[:, 1:last]
        if stream.level is not None:
            patches = patches + severance.level_weight * self.norm_post(stream.level[:, 1:])
        patches = patches @ self.projection
        if inside is not None:
            patches = patches * inside[..., None]
        return VisionFeatures(
            patches.mT.unflatten(2, plan.grid),
            tokens[:, 0] @ self.projection,
            None if scope is None else tokens[:, last:] @ self.projection,
        )

    def _enter(self, cells: Tensor, sizes: list[tuple[int, int]] | Tensor | None, scope: Tensor | None) -> Tensor:
        """The tokens that enter the first block, from embedded patches (B, C, gh, gw): (B, 1 + L + N, C)."""
        grid = (cells.shape[-2], cells.shape[-1])
        x = torch.cat([self.class_token.to(cells.dtype).expand(cells.shape[0], 1, -1), cells.flatten(2).mT], 1)
        x = x + self._positions(self.positions, grid, sizes)
        if self.config.learned_at_input:
            x = x + self._positions(self.learned_positions["input"], grid, sizes)
        x = self.norm_pre(x)
        return x if scope is None else torch.cat([x, x[:, :1].expand(-1, scope.shape[1], -1)], 1)

    def _run(
        self,
        stream: "Stream",
        indices: range,
        plan: "Plan",
        grid: tuple[int, int],
        sizes: list[tuple[int, int]] | Tensor | None,
        inside: Tensor | None,
        scope: Tensor | None,
    ) -> None:
        """Pass a stream through some of the blocks, in place."""
        keys = None if inside is None else F.pad(inside, (1, 0), value=True)[:, None, None]
        count = stream.x.shape[1] if scope is None else scope.shape[-1]
        severance = plan.severance
        for index in indices:
            x, block = stream.x, self.blocks[index]
            assert isinstance(block, Block)
            if index in self.config.learned_in_blocks:
                positions = self._positions(self.learned_positions[str(index)], grid, sizes)
                if scope is not None:
                    copies = positions[:, :1].expand(-1, scope.shape[-2], -1)
                    positions = torch.cat([positions, copies], 1)
                x = x + positions
            residual = plan.residuals.get(index)
            if residual is None:
                stream.x = block(x, keys, scope=scope)
            else:
                if index == len(self.blocks) - 1 and stream.level is not None:
                    mean = stream.level / len(severance.levels)
                    assert plan.mix is not None
                    stream.level = block.at_level(mean, x[:, :count], plan.mix, residual, severance.mlp)
                result = block(x, keys, plan.mix, residual, severance.class_token, severance.mlp, scope)
                if severance.parallel:
                    branch = result[:, 1:count]
                    stream.branches = branch if stream.branches is None else stream.branches + branch
                    result = block(x, keys, scope=scope)
                stream.x = result
            if index in plan.levels:
                level = stream.x[:, :count]
                stream.level = level if stream.level is None else stream.level + level

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
        if sizes is None:
            return interpolate_positions(table, grid, rule)[None]
        grids = {grid_of(size, self.config.patch) for size in sizes}
        if grids == {grid}:
            return interpolate_positions(table, grid, rule)[None]
        tables = {}
        for rows, columns in grids:
            fitted = interpolate_positions(table, (rows, columns), rule)
            cells = fitted[1:].unflatten(0, (rows, columns))
            cells = F.pad(cells, (0, 0, 0, grid[1] - columns, 0, grid[0] - rows)).flatten(0, 1)
            tables[rows, columns] = torch.cat([fitted[:1], cells])
        return torch.stack([tables[grid_of(size, self.config.patch)] for size in sizes])

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

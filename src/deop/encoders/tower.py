"""What vision transformers share: any size, padded batches, severed blocks, windows, features of a second network."""

from dataclasses import asdict
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.blocks import Block
from deop.encoders.clip_positions import interpolate_positions, positions_within
from deop.encoders.severance import Severance, patch_coverage
from deop.encoders.similarity import region_scope
from deop.encoders.stream import Plan, Stream, part_of, stitched
from deop.encoders.types import VisionFeatures
from deop.encoders.windows import Layout, Windows
from deop.errors import SettingError
from deop.images.preprocessing import Normalization
from deop.networks.resampling import grid_of, inside_images, resize_bilinear

Sizes = list[tuple[int, int]] | Tensor | None
"""Size of each image in pixels, as in ``CLIPVision.forward``."""


class VisionTower(nn.Module):
    """Base class of vision transformers with severance.

    A subclass has ``config``, an instance of ``config_type`` (with ``patch``, ``position_rule`` and
    ``learned_in_blocks``), ``patch_embedding``, which maps pixels to (B, C, gh, gw), ``blocks`` and ``norm_post``. It
    defines ``_enter``, and ``_project`` or ``_leave``. The class token comes before the patches; a tower without one
    has an unused token in its place (``has_class_token``). Registers, tokens without a place in the image, come first,
    so that severed tokens are a contiguous part of all.
    """

    config_type: ClassVar[type]
    config: Any
    patch_embedding: nn.Module
    blocks: nn.ModuleList
    norm_post: nn.LayerNorm
    learned_positions: nn.ParameterDict
    has_class_token = True
    region_tokens_in_blocks = True
    """Whether region embeddings come from tokens that pass through the blocks."""
    registers = 0
    """R, the number of registers."""

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> Self:
        """Create an encoder with random weights from the values of ``config_dict``.

        Raises:
            CheckpointError: an unknown entry or value.
        """
        return cls(from_json(cls.config_type, values, "the vision encoder")).eval()

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @property
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        return self.config.normalization

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.width

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.config.patch

    @property
    def crop_side(self) -> int:
        """Side of the training images in pixels: the size of the crops of the two-stream classifier."""
        return self.config.grid * self.config.patch

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def _enter(self, cells: Tensor, sizes: Sizes, regions: int) -> Tensor:
        """The tokens that enter the first block.

        Args:
            cells: (B, C, gh, gw) float, the embedded patches.
            sizes: as in ``CLIPVision.forward``.
            regions: N, copies of the class token to append.

        Returns:
            (B, R + 1 + gh * gw + N, C).
        """
        raise NotImplementedError

    def _leave(self, stream: Stream, plan: Plan, scope: Tensor | None, inside: Tensor | None) -> VisionFeatures:
        """Features from the stream after the last block: the final norm, then ``_project``.

        Args:
            stream: the tokens.
            plan: what was severed.
            scope: (B, N, rows, columns) in [0, 1], coverage by the masks whose embeddings are requested, 0 for masks
                that are padding; None: there are none.
            inside: (B, L) bool, False for patches in the padding; None: all are inside.
        """
        x = stream.x[:, self.registers :]
        last = x.shape[1] - (0 if scope is None else scope.shape[1])
        if stream.branches is not None:
            x = torch.cat([x[:, :1], stream.branches, x[:, last:]], 1)
        tokens = self.norm_post(x)
        patches = tokens[:, 1:last]
        if stream.level is not None:
            patches = patches + plan.severance.level_weight * self.norm_post(stream.level[:, 1:])
        patches = self._project(patches)
        if inside is not None:
            patches = patches * inside[..., None]
        return VisionFeatures(
            patches.mT.unflatten(2, plan.grid),
            self._project(tokens[:, 0]),
            None if scope is None else self._project(tokens[:, last:]),
        )

    def _project(self, tokens: Tensor) -> Tensor:
        """Normalised tokens (..., C) in the joint space of images and text."""
        return tokens

    def _region_coverage(self, masks: Tensor, size: tuple[int, int], proxy: Tensor | None) -> Tensor:
        """Coverage (B, N, rows, columns) of the patches by masks whose embeddings are requested."""
        return patch_coverage(masks, size, self.patch)

    def _features(
        self,
        pixels: Tensor,
        masks: Tensor | None,
        severance: Severance,
        valid: Tensor | None,
        sizes: Sizes,
        proxy: Tensor | None,
        windows: Windows | None,
        regions: bool,
        image: bool = True,
    ) -> VisionFeatures:
        """Encode images.

        Args:
            pixels: as in ``CLIPVision.forward``, as all arguments but the last two.
            masks: see ``pixels``.
            severance: see ``pixels``.
            valid: see ``pixels``.
            sizes: see ``pixels``.
            proxy: see ``pixels``.
            windows: see ``pixels``.
            regions: whether embeddings of the masks are requested.
            image: whether the embedding of the whole image is, which a tower without class token computes by itself.
        """
        severance.residuals(len(self.blocks))  # raises errors early
        proxy = proxy if severance.needs_proxy else None
        patch, (height, width) = self.patch, pixels.shape[-2:]
        cells = self.patch_embedding(F.pad(pixels, (0, -width % patch, 0, -height % patch)))
        grid = (cells.shape[-2], cells.shape[-1])
        coverage = scope = None
        if masks is not None and severance.uses_masks:
            if proxy is None:
                coverage = patch_coverage(masks, (height, width), patch).to(cells.dtype)
            elif 0 in masks.shape:
                coverage = cells.new_zeros(*masks.shape[:2], *proxy.shape[-2:])
            else:
                coverage = resize_bilinear(masks, proxy.shape[-2:]).sigmoid().to(cells.dtype)
        if masks is not None and regions:
            scope = self._region_coverage(masks, (height, width), proxy).to(cells.dtype)
        options: dict[str, Any] = {"severance": severance, "windows": windows, "image": image}
        if sizes is None or (windows is None and proxy is None):
            return self._encode(cells, coverage, valid, sizes, proxy, scope, **options)
        grids = [grid_of(size, patch) for size in sizes]
        if set(grids) == {grid}:
            return self._encode(cells, coverage, valid, None, proxy, scope, **options)
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
                **options,
            )
            for position, index in enumerate(chosen):
                one = None if features.regions is None else features.regions[position]
                parts[index] = VisionFeatures(features.patches[position], features.image[position], one)
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
        sizes: Sizes,
        proxy: Tensor | None,
        scope: Tensor | None,
        *,
        severance: Severance,
        windows: Windows | None,
        image: bool,
    ) -> VisionFeatures:
        """``_features`` from the embedded patches ``cells`` (B, C, gh, gw) on.

        ``coverage`` (B, N, rows, columns) is that of the severance, on the grid of ``proxy`` if there is one; ``scope``
        that of ``_region_coverage``; None: there are none.
        """
        grid = (cells.shape[-2], cells.shape[-1])
        inside = None if sizes is None else inside_images(sizes, grid, self.patch, cells.device)
        in_blocks = scope if self.region_tokens_in_blocks else None
        bias = None if in_blocks is None else region_scope(in_blocks, valid, inside, self.registers)
        regions = 0 if in_blocks is None else in_blocks.shape[1]
        plan = Plan.of(severance, len(self.blocks), coverage, valid, inside, grid, proxy, self.has_class_token)
        layout = None if windows is None else Layout.of(windows, grid, self.patch)
        if layout is None or layout.count == 1:
            stream = Stream(self._enter(cells, sizes, regions))
            self._run(stream, range(plan.first), plan, grid, sizes, inside, bias)
        else:
            parts = None if in_blocks is None else layout.cut(in_blocks)
            repeated = None if valid is None else valid.repeat_interleave(layout.count, 0)
            stream = Stream(self._enter(layout.cut(cells), None, regions))
            part_bias = None if parts is None else region_scope(parts, repeated, None, self.registers)
            self._run(stream, range(plan.first), plan, layout.window, None, None, part_bias)
            stream = stitched(stream, layout, parts)
        if image and not self.has_class_token and plan.residuals:
            stream.ordinary = stream.x
        self._run(stream, range(plan.first, len(self.blocks)), plan, grid, sizes, inside, bias)
        if scope is not None and valid is not None:
            scope = scope * valid[..., None, None]
        return self._leave(stream, plan, scope, inside)

    def _run(
        self,
        stream: Stream,
        indices: range,
        plan: Plan,
        grid: tuple[int, int],
        sizes: Sizes,
        inside: Tensor | None,
        scope: Tensor | None,
    ) -> None:
        """Pass a stream through some of the blocks, in place."""
        keys = None if inside is None else F.pad(inside, (1 + self.registers, 0), value=True)[:, None, None]
        first, count = self.registers, stream.x.shape[1] if scope is None else scope.shape[-1]
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
            if stream.ordinary is not None:
                stream.ordinary = block(stream.ordinary, keys)
            if residual is None:
                stream.x = block(x, keys, scope=scope)
            else:
                if index == len(self.blocks) - 1 and stream.level is not None:
                    mean = stream.level / len(severance.levels)
                    assert plan.mix is not None
                    stream.level = block.at_level(mean, x[:, first:count], plan.mix, residual, severance.mlp)
                result = block(x, keys, plan.mix, residual, severance.class_token, severance.mlp, scope, first)
                if severance.parallel:
                    branch = result[:, first + 1 : count]
                    stream.branches = branch if stream.branches is None else stream.branches + branch
                    result = block(x, keys, scope=scope)
                stream.x = result
            if index in plan.levels:
                level = stream.x[:, first:count]
                stream.level = level if stream.level is None else stream.level + level

    def _positions(self, table: Tensor, grid: tuple[int, int], sizes: Sizes) -> Tensor:
        """A position table fitted to the canvas (1, 1 + L, C), or to each image (B, 1 + L, C) if sizes differ."""
        rule, patch = self.config.position_rule, self.patch
        if torch.compiler.is_exporting() or isinstance(sizes, Tensor):
            extent = [] if sizes is None else [(side + patch - 1) // patch for side in sizes[0]]
            return positions_within(table, grid, (extent[0], extent[1]) if extent else grid, rule)[None]
        if sizes is None:
            return interpolate_positions(table, grid, rule)[None]
        grids = {grid_of(size, patch) for size in sizes}
        if grids == {grid}:
            return interpolate_positions(table, grid, rule)[None]
        tables = {}
        for rows, columns in grids:
            fitted = interpolate_positions(table, (rows, columns), rule)
            cells = fitted[1:].unflatten(0, (rows, columns))
            cells = F.pad(cells, (0, 0, 0, grid[1] - columns, 0, grid[0] - rows)).flatten(0, 1)
            tables[rows, columns] = torch.cat([fitted[:1], cells])
        return torch.stack([tables[grid_of(size, patch)] for size in sizes])


def need_masks(masks: Tensor | None, wanted: bool, what: str) -> None:
    """Refuse region embeddings without masks.

    Raises:
        SettingError: naming what needs them.
    """
    if wanted and masks is None:
        raise SettingError(f"{what} need masks: pass masks to the encoder")

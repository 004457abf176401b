"""The proposer of the small model: queries divide the pixels of a photo among themselves, beside superpixels.

Queries start from a coarse grid of the photo's features and from learned vectors. They attend to where they already
own pixels, and each pixel is divided among them by a softmax over queries. The division is refined by the colours of
the photo, so that borders follow edges. Superpixels follow colour where the queries are too coarse: they add votes on
the names of their pixels, at less than half the weight, so that no superpixel forms a segment by itself.
"""

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.images.preprocessing import Normalization, constant_on, statistics_on
from deop.networks.attention import attend
from deop.networks.efficientnet import NORMALIZATION, EfficientNetLite
from deop.networks.positions import sine_positions
from deop.networks.resampling import double, pool_cells, resize_bilinear
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.refinement import refine_division
from deop.proposals.types import Proposals

TO_XYZ = ((0.4339, 0.3762, 0.1898), (0.2127, 0.7152, 0.0722), (0.0178, 0.1095, 0.8727))
"""Matrix from linear sRGB to XYZ relative to the white point D65."""


@dataclass(frozen=True)
class NanoProposerConfig:
    """Sizes of the proposer.

    Attributes:
        width: channels of the queries.
        pixel_width: channels of the pixel embeddings at stride 4.
        grid: queries per side that start from the photo.
        learned: further queries, which start from learned vectors.
        layers: decoder layers.
        heads: attention heads.
        hidden: channels inside the MLP.
        sources: channels of the trunk's four feature maps.
        smallest: minimum share of the photo that a query's mask must cover, in [0, 1].
        superpixels: approximate number of superpixels in each division of the photo by colour.
        strength: mask probability of a superpixel in its interior.
        smoothing: weight of neighbours of similar colour relative to the logits of a cell; 0: no refinement.
    """

    width: int = 128
    pixel_width: int = 64
    grid: int = 8
    learned: int = 16
    layers: int = 3
    heads: int = 4
    hidden: int = 512
    sources: tuple[int, ...] = (24, 48, 120, 352)
    smallest: float = 0.001
    superpixels: tuple[int, ...] = (36, 100)
    strength: float = 0.45
    smoothing: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "superpixels", tuple(self.superpixels))


class Refine(nn.Module):
    """A residual depthwise separable convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.mix(F.gelu(self.depthwise(x)))


class Layer(nn.Module):
    """A pre-norm decoder layer whose cross-attention is weighted by the pixels that each query owns."""

    def __init__(self, config: NanoProposerConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)

    def forward(self, x: Tensor, position: Tensor, tokens: Tensor, keys: Tensor, share: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, Q, C) float, the queries.
            position: (1, Q, C) float, the position codes of the queries.
            tokens: (B, L, C) float, the tokens of the photo.
            keys: (B, L, C) float, the tokens plus their position codes.
            share: (B, Q, L) float, logarithm of the share of each token that each query owns.

        Returns:
            (B, Q, C).
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(self.norms[0](x) + position), self.key(keys), self.value(tokens))
        )
        mixed = attend(query, key, value, share[:, None].to(query.dtype))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        query, key, value = (
            self.qkv(self.norms[1](x) + position).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        x = x + self.self_out(attend(query, key, value).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[2](x))))


class NanoProposer(nn.Module):
    """The proposer of the small model.

    Args:
        config: sizes; the weights are random until they are loaded.
        trunk: the trunk, which the encoder may share.
    """

    kind = "nano"
    masks_are_instances = False
    """Queries divide the photo by appearance, and superpixels by colour: a thing consists of several masks."""

    def __init__(self, config: NanoProposerConfig, trunk: SharedTrunk) -> None:
        super().__init__()
        self.config, self.trunk = config, trunk
        pixel, width = config.pixel_width, config.width
        self.sources = nn.ModuleList(nn.Conv2d(source, pixel, 1) for source in config.sources)
        self.refine = nn.ModuleList(Refine(pixel) for _ in config.sources)
        self.tokens = nn.Conv2d(pixel, width, 1)
        self.token_norm = nn.LayerNorm(width)
        self.learned = nn.Parameter(torch.randn(config.learned, width) * 0.02)
        self.learned_places = nn.Parameter(torch.randn(config.learned, width) * 0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.kernel = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, pixel + 1))
        self.pixels = nn.Conv2d(pixel, pixel, 1)

    @property
    def normalization(self) -> Normalization:
        """Normalisation that the pixels need."""
        return NORMALIZATION

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "NanoProposer":
        """Create a proposer with random weights and a new trunk from the values of ``config_dict``.

        Raises:
            CheckpointError: an unknown entry or value.
        """
        return cls(from_json(NanoProposerConfig, values, "the nano proposer"), SharedTrunk(EfficientNetLite())).eval()

    def share_trunk(self, trunk: SharedTrunk) -> None:
        """Use the trunk of the encoder, so that it runs once per photo."""
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose soft masks.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization``.

        Returns:
            One ``Proposals`` per image, float32 logits at stride 4, without slots. In each cell, the probabilities of
            the queries' masks sum to about 1, and those of each division into superpixels to ``strength``.
        """
        partition, colours, divisions = self.parts(pixels)
        proposals = []
        for index, logits in enumerate(partition):
            masks, valid = self.masks(logits, colours[index], [division[index] for division in divisions])
            proposals.append(Proposals(masks[valid]))
        return proposals

    def parts(self, pixels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the masks are computed from.

        Args:
            pixels: (B, 3, H, W) float, normalised.

        Returns:
            Logits of the queries (B, Q, h, w) float32 at stride 4, colours (B, 3, h, w), and for each division into
            superpixels the masks (B, K, h, w).
        """
        rows, columns = (-(-side // 4) for side in pixels.shape[-2:])
        partition = self.divide(self.trunk(pixels))[-1].float()[:, :, :rows, :columns]
        colours = lab(pixels.float(), self.normalization)
        divisions = [superpixels(colours, count) * self.config.strength for count in self.config.superpixels]
        return partition, colours, divisions

    def masks(self, logits: Tensor, colours: Tensor, divisions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Refine the masks of the queries of one photo, and append the superpixels.

        Args:
            logits: (Q, h, w) float, of the queries.
            colours: (3, h, w) float, CIE Lab.
            divisions: masks (K, h, w) of superpixels.

        Returns:
            Mask logits (N, h, w) of the queries that cover at least ``smallest`` of the photo and of the superpixels;
            and (N,) bool, False for masks of queries that cover less after refinement.
        """
        # Small masks are dropped before refinement to save time; after it they are only marked.
        logits = logits[self._large(logits.softmax(0)).nonzero()[:, 0]]
        if torch.compiler.is_exporting():  # as if one query at least were large: they share the whole photo
            torch._check(logits.shape[0] >= 1)
        shares = refine_division(logits, colours, weight=self.config.smoothing)
        large = self._large(shares)
        shares = shares * large[:, None, None]
        valid = [large, *(torch.ones_like(division[:, 0, 0], dtype=torch.bool) for division in divisions)]
        # The sigmoid of these logits equals the shares. By part, since all masks together do not fit in the cache.
        parts = [torch.logit(part, 1e-4) for part in (shares / shares.sum(0, keepdim=True), *divisions)]
        return torch.cat(parts), torch.cat(valid)

    def _large(self, shares: Tensor) -> Tensor:
        """Which of the masks (N, h, w) cover at least ``smallest`` of the photo, (N,) bool."""
        return shares.mean((1, 2)) >= self.config.smallest

    def divide(self, features: list[Tensor]) -> list[Tensor]:
        """Divide the photo among the queries.

        Args:
            features: the four feature maps of the trunk.

        Returns:
            Logits (B, Q, h, w), whose softmax over Q is the division, for the initial queries and after each layer;
            the last at stride 4, the others at stride 8.
        """
        levels: list[Tensor] = []
        x = None
        for source, refine, feature in zip(
            reversed(self.sources), reversed(self.refine), reversed(features), strict=True
        ):
            lateral = source(feature)
            x = refine(lateral if x is None else lateral + double(x, lateral.shape[-2:]))
            levels.append(x)
        fine, half = levels[3], levels[2]
        coarse = levels[1]  # stride 16
        grid = (coarse.shape[-2], coarse.shape[-1])
        tokens = self.tokens(coarse)
        positions = sine_positions(tokens.shape[1], *grid, device=tokens.device, dtype=tokens.dtype)

        side = self.config.grid
        start = pool_cells(tokens, (side, side)).flatten(2).mT
        start_positions = pool_cells(positions[None], (side, side)).flatten(2).mT
        batch = tokens.shape[0]
        query = torch.cat([start, self.learned.to(start.dtype).expand(batch, -1, -1)], 1)
        position = torch.cat([start_positions[0], self.learned_places.to(start.dtype)])[None]
        tokens = self.token_norm(tokens.flatten(2).mT)
        keys = tokens + positions.flatten(1).T

        logits = [self._division(query, half)]
        for index, layer in enumerate(self.layers):
            share = resize_bilinear(logits[-1].detach().float(), grid).flatten(2).log_softmax(1).clamp_min(-6)
            query = layer(query, position, tokens, keys, share)
            logits.append(self._division(query, fine if index == len(self.layers) - 1 else half))
        return logits

    def _division(self, query: Tensor, pixels: Tensor) -> Tensor:
        """Logits (B, Q, h, w) of queries (B, Q, C) over a map (B, pixel_width, h, w) of the pyramid."""
        kernel = self.kernel(self.norm(query))
        weights, offset, bias = kernel[..., :-1], kernel[..., -1:], self.pixels.bias
        assert bias is not None
        # k (W p + b) = (k W) p + k b: there are fewer queries than pixels.
        offset = offset + weights @ bias[:, None]
        weights = weights @ self.pixels.weight.flatten(1)
        # Not an einsum: ONNX Runtime computes a product of matrices several times as fast.
        return (weights @ pixels.flatten(2) + offset).unflatten(2, pixels.shape[-2:])


def lab(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Convert normalised photos (B, 3, H, W) to CIE Lab, averaged over cells of 4 x 4 pixels.

    Args:
        pixels: (B, 3, H, W) float.
        normalization: the normalisation of the pixels.

    Returns:
        (B, 3, ceil(H / 4), ceil(W / 4)): L in [0, 100], a and b in about [-110, 110].
    """
    height, width = pixels.shape[-2:]
    if height % 4 or width % 4:
        pixels = F.pad(pixels, (0, -width % 4, 0, -height % 4), mode="replicate")
    cells = F.avg_pool2d(pixels, 4)
    mean, std = statistics_on(normalization, pixels.device)
    linear = ((cells * std + mean) / 255).clamp(0, 1) ** 2.2
    # Adding 1e-3 approximates the linear part of the curve near black.
    to_xyz = constant_on(TO_XYZ, pixels.device).to(linear.dtype)
    x, y, z = (torch.einsum("ij,bjhw->ibhw", to_xyz, linear) + 1e-3) ** (1 / 3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def superpixels(colours: Tensor, count: int, *, unit: float = 10.0, compact: float = 1.5, rounds: int = 5) -> Tensor:
    """Divide photos softly into superpixels by colour and position (k-means, after SLIC, Achanta et al. 2012).

    Args:
        colours: (B, 3, h, w) float, CIE Lab.
        count: approximate number of superpixels.
        unit: difference in colour that weighs as much as 1 / ``compact`` of the distance between initial centres.
        compact: larger values give rounder superpixels.
        rounds: rounds of k-means.

    Returns:
        (B, K, h, w) shares that sum to 1 in every cell.
    """
    height, width = colours.shape[-2:]
    rows, columns, step = _layout(height, width, count)
    step = step / compact
    y, x = (torch.arange(side, device=colours.device, dtype=colours.dtype) / step for side in (height, width))
    positions = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(len(colours), -1, -1, -1)
    cells = torch.cat([colours / unit, positions], 1)
    centres = pool_cells(cells, (rows, columns)).flatten(2).mT  # (B, K, 5)
    odd = bool(height % 2 or width % 2)
    # A quarter of the cells is enough to place the centres.
    coarse = _with_one(F.avg_pool2d(cells, 2, ceil_mode=odd).flatten(2)).mT  # (B, l, 6)
    for _ in range(rounds):
        shares = _shares(coarse, centres)  # (B, l, K)
        sums = shares.mT @ coarse
        centres = sums[:, :, :-1] / sums[:, :, -1:].clamp_min(1e-6)
    return _shares(_with_one(cells.flatten(2)).mT, centres).mT.unflatten(2, (height, width))


def _layout(height: int, width: int, count: int) -> tuple[int, int, Tensor]:
    """Rows and columns of about ``count`` cells of a map (height, width), and the distance between their centres.

    Computed by float64 tensors on the CPU, since sizes that are unknown at export have no root and cannot be rounded.
    """
    high, wide = (torch.scalar_tensor(side, dtype=torch.float64) for side in (height, width))
    down = (count * high / wide).sqrt().round().clamp_min(1)
    across = (count / down).round().clamp_min(1)
    rows, columns = (cast(int, sides.long().item()) for sides in (down, across))  # int() would make them constants
    for cells in (rows, columns):
        torch._check(cells >= 1)
        torch._check(cells <= count * 100)
    return rows, columns, (high * wide / (down * across)).sqrt()


def _with_one(cells: Tensor) -> Tensor:
    """Cells (B, C, L) with a further channel that is 1."""
    return torch.cat([cells, torch.ones_like(cells[:, :1])], 1)


def _shares(cells: Tensor, centres: Tensor) -> Tensor:
    """Shares (B, L, K) of the cells (B, L, C + 1), the last channel 1, that belong to the centres (B, K, C)."""
    # Minus the squared distances, but for the square of the cell.
    parabolas = torch.cat([2 * centres, -centres.square().sum(2, keepdim=True)], 2)
    products = cells @ parabolas.mT
    # Shares smaller than exp(-30) have no effect but would become denormal numbers, which are slow.
    return products.maximum(products.amax(2, keepdim=True) - 30).softmax(2)

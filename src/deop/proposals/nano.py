"""The small model's proposals: the photo divided among queries, on the features of the trunk shared with the encoder.

Queries start from what a coarse grid of the photo looks like and from learned vectors, look at the photo where they
already have a share in it, and divide every pixel among themselves (a softmax over queries); the division is refined by
the colours of the photo, so that borders lie where these change. Superpixels beside them follow colour where the
queries are coarse: they vote on a pixel's name too, at less than half the strength, so that none of them ever makes a
segment of its own.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.config import from_json
from deop.images.preprocessing import Normalization
from deop.networks.efficientnet import NORMALIZATION, EfficientNetLite
from deop.networks.positions import sine_positions
from deop.networks.resampling import resize_bilinear
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.refinement import refine_division
from deop.proposals.types import Proposals

TO_XYZ = ((0.4339, 0.3762, 0.1898), (0.2127, 0.7152, 0.0722), (0.0178, 0.1095, 0.8727))
"""Linear sRGB to XYZ, relative to the white point D65."""


@dataclass(frozen=True)
class NanoProposerConfig:
    """The shape of the proposer."""

    width: int = 128  # channels of the queries
    pixel_width: int = 64  # channels of the map at stride 4 that masks are read from
    grid: int = 8  # queries a side that start from the photo
    learned: int = 16  # further queries that start from a learned vector
    layers: int = 3
    heads: int = 4
    hidden: int = 512
    sources: tuple[int, ...] = (24, 48, 120, 352)  # channels of the trunk at strides 4, 8, 16, 32
    smallest: float = 0.001  # share of the photo below which a mask is dropped
    superpixels: tuple[int, ...] = (36, 100)  # about how many, for each of the divisions of the photo by colour
    strength: float = 0.45  # of a superpixel where the photo is wholly its own
    smoothing: float = 3.0  # weight of like-coloured neighbours against what a cell's own features say; 0: none

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "superpixels", tuple(self.superpixels))


class Refine(nn.Module):
    """A residual separable convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.mix(F.gelu(self.depthwise(x)))


class Layer(nn.Module):
    """A pre-norm decoder layer whose queries look where they own pixels."""

    def __init__(self, config: NanoProposerConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)

    def forward(self, x: Tensor, place: Tensor, tokens: Tensor, keys: Tensor, share: Tensor) -> Tensor:
        """Queries x and place (B, Q, C), tokens and keys (B, L, C), share (B, Q, L) log of ownership -> (B, Q, C)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(self.norms[0](x) + place), self.key(keys), self.value(tokens))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=share[:, None].to(query.dtype))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        query, key, value = self.qkv(self.norms[1](x) + place).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.self_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[2](x))))


class NanoProposer(nn.Module):
    """The proposer of the small model."""

    kind = "nano"

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
        """How pixels are to be normalised."""
        return NORMALIZATION

    def config_dict(self) -> dict[str, Any]:
        """The settings, as JSON would have them."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "NanoProposer":
        """A proposer of random weights from ``config_dict``'s settings, with a trunk of its own.

        Raises:
            CheckpointError: settings that are not known.
        """
        return cls(from_json(NanoProposerConfig, values, "the nano proposer"), SharedTrunk(EfficientNetLite())).eval()

    def share_trunk(self, trunk: SharedTrunk) -> None:
        """Use the encoder's trunk, so that a photo goes through it once for both."""
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose masks for ``pixels`` (B, 3, H, W), normalised: soft masks at stride 4.

        Those of the queries add up to about 1 in every cell, and each division into superpixels to ``strength``.
        """
        rows, columns = (-(-side // 4) for side in pixels.shape[-2:])
        partition = self.divide(self.trunk(pixels))[-1].float()[:, :, :rows, :columns]
        colours = lab(pixels.float(), self.normalization)
        divisions = [superpixels(colours, count) * self.config.strength for count in self.config.superpixels]
        proposals = []
        for index, logits in enumerate(partition):
            # Dropped before, because they cost time, and after, because the refined are fewer.
            logits = logits[self._large(logits.softmax(0))]
            shares = refine_division(logits, colours[index], weight=self.config.smoothing)
            shares = shares[self._large(shares)]
            masks = torch.cat([shares / shares.sum(0, keepdim=True), *(division[index] for division in divisions)])
            # The sigmoid of these gives the shares back.
            proposals.append(Proposals(torch.logit(masks, 1e-4)))
        return proposals

    def _large(self, shares: Tensor) -> Tensor:
        """Positions of the masks (N, h, w) that are worth keeping."""
        return (shares.mean((1, 2)) >= self.config.smallest).nonzero()[:, 0]

    def divide(self, features: list[Tensor]) -> list[Tensor]:
        """Trunk features -> for the start and each layer the logits (B, Q, h, w) of which query owns a pixel.

        The last are at stride 4, those before at stride 8.
        """
        levels: list[Tensor] = []
        x = None
        for source, refine, feature in zip(
            reversed(self.sources), reversed(self.refine), reversed(features), strict=True
        ):
            lateral = source(feature)
            x = refine(lateral if x is None else lateral + resize_bilinear(x, lateral.shape[-2:]))
            levels.append(x)
        fine, half = self.pixels(levels[3]), self.pixels(levels[2])
        coarse = levels[1]  # stride 16
        grid = (coarse.shape[-2], coarse.shape[-1])
        tokens = self.tokens(coarse)
        places = sine_positions(tokens.shape[1], *grid, device=tokens.device, dtype=tokens.dtype)

        side = self.config.grid
        start = F.adaptive_avg_pool2d(tokens, side).flatten(2).mT
        start_places = F.adaptive_avg_pool2d(places[None], side).flatten(2).mT
        batch = tokens.shape[0]
        query = torch.cat([start, self.learned.to(start.dtype).expand(batch, -1, -1)], 1)
        place = torch.cat([start_places[0], self.learned_places.to(start.dtype)])[None]
        tokens = self.token_norm(tokens.flatten(2).mT)
        keys = tokens + places.flatten(1).T

        logits = [self._own(query, half)]
        for index, layer in enumerate(self.layers):
            share = resize_bilinear(logits[-1].detach().float(), grid).flatten(2).log_softmax(1).clamp_min(-6)
            query = layer(query, place, tokens, keys, share)
            logits.append(self._own(query, fine if index == len(self.layers) - 1 else half))
        return logits

    def _own(self, query: Tensor, pixels: Tensor) -> Tensor:
        kernel = self.kernel(self.norm(query))
        return torch.einsum("bqc,bchw->bqhw", kernel[..., :-1], pixels) + kernel[..., -1, None, None]


def lab(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Normalised photos (B, 3, H, W) -> CIE Lab (B, 3, ceil(H / 4), ceil(W / 4)) of cells of four pixels."""
    height, width = pixels.shape[-2:]
    cells = F.avg_pool2d(F.pad(pixels, (0, -width % 4, 0, -height % 4), mode="replicate"), 4)
    mean, std = (torch.tensor(part, device=pixels.device)[:, None, None] for part in
                 (normalization.mean, normalization.std))  # fmt: skip
    linear = ((cells * std + mean) / 255).clamp(0, 1) ** 2.2
    # The small sum stands in for the straight part of the curve near black.
    x, y, z = (torch.einsum("ij,bjhw->ibhw", linear.new_tensor(TO_XYZ), linear) + 1e-3) ** (1 / 3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def superpixels(colours: Tensor, count: int, *, unit: float = 10.0, compact: float = 1.5, rounds: int = 5) -> Tensor:
    """Divide photos softly by colour and place, from a grid of seeds (k-means, after SLIC, Achanta et al. 2012).

    Args:
        colours: (B, 3, h, w) Lab.
        count: about how many superpixels.
        unit: difference of colour that weighs as much as 1 / ``compact`` of the distance between seeds.
        compact: the larger, the rounder.
        rounds: of k-means.

    Returns:
        (B, K, h, w) shares that add up to 1 in every cell.
    """
    height, width = colours.shape[-2:]
    rows = max(1, round((count * height / width) ** 0.5))
    columns = max(1, round(count / rows))
    step = (height * width / (rows * columns)) ** 0.5 / compact
    y, x = (torch.arange(side, device=colours.device, dtype=colours.dtype) / step for side in (height, width))
    place = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(len(colours), -1, -1, -1)
    cells = torch.cat([colours / unit, place], 1)
    centres = F.adaptive_avg_pool2d(cells, (rows, columns)).flatten(2).mT  # (B, K, 5)
    few = F.avg_pool2d(cells, 2, ceil_mode=True).flatten(2)  # a quarter of the cells places the centres as well
    for _ in range(rounds):
        shares = _shares(centres, few)
        centres = shares @ few.mT / shares.sum(2, keepdim=True).clamp_min(1e-6)
    return _shares(centres, cells.flatten(2)).unflatten(2, (height, width))


def _shares(centres: Tensor, cells: Tensor) -> Tensor:
    """Softmax over centres (B, K, C) of minus the squared distance to each cell (B, C, L) -> (B, K, L)."""
    near = 2 * centres @ cells - centres.square().sum(2, keepdim=True)
    # Shares below 1e-13 are none; left alone they would be denormal numbers, which are slow.
    return (near - near.amax(1, keepdim=True)).clamp_min_(-30).softmax(1)

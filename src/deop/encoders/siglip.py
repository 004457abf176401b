"""The vision transformer of SigLIP and SigLIP 2 with severance inside its attention (docs/models.md, "SigLIP").

It has no class token. An attention pooling head embeds the image; restricted to the patches of a mask, it embeds the
mask, and restricted to one patch, it embeds the patch in the joint space of images and text.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.encoders.blocks import ACTIVATIONS, Block, check_sizes
from deop.encoders.int8 import some_outputs
from deop.encoders.severance import NOT_COVERED, Severance
from deop.encoders.siglip_keys import NORMALIZATION, read_siglip_vision_config, vision_from_transformers
from deop.encoders.stream import Plan, Stream
from deop.encoders.tower import Sizes, VisionTower, need_masks
from deop.encoders.types import VisionFeatures
from deop.encoders.windows import Windows
from deop.images.preprocessing import Normalization
from deop.networks.attention import attend
from deop.networks.loading import load_strictly, read_weights
from deop.networks.resampling import to_patches


@dataclass(frozen=True)
class SiglipVisionConfig:
    """Sizes of a vision transformer. The defaults are SigLIP ViT-B/16 at 224 pixels.

    Attributes:
        width: channels of the residual stream and of the joint space.
        layers: transformer blocks.
        heads: attention heads, also of the pooling head; divides ``width``.
        hidden: channels inside the MLPs.
        patch: side of a patch in pixels.
        grid: patches per side that the position table was trained for.
        activation: a key of ``ACTIVATIONS``.
        norm_eps: epsilon of the layer norms.
        flexible: whether the model was trained on images of any shape (NaFlex): its position table is then resized
            bilinearly with antialiasing, and not bicubically.
        normalization: normalisation of the pixels.

    Raises:
        CheckpointError: an unknown activation, or heads that do not divide the width.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    grid: int = 14
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    flexible: bool = False
    normalization: Normalization = NORMALIZATION

    learned_in_blocks = ()

    def __post_init__(self) -> None:
        check_sizes("vision", self.activation, ACTIVATIONS, self.width, self.heads)

    @property
    def position_rule(self) -> str:
        """How the position table is resized (``clip_positions.interpolate_positions``)."""
        return "antialiased" if self.flexible else "grid"


class PoolingHead(nn.Module):
    """Attention pooling: a learned query attends to patches, and an MLP follows.

    With o = W_o sum_l a_l (W_v x_l + b_v) + b_o, where a is the softmax of the query's scores, the result is
    o + mlp(norm(o)).
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.probe = nn.Parameter(torch.randn(width) * width**-0.5)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.up = nn.Linear(width, config.hidden)
        self.down = nn.Linear(config.hidden, width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool tokens (B, L, C) to (B, N, C).

        Args:
            tokens: (B, L, C) float.
            mask: (B, 1, N, L), as in ``networks.attention.attend``; None: N = 1, and all tokens are pooled.
        """
        width = tokens.shape[-1]
        count = 1 if mask is None else mask.shape[2]
        query = some_outputs(self.qkv, self.probe[None], 0, width).expand(len(tokens), count, width)
        key, value = some_outputs(self.qkv, tokens, width, 3 * width).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self._after(attend(query, key, value, mask).transpose(1, 2).flatten(2))

    def of_masks(self, tokens: Tensor, coverage: Tensor) -> Tensor:
        """Pool the tokens of each mask.

        Args:
            tokens: (B, L, C) float.
            coverage: (B, N, L) in [0, 1], a factor of the weights before they are normalised.

        Returns:
            (B, N, C); 0 for masks that cover nothing.
        """
        covered = coverage > NOT_COVERED
        filled = covered.any(-1, keepdim=True)
        bias = torch.where(covered, coverage, 1).log().masked_fill(~covered & filled, float("-inf"))
        return self(tokens, bias[:, None].to(tokens.dtype)) * filled

    def of_patches(self, tokens: Tensor) -> Tensor:
        """Pool each token alone: (B, L, C) -> (B, L, C). The query has no effect, since there is nothing to choose."""
        width = tokens.shape[-1]
        return self._after(some_outputs(self.qkv, tokens, 2 * width, 3 * width))

    def _after(self, mixed: Tensor) -> Tensor:
        x = self.out(mixed)
        return x + self.down(self.activation(self.up(self.norm(x))))


class SiglipVision(VisionTower):
    """SigLIP's vision transformer for images of any size; any of its blocks can be severed.

    Args:
        config: sizes; the weights are random until they are loaded.
    """

    kind = "siglip"
    config_type = SiglipVisionConfig
    options = ("windows", "attention_pool", "proxy", "image")
    """Arguments of ``forward`` that not every encoder has."""
    has_class_token = False
    region_tokens_in_blocks = False

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        width = config.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch, config.patch)
        self.positions = nn.Parameter(torch.randn(config.grid**2, width) * width**-0.5)
        self.blocks = nn.ModuleList(Block(config, class_token=False) for _ in range(config.layers))
        self.norm_post = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = PoolingHead(config)

    def forward(
        self,
        pixels: Tensor,
        masks: Tensor | None = None,
        *,
        severance: Severance | None = None,
        valid: Tensor | None = None,
        sizes: Sizes = None,
        proxy: Tensor | None = None,
        windows: Windows | None = None,
        attention_pool: bool = False,
        image: bool = True,
    ) -> VisionFeatures:
        """Encode whole images in one pass.

        Args:
            pixels: as in ``CLIPVision.forward``, as all arguments that are not described here.
            masks: see ``pixels``.
            severance: where and how attention is severed; None: nowhere. Its ``class_key`` and ``class_token`` have no
                effect, since there is no class token.
            valid: see ``pixels``.
            sizes: see ``pixels``.
            proxy: see ``pixels``.
            windows: see ``pixels``.
            attention_pool: also return an embedding of each mask, from the pooling head restricted to its patches.
            image: whether the embedding of the whole image is needed. If a block is severed, it takes the time of an
                ordinary block in addition.

        Returns:
            Patch features (B, C, gh, gw), those of the pooling head restricted to one patch; image embeddings (B, C),
            which severance does not change, 0 if they were not requested; and embeddings of the masks. Not normalised.

        Raises:
            SettingError: a severed layer that the encoder does not have, or missing masks.
        """
        need_masks(masks, attention_pool, "attention-pooled embeddings")
        severance = replace(severance or Severance(), class_key=False, class_token="severed")
        return self._features(pixels, masks, severance, valid, sizes, proxy, windows, attention_pool, image)

    def _region_coverage(self, masks: Tensor, size: tuple[int, int], proxy: Tensor | None) -> Tensor:
        # As for mask pooling, so that masks smaller than a patch are not lost.
        patch = self.patch if proxy is None else self.patch * -(-size[0] // self.patch) // proxy.shape[-2]
        coverage = to_patches(masks.float().sigmoid(), size, patch, antialias=True)
        return coverage if proxy is None else coverage[..., : proxy.shape[-2], : proxy.shape[-1]]

    def _enter(self, cells: Tensor, sizes: Sizes, regions: int) -> Tensor:
        grid = (cells.shape[-2], cells.shape[-1])
        table = F.pad(self.positions, (0, 0, 1, 0))  # the unused first token is 0
        return F.pad(cells.flatten(2).mT, (0, 0, 1, 0)) + self._positions(table, grid, sizes)

    def _leave(self, stream: Stream, plan: Plan, scope: Tensor | None, inside: Tensor | None) -> VisionFeatures:
        tokens = self.norm_post(stream.x[:, 1:] if stream.branches is None else stream.branches)
        if stream.level is not None:
            tokens = tokens + plan.severance.level_weight * self.norm_post(stream.level[:, 1:])
        patches = self.head.of_patches(tokens)
        if inside is not None:
            patches = patches * inside[..., None]
        ordinary = stream.x if not plan.residuals or plan.severance.parallel else stream.ordinary
        if ordinary is None:
            image = patches.new_zeros(len(patches), self.width)
        else:
            keys = None if inside is None else inside[:, None, None]
            image = self.head(self.norm_post(ordinary[:, 1:]), keys)[:, 0]
        regions = None
        if scope is not None:
            coverage = scope.flatten(2) if inside is None else scope.flatten(2) * inside[:, None]
            regions = self.head.of_masks(tokens, coverage)
        return VisionFeatures(patches.mT.unflatten(2, plan.grid), image, regions)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "SiglipVision":
        """Load the encoder from a folder in the layout of transformers' SigLIP or SigLIP 2.

        Raises:
            CheckpointError: another layout, or weights that are missing, unexpected, damaged or pickled.
        """
        config = SiglipVisionConfig(**read_siglip_vision_config(Path(folder)))
        encoder = cls(config)
        load_strictly(encoder, vision_from_transformers(read_weights(folder), config.patch), str(folder))
        return encoder.eval()

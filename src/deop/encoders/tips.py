"""The vision transformer of TIPSv2 with severance inside its attention (docs/models.md, "TIPSv2").

Its patches were trained to match text, so that the tower has no projection: the final norm gives patches, class token
and text in one space.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deop.encoders.blocks import ACTIVATIONS, Block, check_sizes
from deop.encoders.severance import Severance
from deop.encoders.tips_keys import NORMALIZATION, read_tips_vision_config, vision_from_transformers
from deop.encoders.tower import Sizes, VisionTower, need_masks
from deop.encoders.types import VisionFeatures
from deop.encoders.windows import Windows
from deop.images.preprocessing import Normalization
from deop.networks.loading import load_strictly, read_weights


@dataclass(frozen=True)
class TipsVisionConfig:
    """Sizes of a vision transformer. The defaults are TIPSv2 B/14.

    Attributes:
        width: channels of the residual stream and of the joint space.
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        hidden: channels inside the MLP.
        patch: side of a patch in pixels.
        grid: patches per side that the position table was trained for.
        activation: a key of ``ACTIVATIONS``; TIPSv2 g/14 has "swiglu".
        norm_eps: epsilon of the layer norms.
        registers: tokens of no place in the image. The one of TIPSv2 was trained as a second class token, with
            synthetic captions.
        normalization: normalisation of the pixels.

    Raises:
        CheckpointError: an unknown activation, or heads that do not divide the width.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 14
    grid: int = 32
    activation: str = "gelu"
    norm_eps: float = 1e-6
    registers: int = 1
    normalization: Normalization = NORMALIZATION

    learned_in_blocks = ()
    position_rule = "antialiased"

    def __post_init__(self) -> None:
        check_sizes("vision", self.activation, ACTIVATIONS, self.width, self.heads)


class TipsVision(VisionTower):
    """TIPSv2's vision transformer for images of any size; any of its blocks can be severed.

    Args:
        config: sizes; the weights are random until they are loaded.
    """

    kind = "tips"
    config_type = TipsVisionConfig
    options = ("windows", "region_tokens", "proxy")
    """Arguments of ``forward`` that not every encoder has."""

    def __init__(self, config: TipsVisionConfig) -> None:
        super().__init__(config)
        self.registers, width = config.registers, config.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch, config.patch)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.register_tokens = nn.Parameter(torch.randn(config.registers, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + config.grid**2, width) * width**-0.5)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_post = nn.LayerNorm(width, eps=config.norm_eps)

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
        region_tokens: bool = False,
    ) -> VisionFeatures:
        """Encode whole images in one pass.

        Args:
            pixels: as in ``CLIPVision.forward``, as all arguments that are not described here.
            masks: see ``pixels``.
            severance: see ``pixels``. Registers keep ordinary attention.
            valid: see ``pixels``.
            sizes: see ``pixels``.
            proxy: see ``pixels``.
            windows: see ``pixels``.
            region_tokens: see ``pixels``. Their tokens attend to the registers, too.

        Returns:
            Patch features (B, C, gh, gw) and image embeddings (B, C), those of the class token, not normalised.

        Raises:
            SettingError: a severed layer that the encoder does not have, or missing masks.
        """
        need_masks(masks, region_tokens, "region tokens")
        severance = severance or Severance()
        return self._features(pixels, masks, severance, valid, sizes, proxy, windows, region_tokens)

    def _enter(self, cells: Tensor, sizes: Sizes, regions: int) -> Tensor:
        grid, batch = (cells.shape[-2], cells.shape[-1]), cells.shape[0]
        x = torch.cat([self.class_token.to(cells.dtype).expand(batch, 1, -1), cells.flatten(2).mT], 1)
        x = x + self._positions(self.positions, grid, sizes)
        registers = self.register_tokens.to(cells.dtype).expand(batch, -1, -1)
        return torch.cat([registers, x, x[:, :1].expand(-1, regions, -1)], 1)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TipsVision":
        """Load the encoder from a folder in the layout of transformers' TIPSv2, or in that of the authors' repos.

        Raises:
            CheckpointError: another layout, or weights that are missing, unexpected, damaged or pickled.
        """
        encoder = cls(TipsVisionConfig(**read_tips_vision_config(Path(folder))))
        load_strictly(encoder, vision_from_transformers(read_weights(folder)), str(folder))
        return encoder.eval()

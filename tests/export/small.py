"""Small models with random weights, to export."""

import numpy as np
import torch

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.settings import Settings

WIDTH = 24
QUERIES = 9


class NoText(torch.nn.Module):
    """A text encoder that is not needed."""

    width = WIDTH
    uses_templates = False


def clip(**sizes):
    torch.manual_seed(0)
    sizes = {"width": 32, "layers": 2, "heads": 4, "hidden": 64, "grid": 4, "output": WIDTH, "learned_grid": 4} | sizes
    return CLIPVision(VisionConfig(**sizes)).eval()


def maskformer():
    torch.manual_seed(1)
    config = MaskFormerConfig(
        depth=50, stem_width=4, width=2, hidden=16, heads=2, ffn=16, decoder_layers=1, queries=QUERIES, conv_dim=64,
        mask_dim=8, class_mlp=(16, 8),
    )  # fmt: skip
    return MaskFormer(config).eval()


def anchors(query="mask", **sizes):
    torch.manual_seed(2)
    config = AnchorConfig(width=WIDTH, heads=4, hidden=32, query=query, slots=QUERIES, **sizes)
    return AnchorDecoder(config).eval()


def model(*, text=None, proposer=True, decoder=None, encoder=None, **settings):
    """A CLIP with the paper's MaskFormer; settings are fields of ``Settings``."""
    settings = Settings(resize=Resize(96, 512), anchors="pool" if decoder is None else "decoder", **settings)
    parts = maskformer() if proposer is True else proposer
    return DeOP(encoder or clip(), text or NoText(), parts or None, anchors=decoder, settings=settings).eval()


def photo(height=70, width=90, seed=0):
    """Smooth noise, so that masks and patches differ; (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (-(-height // 16), -(-width // 16), 3)).repeat(16, 0).repeat(16, 1)
    return (coarse[:height, :width] + random.integers(-20, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)

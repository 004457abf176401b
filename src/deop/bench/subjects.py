"""What is timed: models with random weights in the published sizes, photos and masks. Weights do not affect speed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance
from deop.images.preprocessing import Normalization, Resize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.settings import Card, Settings

TOWERS = {
    "B/16": VisionConfig(),
    "L/14": VisionConfig(width=1024, layers=24, heads=16, hidden=4096, patch=14, grid=16, output=768),
}
"""Vision towers of CLIP."""

SIDES = {"B/16": 512, "L/14": 448}
"""Side of the input in pixels; both give 1,024 patches."""

NANO_NAMES = ["person", "cat", "wall", "sky", "grass"]
"""Class names for the small model, whose text encoder knows real words only."""


@dataclass(frozen=True)
class BenchOptions:
    """Options of a bench.

    Attributes:
        device: device of the models.
        dtype: precision of their weights.
        photo: (H, W, 3) uint8, used by all cases.
        repeats: timed runs per case.
        quick: fewer sizes, counts and repeats, to check that everything works; the figures mean nothing.
        seed: random seed of weights, masks and synthetic photos.
        towers: CLIP towers to measure, keys of ``TOWERS``.
        short: only the main cases of each topic, so that ``SHORT`` takes less than five minutes on two cores.
    """

    device: torch.device
    dtype: torch.dtype
    photo: np.ndarray
    repeats: int = 5
    quick: bool = False
    seed: int = 0
    towers: tuple[str, ...] = ("B/16", "L/14")
    short: bool = False

    @property
    def few_repeats(self) -> int:
        """Timed runs of a slow case."""
        return 1 if self.quick else max(3, self.repeats // 2)

    def shorten(self, series: tuple[int, ...]) -> tuple[int, ...]:
        """The values of a series; only the first two in a quick run."""
        return series[:2] if self.quick else series


class RandomText(nn.Module):
    """A text encoder with random embeddings, which takes no time: names are embedded once and cached in any case."""

    uses_templates = False
    context_length = 1 << 20

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.identity = width, "random"

    def count_tokens(self, text: str) -> int:
        """Number of words in the text."""
        return len(text.split())

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Random embeddings (n, C), the same in each call."""
        generator = torch.Generator().manual_seed(len(texts))
        return torch.randn(len(texts), self.width, generator=generator)


class RealisticProposer(nn.Module):
    """A proposer that runs a network of random weights and replaces its masks by masks like a trained network's.

    The masks of random weights are noise: hardly any of their crops would be smaller than the photo.

    Args:
        network: the network to run.
        seed: random seed of the masks.
    """

    def __init__(self, network: MaskFormer, seed: int) -> None:
        super().__init__()
        self.network, self.seed = network, seed
        self.normalization: Normalization = network.normalization
        self.masks: dict[tuple[int, ...], Tensor] = {}

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """As many proposals as the network has queries, for each photo."""
        outputs = self.network(pixels)
        shape = tuple(outputs[0].logits.shape)
        if shape not in self.masks:
            self.masks[shape] = elliptic_masks(shape[0], (shape[1], shape[2]), self.seed).to(pixels.device)
        return [Proposals(self.masks[shape], output.slots) for output in outputs]


def clip_model(
    tower: str,
    *,
    proposals: int = 100,
    depth: int | None = 50,
    anchors: bool = True,
    side: int | None = None,
    seed: int = 0,
) -> DeOP:
    """The paper's model in a published size: CLIP with a gate in its last block, anchor decoder, MaskFormer.

    Args:
        tower: a key of ``TOWERS``.
        proposals: number of masks N.
        depth: depth of the proposer's ResNet, 50 or 101; None: no proposer.
        anchors: whether the model has an anchor decoder.
        side: side of the input in pixels; None: that of ``SIDES``.
        seed: random seed of the weights and masks.
    """
    torch.manual_seed(seed)
    config, side = TOWERS[tower], side or SIDES[tower]
    encoder = CLIPVision(config)
    proposer = None
    if depth:
        network = MaskFormer(MaskFormerConfig(depth, queries=proposals, class_mlp=(256, 1024, config.output)))
        proposer = RealisticProposer(network, seed)
    decoder = AnchorDecoder(AnchorConfig(width=config.output, slots=proposals)) if anchors else None
    settings = Settings(
        resize=Resize(side),
        severance=Severance("gate", (-1,), class_token="severed"),
        anchors="decoder" if anchors else "pool",
        drop_redundant=False,
    )
    name = f"CLIP {tower}" + (f" + R{depth} MaskFormer" if depth else "")
    model = DeOP(encoder, RandomText(config.output), proposer, anchors=decoder, settings=settings, card=Card(name))
    model.cache = None
    return model.eval()


def distinct_names(count: int) -> list[str]:
    """``count`` different names."""
    return [f"name number {index}" for index in range(count)]


def nano_words(model: Any, count: int) -> list[str]:
    """``count`` different names for the small model: words that it knows. It reads all made-up names nearly alike."""
    words = [word for word in model.text.words if word.isalpha() and len(word) > 3]
    return words[:count]


def synthetic_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A photo (H, W, 3) uint8 with smooth regions, edges and some noise, which JPEG and masks find realistic."""
    random = np.random.default_rng(seed)
    small = random.normal(size=(3, 12, 16))
    zoom = (1, height / 12, width / 16)
    smooth = ndimage.zoom(small, zoom, order=1)[:, :height, :width]
    pixels = 128 + 50 * np.round(2 * smooth) / 2 + 4 * random.normal(size=(3, height, width))
    return pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def elliptic_masks(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Mask logits (N, h, w) of ellipses; most are small, as are the proposals of a trained network."""
    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    masks = np.empty((count, height, width), np.float32)
    for mask in masks:
        radius = 0.04 + 0.4 * random.beta(1.2, 3.5, 2)
        centre = random.random(2)
        distance = np.hypot((y / height - centre[0]) / radius[0], (x / width - centre[1]) / radius[1])
        mask[:] = (1 - distance) * 12
    return torch.from_numpy(masks.clip(-12, 12))


class RandomCLIPSeg:
    """transformers' CLIPSeg with random weights in the published size.

    Args:
        device: device of the model.
        dtype: precision of its weights.
        seed: random seed of its weights.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

        torch.manual_seed(seed)
        # CIDAS/clipseg-rd64-refined: CLIP B/16 at 352 pixels, a decoder of 64 channels over three of its layers.
        config = CLIPSegConfig(
            vision_config={"patch_size": 16, "image_size": 224}, reduce_dim=64, extract_layers=[3, 6, 9],
            use_complex_transposed_convolution=True,
        )  # fmt: skip
        self.model: Any = CLIPSegForImageSegmentation(config).eval().to(device, dtype)
        self.device, self.dtype, self.vocabulary = device, dtype, self.model.config.text_config.vocab_size
        self._conditions: dict[int, Tensor] = {}

    def _inputs(self, photo: np.ndarray, prompts: int) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(photo).to(self.device).permute(2, 0, 1)[None].to(self.dtype) / 127.5 - 1
        pixels = F.interpolate(pixels, size=(352, 352), mode="bilinear", align_corners=False)
        tokens = torch.randint(1, self.vocabulary - 2, (prompts, 8), device=self.device)
        tokens[:, -1] = self.vocabulary - 1
        return pixels, tokens

    @torch.inference_mode()
    def documented(self, photo: np.ndarray, prompts: int, batch: int = 20) -> np.ndarray:
        """The label map (H, W) as CLIPSeg's documentation computes it: the photo is encoded again for each prompt.

        To limit memory, at most ``batch`` prompts are processed together.
        """
        pixels, tokens = self._inputs(photo, prompts)
        parts = [
            self.model(input_ids=part, pixel_values=pixels.expand(len(part), -1, -1, -1)).logits.reshape(-1, 352, 352)
            for part in tokens.split(batch)
        ]
        return self._label_map(torch.cat(parts), photo)

    @torch.inference_mode()
    def once(self, photo: np.ndarray, prompts: int, batch: int = 20) -> np.ndarray:
        """The same map with the photo encoded once and the prompts in advance; the documentation does not show this."""
        pixels, tokens = self._inputs(photo, prompts)
        if prompts not in self._conditions:
            text = [self.model.clip.get_text_features(input_ids=part) for part in tokens.split(batch)]
            self._conditions[prompts] = torch.cat([getattr(part, "pooler_output", part) for part in text])
        outputs = self.model.clip.vision_model(pixels, output_hidden_states=True, interpolate_pos_encoding=True)
        layers = [outputs.hidden_states[layer + 1] for layer in self.model.extract_layers]
        parts = [
            self.model.decoder([layer.expand(len(part), -1, -1) for layer in layers], part).logits.reshape(-1, 352, 352)
            for part in self._conditions[prompts].split(batch)
        ]
        return self._label_map(torch.cat(parts), photo)

    @staticmethod
    def _label_map(logits: Tensor, photo: np.ndarray) -> np.ndarray:
        """The best prompt per pixel at the photo's size, -1 where its probability is below 0.5."""
        best, winner = logits.float().max(0)
        full = F.interpolate(best[None, None], size=photo.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        names = F.interpolate(winner[None, None].float(), size=photo.shape[:2], mode="nearest")[0, 0]
        return torch.where(full.sigmoid() >= 0.5, names, -1).int().cpu().numpy()

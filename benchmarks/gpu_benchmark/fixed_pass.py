"""A pass from photos to label maps that stays on the device, for photos of one fixed size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deop.bench.encoder_speed import encoder_flops
from deop.bench.subjects import SIDES, TOWERS, RandomText, RealisticProposer, distinct_names, elliptic_masks
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance
from deop.images.canvas import Canvas
from deop.images.preprocessing import Resize, normalize
from deop.model import DeOP
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.regions.classification import classify, probabilities
from deop.regions.encoding import embed_masks
from deop.regions.on_device import label_without_waiting
from deop.settings import Card, Settings

TINY_TOWER = {"width": 64, "layers": 2, "heads": 4, "hidden": 128, "output": 32}
TINY_PROPOSER = {
    "stem_width": 8, "width": 8, "hidden": 32, "heads": 4, "ffn": 64, "decoder_layers": 1, "conv_dim": 32,
    "mask_dim": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Sizes of the measured models and inputs.

    Attributes:
        tiny: whether networks and photos are tiny, so that a CPU runs them at once; the figures then mean nothing.
        masks: proposals per photo.
        names: number of class names.
        batches: batch sizes, ascending.
    """

    tiny: bool = False
    masks: int = 100
    names: int = 20
    batches: tuple[int, ...] = (1, 8, 32)

    def side(self, tower: str) -> int:
        """Side of the photos for a tower, in pixels."""
        if not self.tiny:
            return SIDES[tower]
        return 64 if TOWERS[tower].patch == 16 else 224

    def create_model(self, tower: str, device: torch.device, dtype: torch.dtype, seed: int) -> DeOP:
        """The paper's model with random weights, created on the device: gate, anchor decoder, R50 proposer."""
        torch.manual_seed(seed)
        config = TOWERS[tower]
        sizes: dict[str, Any] = {}
        if self.tiny:
            config = VisionConfig(**TINY_TOWER, patch=config.patch, grid=config.grid)
            sizes = dict(TINY_PROPOSER)
        mlp = (sizes.get("hidden", 256), 64 if self.tiny else 1024, config.output)
        with torch.device(device):
            encoder = CLIPVision(config)
            proposer = MaskFormer(MaskFormerConfig(50, queries=self.masks, class_mlp=mlp, **sizes))
            decoder = AnchorDecoder(AnchorConfig(width=config.output, slots=self.masks))
        settings = Settings(
            resize=Resize(self.side(tower)),
            severance=Severance("gate", (-1,)),
            anchors="decoder",
            drop_redundant=False,
        )
        model = DeOP(
            encoder,
            RandomText(config.output),
            RealisticProposer(proposer, seed),
            anchors=decoder,
            settings=settings,
            card=Card(f"CLIP {tower} + R50 MaskFormer"),
        )
        model.cache = None
        return model.to(device, dtype).eval()


class FixedPass:
    """The package's functions applied in turn to photos of one size, from pixels on the device to label maps there.

    Masks of random weights are noise. Therefore the proposer runs, and its masks are then replaced by ellipses, as in
    ``deop bench``.

    Args:
        model: model from ``Scale.create_model``.
        scale: the same sizes.
        batch: number of photos.
        encoder: a variant of the model's encoder; None: the encoder itself.
        network: a variant of the proposer's network; None: the network itself.
    """

    def __init__(
        self,
        model: DeOP,
        scale: Scale,
        batch: int,
        encoder: Callable[..., Any] | None = None,
        network: Callable[..., Any] | None = None,
    ) -> None:
        proposer: Any = model.proposer
        self.model, self.batch, self.names = model, batch, scale.names
        self.encoder: Callable[..., Any] = encoder or model.encoder
        self.network: Callable[..., Any] = network or proposer.network.network
        self.patch = model.encoder.patch
        side = model.settings.resize.short_side or 0
        self.size = (side, side)
        self.canvas = Canvas(self.size, self.size, self.size)
        device, generator = model.device, torch.Generator().manual_seed(0)
        self.photos = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator).to(device)
        masks = elliptic_masks(scale.masks, (side // 4, side // 4)).to(device)
        self.masks = masks.expand(batch, -1, -1, -1).contiguous()
        self.slots = torch.arange(scale.masks, device=device)
        self.classes = model.class_tensors(model.vocabulary(distinct_names(scale.names)))

    @property
    def flops(self) -> int:
        """Floating-point operations of the encoder for the batch; only values are computed in its severed block."""
        config: Any = self.model.encoder.config
        return self.batch * encoder_flops(config, self.size, severed=1)

    @torch.inference_mode()
    def normalize(self, for_proposer: bool = False) -> Tensor:
        """The input (B, 3, H, W) of the encoder or of the proposer."""
        part: Any = self.model.proposer if for_proposer else self.model.encoder
        return normalize(self.photos, part.normalization, 32, self.model.dtype)

    @torch.inference_mode()
    def propose(self) -> Tensor:
        """Mask logits (B, N, h, w) float32."""
        logits = self.network(self.normalize(for_proposer=True)).mask_logits.float()
        assert logits.shape == self.masks.shape
        return self.masks

    @torch.inference_mode()
    def encode(self) -> Tensor:
        """Patch features (B, C, gh, gw)."""
        severance, sizes = self.model.settings.severance, [self.size] * self.batch
        masks = self.masks.to(self.model.dtype)
        return self.encoder(self.normalize(), masks, severance=severance, sizes=sizes).patches

    @torch.inference_mode()
    def embed(self, features: Tensor) -> Tensor:
        """Region embeddings (B, N, C)."""
        proposals = [Proposals(masks, self.slots) for masks in self.masks]
        settings, decoder = self.model.settings, self.model.anchors
        return embed_masks(features, proposals, self.size, self.patch, decoder, settings, "decoder").embeddings

    @torch.inference_mode()
    def classify(self, regions: Tensor) -> Tensor:
        """Probabilities (B, N, K) of the names."""
        logits = classify(regions, self.classes, self.model.no_object, self.model.settings.temperature)
        return probabilities(logits)[..., :-1]

    @torch.inference_mode()
    def assemble(self, votes: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (B, H, W) int32 and confidences (B, H, W) float32."""
        maps = [
            label_without_waiting(vote.contiguous(), Proposals(masks), self.canvas, names=self.names)
            for vote, masks in zip(votes, self.masks, strict=True)
        ]
        labels, confidences = zip(*maps, strict=True)
        return torch.stack(labels), torch.stack(confidences)

    @torch.inference_mode()
    def classify_photos(self) -> Tensor:
        """The classification stage: from photos and masks to probabilities (B, N, K)."""
        return self.classify(self.embed(self.encode()))

    @torch.inference_mode()
    def __call__(self) -> tuple[Tensor, Tensor]:
        """From photos to label maps."""
        self.propose()
        return self.assemble(self.classify_photos())

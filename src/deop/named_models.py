"""The zoo: named models that need no training, each an encoder and a mask proposer from the hub. Needs no torch.

The encoder classifies the regions; its last block is severed, so that regions do not mix (docs/method.md §12). A
published segmentation model proposes them; its classes are ignored. No model of the zoo was measured with deop, for
lack of the weights: ``Usage.basis`` says which published result the settings follow.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from deop.severance import PRESETS, TRAINING_FREE, Severance

NANO = Path(__file__).parent / "assets" / "nano"
"""Folder of the small model that is part of the package, in deop's own format."""


@dataclass(frozen=True)
class HubWeights:
    """Weights on the hub.

    Attributes:
        repo: "org/name".
        revision: the commit, so that a name always means the same weights; "main" where no commit could be verified.
        license: SPDX identifier of the licence of the weights, or "other" as on the hub.
        megabytes: size of the download.
    """

    repo: str
    revision: str
    license: str
    megabytes: int

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Usage:
    """How an encoder is used without training.

    Attributes:
        basis: the published result that the choice follows, mIoU in per cent, obtained with other code.
        severance: how attention is severed.
        short_side: length in pixels to which the shorter side of a photo is resized, for encoder and proposer.
        anchors: how masks are embedded (``Settings.anchors``).
        windows: (size, stride) in pixels (``Settings.windows``).
    """

    basis: str
    severance: Severance = TRAINING_FREE
    short_side: int = 512
    anchors: str = "pool"
    windows: tuple[int, int] | None = None


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo.

    Attributes:
        name: what ``load`` and ``--model`` take.
        purpose: what the model is good for, in one line.
        encoder: the encoder, in transformers' layout; channel statistics come from its preprocessor_config.json.
        proposer: the source of masks, unless the caller chooses another.
        usage: the settings.
    """

    name: str
    purpose: str
    encoder: HubWeights
    proposer: HubWeights
    usage: Usage

    @property
    def megabytes(self) -> int:
        """Size of both downloads."""
        return self.encoder.megabytes + self.proposer.megabytes


CLIP = Usage("39.4 for keys with keys (NACLIP, B/16), against 11.7 for plain CLIP; within masks, as CorrCLIP")
"""For CLIPs; docs/method.md §12 has the reasons."""

TIPS = Usage(
    "17.4 on ADE20K with the values of the last block at 448 pixels (TIPS, B/14)",
    PRESETS["maskclip"].severance,
    short_side=448,
)
"""For TIPS v2, whose patches are aligned with text: what its authors do, except that they average windows."""

SIGLIP = Usage(
    "no number found; the pooling head within masks of unsevered features is TextRegion's form for SigLIP 2",
    Severance(),
    anchors="attention-pool",
)
"""For SigLIP and SigLIP 2 (docs/models.md, "SigLIP")."""

TOWERS = ("clip", "metaclip_2", "siglip", "siglip2", "tipsv2")
"""The ``model_type`` of models of images and text that can be loaded from folders in transformers' layout."""

USAGES = {"tipsv2": TIPS, "siglip": SIGLIP, "siglip2": SIGLIP}
"""``model_type`` of a folder -> its usage; others are used like a CLIP."""


def _corrclip(basis: str, levels: tuple[int, ...]) -> Usage:
    """CorrCLIP without DINO, its second network: attention within masks, region tokens and earlier streams.

    It takes photos of 336 or, on ADE20K and Cityscapes, 448 pixels, in windows of 336 pixels.
    """
    severance = Severance("region", residual=0.0, mlp=False, levels=levels)
    return Usage(basis, severance, short_side=448, anchors="tokens", windows=(336, 112))


# The hub lists the licence of both as "other". The authors' MODEL_ZOO.md puts all its models under CC BY-NC 4.0; only
# their code is under MIT.
_MASKS_TINY = HubWeights(
    "facebook/mask2former-swin-tiny-coco-panoptic", "df6b1142ff50c3276559d9d78f35f6a579c75a77", "CC-BY-NC-4.0", 190
)
_MASKS_SMALL = HubWeights(
    "facebook/mask2former-swin-small-coco-panoptic", "823b60a9dddf1829580505654f6a00b306a65381", "CC-BY-NC-4.0", 276
)
# The size is that of the weights of its configuration in float32.
_MASKS_EOMT = HubWeights(
    "tue-mps/coco_panoptic_eomt_large_640", "dcd130bed9b1ebda7041fd660fddb16f905b9c3b", "MIT", 1267
)

_METACLIP_B16 = HubWeights("facebook/metaclip-b16-fullcc2.5b", "main", "CC-BY-NC-4.0", 602)
# The commit of the hub's conversion to safetensors; the main branch had pickled weights only.
_METACLIP_L14 = HubWeights(
    "facebook/metaclip-l14-fullcc2.5b", "b64160740dfb5568b1797fa8bcd9f504fd07f429", "CC-BY-NC-4.0", 1712
)

ZOO = {
    model.name: model
    for model in (
        ZooModel(
            "clip-b32",
            "the fastest: large patches, coarse edges inside masks",
            # The commit of the hub's conversion to safetensors; the main branch has pickled weights only.
            HubWeights("openai/clip-vit-base-patch32", "c237dc49a33fc61debc9276459120b7eac67e7ef", "MIT", 605),
            _MASKS_TINY,
            Usage("none found for patches of 32 pixels; as clip-b16"),
        ),
        ZooModel(
            "clip-b16",
            "the paper's encoder; a good first choice",
            HubWeights("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", "MIT", 599),
            _MASKS_TINY,
            CLIP,
        ),
        ZooModel(
            "clip-l14",
            "the most accurate of OpenAI's, and the slowest",
            HubWeights("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", "MIT", 1711),
            _MASKS_SMALL,
            Usage(
                "36.5 for keys with keys (NACLIP, L/14); 29.1 without residual and MLP, 13.7 with (values, five sets)"
            ),
        ),
        ZooModel(
            "laion-b32",
            "as clip-b32, trained on open data (LAION-2B)",
            HubWeights("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf", "MIT", 609),
            _MASKS_TINY,
            Usage("none found for this encoder; as clip-b16"),
        ),
        ZooModel(
            "metaclip-b16",
            "as clip-b16, trained on curated data; not for commercial use",
            _METACLIP_B16,
            _MASKS_TINY,
            Usage("50.3 within masks of a larger Mask2Former, with DINO (CorrCLIP)"),
        ),
        ZooModel(
            "metaclip-l14",
            "as clip-l14, trained on curated data; not for commercial use",
            _METACLIP_L14,
            _MASKS_SMALL,
            Usage("52.7 within masks of a larger Mask2Former, with DINO (CorrCLIP)"),
        ),
        ZooModel(
            "siglip2-b16",
            "more than 100 languages; may be used commercially with its default masks",
            # The size is that of the weights at this commit, and of the tokenizer's file as other models have it.
            HubWeights(
                "google/siglip2-base-patch16-512", "a89f5c5093f902bf39d3cd4d81d2c09867f0724b", "Apache-2.0", 1538
            ),
            _MASKS_EOMT,
            SIGLIP,
        ),
        ZooModel(
            "tips-b14",
            "patches trained to match text; may be used commercially with its default masks",
            HubWeights("google/tipsv2-b14", "main", "Apache-2.0", 785),
            _MASKS_EOMT,
            TIPS,
        ),
        ZooModel(
            "tips-l14",
            "as tips-b14, larger",
            # The size is that of its published number of weights.
            HubWeights("google/tipsv2-l14", "main", "Apache-2.0", 1949),
            _MASKS_EOMT,
            replace(TIPS, basis="24.7 on ADE20K with the values of the last block at 448 pixels (TIPS, L/14)"),
        ),
        ZooModel(
            "best-b16",
            "the best published method for B/16 without DINO; slow; not for commercial use",
            _METACLIP_B16,
            _MASKS_EOMT,
            _corrclip("51.6 (CorrCLIP without DINO); 52.3 with it", tuple(range(5, 10))),
        ),
        ZooModel(
            "best-l14",
            "the same for L/14; very slow; not for commercial use",
            _METACLIP_L14,
            _MASKS_EOMT,
            _corrclip("54.9 with DINO (CorrCLIP); without: not published", tuple(range(10, 22))),
        ),
    )
}

"""The zoo: named models that need no training, each an encoder and a mask proposer from the hub. Needs no torch.

The encoder classifies the regions; its last block is severed, so that regions do not mix (docs/method.md §12). A
published segmentation model proposes them; its classes are ignored.
"""

from dataclasses import dataclass
from pathlib import Path

from deop.severance import TRAINING_FREE, Severance

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
class ZooModel:
    """A model of the zoo.

    Attributes:
        name: what ``load`` and ``--model`` take.
        purpose: what the model is good for, in one line.
        encoder: the encoder, in transformers' layout; channel statistics come from its preprocessor_config.json.
        proposer: the source of masks, unless the caller chooses another.
        short_side: length in pixels to which the shorter side of a photo is resized, for encoder and proposer.
        severance: how the last block is severed.
    """

    name: str
    purpose: str
    encoder: HubWeights
    proposer: HubWeights
    short_side: int = 512
    severance: Severance = TRAINING_FREE

    @property
    def megabytes(self) -> int:
        """Size of both downloads."""
        return self.encoder.megabytes + self.proposer.megabytes


# The hub lists the licence of both as "other". The authors' MODEL_ZOO.md puts all its models under CC BY-NC 4.0; only
# their code is under MIT.
_MASKS_TINY = HubWeights(
    "facebook/mask2former-swin-tiny-coco-panoptic", "df6b1142ff50c3276559d9d78f35f6a579c75a77", "CC-BY-NC-4.0", 190
)
_MASKS_SMALL = HubWeights(
    "facebook/mask2former-swin-small-coco-panoptic", "823b60a9dddf1829580505654f6a00b306a65381", "CC-BY-NC-4.0", 276
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
        ),
        ZooModel(
            "clip-b16",
            "the paper's encoder; a good first choice",
            HubWeights("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", "MIT", 599),
            _MASKS_TINY,
        ),
        ZooModel(
            "clip-l14",
            "the most accurate of OpenAI's, and the slowest",
            HubWeights("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", "MIT", 1711),
            _MASKS_SMALL,
        ),
        ZooModel(
            "laion-b32",
            "as clip-b32, trained on open data (LAION-2B)",
            HubWeights("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf", "MIT", 609),
            _MASKS_TINY,
        ),
        ZooModel(
            "metaclip-b16",
            "as clip-b16, trained on curated data; not for commercial use",
            HubWeights("facebook/metaclip-b16-fullcc2.5b", "main", "CC-BY-NC-4.0", 602),
            _MASKS_TINY,
        ),
    )
}

"""Published training-free attentions by name, as values of ``Severance`` (docs/attention.md). Needs no torch."""

from dataclasses import dataclass

from deop.severance import Severance


@dataclass(frozen=True)
class Preset:
    """A published method.

    Attributes:
        severance: its values; the last block is severed.
        summary: what it does, in one line.
        reference: authors, title and place of publication.
    """

    severance: Severance
    summary: str
    reference: str


PRESETS = {
    "maskclip": Preset(
        Severance("self"),
        "each patch keeps its own value",
        "Zhou et al., Extract Free Dense Labels from CLIP, ECCV 2022",
    ),
    "sclip": Preset(
        Severance("similar", similarity="qk", gain=2.0, class_key=True),
        "attention of queries to queries plus keys to keys",
        "Wang et al., SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference, ECCV 2024",
    ),
    "clearclip": Preset(
        Severance("similar", residual=0.0, similarity="q", mlp=False, class_key=True),
        "attention of queries to queries, without residual and MLP",
        "Lan et al., ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference, ECCV 2024",
    ),
    "naclip": Preset(
        Severance("similar", residual=0.0, similarity="k", neighbours=5.0, mlp=False, class_key=True),
        "attention of keys to keys with a preference for neighbours, without residual and MLP",
        "Hajimiri et al., Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic Segmentation, "
        "WACV 2025",
    ),
    "corrclip": Preset(
        Severance("region", residual=0.0, mlp=False),
        "the average over the masks that a patch is in, without residual and MLP; its form without a second network",
        "Zhang et al., CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary Semantic Segmentation, "
        "ICCV 2025",
    ),
    "corrclip-proxy": Preset(
        Severance("region", residual=0.0, similarity="proxy", mlp=False, sharpness=4.0, uncovered="similar", merge=0.2),
        "as corrclip, weighted by the similarity of a second network's features (--proxy)",
        "Zhang et al., CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary Semantic Segmentation, "
        "ICCV 2025",
    ),
    "proxyclip": Preset(
        Severance("similar", residual=0.0, similarity="proxy", mlp=False, sharpness=3.0, shift=1.2),
        "attention by the similarity of a second network's features (--proxy), without residual and MLP",
        "Lan et al., ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation, ECCV 2024",
    ),
    "trident": Preset(
        Severance("similar", residual=0.0, similarity="proxy", mlp=False, sharpness=3.0, shift=1.2),
        "its first stage, whose attention is that of proxyclip; combine it with windows",
        "Shi et al., Harnessing Vision Foundation Models for High-Performance, Training-Free Open Vocabulary "
        "Segmentation, ICCV 2025",
    ),
}
"""Name -> published method."""

"""The two-stream baseline: cut every proposal out of the photo and encode each crop (METHOD section 8, SimBaseline).

It shares encoder, proposals and text with the one-pass model, so that both are compared on equal terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.images.preprocessing import CLIP, Normalization
from deop.proposals.types import Proposals
from deop.protocols import VisionEncoder
from deop.regions.classification import class_logits, no_object_logits, probabilities
from deop.settings import TEMPERATURE
from deop.text.embedding import Classes

CROP_SIDE = 224
"""Side of a crop in pixels, what published CLIPs were trained on."""


class ProposalCrops(NamedTuple):
    """What the encoder gets to see of the proposals."""

    pixels: Tensor  # (M, 3, side, side), normalised; zero outside the mask
    valid: Tensor  # (N,) bool, which proposals have a crop: those with any pixel
    boxes: Tensor  # (M, 4) int64, x0, y0, x1, y1 with right and bottom exclusive, before enlarging


def crop_proposals(
    image: Tensor,
    masks: Tensor,
    normalization: Normalization = CLIP,
    *,
    side: int = CROP_SIDE,
    expand: float = 1.0,
    threshold: float = 0.5,
) -> ProposalCrops:
    """Cut each proposal out of an image, its surroundings replaced by the mean colour (METHOD section 8).

    Args:
        image: (3, H, W), RGB from 0 to 255.
        masks: (N, H, W) float in [0, 1], mask probabilities.
        normalization: the encoder's; its mean is the fill colour, so that the surroundings become 0.
        side: side of the crops in pixels; the aspect ratio is not kept.
        expand: by how much the tight box is enlarged about its centre.
        threshold: a pixel belongs to the mask where the probability is above it.

    Returns:
        The crops of the proposals that have any pixel, in their order.
    """
    inside = masks > threshold
    rows, columns = inside.any(2), inside.any(1)  # (N, H), (N, W)
    valid = rows.any(1)
    boxes = torch.stack([*_extent(columns[valid]), *_extent(rows[valid])], 1)[:, [0, 2, 1, 3]]
    mean = image.new_tensor(normalization.mean, dtype=torch.float32)[:, None, None]
    std = image.new_tensor(normalization.std, dtype=torch.float32)[:, None, None]
    normalised = (image.float() - mean) / std
    crops = [cut(normalised, mask, box, expand) for mask, box in zip(inside[valid], boxes.tolist(), strict=True)]
    resized = [F.interpolate(crop[None], size=(side, side), mode="bicubic", align_corners=False) for crop in crops]
    pixels = torch.cat(resized) if resized else normalised.new_zeros(0, 3, side, side)
    return ProposalCrops(pixels, valid, boxes)


def cut(normalised: Tensor, mask: Tensor, box: list[int], expand: float) -> Tensor:
    """One crop (3, h, w) of a normalised image (3, H, W), zero outside the mask (H, W) bool."""
    x0, x1 = _enlarge(box[0], box[2], expand, mask.shape[1])
    y0, y1 = _enlarge(box[1], box[3], expand, mask.shape[0])
    return normalised[:, y0:y1, x0:x1] * mask[y0:y1, x0:x1]


def _enlarge(low: int, high: int, expand: float, limit: int) -> tuple[int, int]:
    centre, half = (low + high) / 2, (high - low) / 2 * expand
    return max(int(centre - half), 0), min(int(centre + half), limit)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true of each row (M, L) bool."""
    length = occupied.shape[1]
    places = torch.arange(length, device=occupied.device)
    first = torch.where(occupied, places, length).amin(1) if len(occupied) else places[:0]
    last = torch.where(occupied, places + 1, 0).amax(1) if len(occupied) else places[:0]
    return first, last


@torch.inference_mode()
def encode_crops(encoder: VisionEncoder, pixels: Tensor, batch: int = 32) -> Tensor:
    """Class-token embeddings (M, C), L2-normalised, float32, of crops (M, 3, side, side), ``batch`` at a time."""
    embeddings = [F.normalize(encoder(part).image.float(), dim=-1) for part in pixels.split(batch) if len(part)]
    return torch.cat(embeddings) if embeddings else pixels.new_zeros(0, encoder.width, dtype=torch.float32)


def crop_probabilities(logits: Tensor, valid: Tensor) -> Tensor:
    """Class probabilities of all proposals from the logits of their crops (docs/method.md §8).

    Args:
        logits: (M, K + 1), of the proposals that have a crop: the names and, last, the background (-inf where there is
            none). The "no object" vector takes no part.
        valid: (N,) bool, which proposals have a crop.

    Returns:
        (N, K + 1); an empty proposal scores 1 in every column, so that an ensemble leaves it to the other classifier.
    """
    scores = logits.new_ones(len(valid), logits.shape[1], dtype=torch.float32)
    scores[valid] = probabilities(logits)
    return scores


def two_stream_probabilities(
    crops: Tensor,
    valid: Tensor,
    proposals: Proposals,
    classes: Classes,
    stream: "TwoStream",
    no_object: Tensor | None = None,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Class probabilities of all proposals, from their crops and, in an ensemble, from the proposer's own classes.

    Args:
        crops: (N, C) L2-normalised embeddings of the crops; rows of proposals without a crop are not used.
        valid: (N,) bool, which proposals have a crop.
        proposals: N of them. Without class embeddings of their own, the crops alone decide.
        classes: embeddings of K names, and of the background.
        stream: the weight of the ensemble, and which names training saw.
        no_object: (C,) the learned "no object" vector, or None.
        temperature: factor of the cosine similarities.

    Returns:
        (N, K + 1): the names and, last, the background.
    """
    scores = crop_probabilities(class_logits(crops[valid], classes, temperature), valid)
    if proposals.embeddings is None or stream.ensemble <= 0:
        return scores * valid[:, None]
    embeddings = F.normalize(proposals.embeddings.float(), dim=-1)
    logits = class_logits(embeddings, classes, temperature)
    if no_object is not None:
        logits = torch.cat([logits, no_object_logits(embeddings, no_object, temperature)[:, None]], 1)
    own_scores = probabilities(logits)[:, : logits.shape[1] - (no_object is not None)]
    return ensemble(own_scores, scores, stream.seen_columns(classes.names).to(scores.device), stream.ensemble)


def ensemble(
    proposal_probabilities: Tensor, crop_scores: Tensor, seen: Tensor | None = None, weight: float = 0.8
) -> Tensor:
    """Geometric mean of the proposal network's own class scores and those of the crops (METHOD section 8).

    Args:
        proposal_probabilities: (N, K), A: of the stage-2 network, softmax with no-object, that column dropped.
        crop_scores: (N, K), C: ``crop_probabilities``.
        seen: (K,) bool, which names training saw; None: none.
        weight: lambda in [0, 1]. Seen names score A^lambda C^(1 - lambda), unseen ones A^(1 - lambda) C^lambda. The
            published configurations: 0.8 for COCO-Stuff, 0.7 for VOC, 0.4 or 0.5 across data sets.

    Returns:
        (N, K), not renormalised.
    """
    if seen is None:
        seen = torch.zeros(crop_scores.shape[1], dtype=torch.bool, device=crop_scores.device)
    share = torch.where(seen, weight, 1 - weight)
    return proposal_probabilities**share * crop_scores ** (1 - share)


@dataclass(frozen=True)
class TwoStream:
    """How the two-stream classifier works.

    Attributes:
        ensemble: lambda, the weight of the proposal network's own class scores (see ``ensemble``) where the proposals
            carry class embeddings; 0: crops only.
        seen: names that training saw, for the ensemble.
        expand: by how much a crop's box is enlarged about its centre.
        side: side of a crop in pixels; None: what the encoder was trained on.
        batch: crops that go through the encoder together.
    """

    ensemble: float = 0.8
    seen: frozenset[str] = frozenset()
    expand: float = 1.0
    side: int | None = None
    batch: int = 32

    @classmethod
    def parse(cls, value: "str | TwoStream") -> "TwoStream | None":
        """A classifier from what people type: None for "one-pass", the defaults for "two-stream"."""
        if isinstance(value, cls):
            return value
        if value not in ("one-pass", "two-stream"):
            raise SettingError(f"unknown classifier {value!r}: choose one-pass or two-stream")
        return None if value == "one-pass" else cls()

    def seen_columns(self, names: Sequence[str]) -> Tensor:
        """(K + 1,) bool: which of K names training saw; the last column, the background, counts as unseen."""
        return torch.tensor([*(name in self.seen for name in names), False])

"""The two-stream baseline: each proposal is cropped and encoded by itself (docs/method.md §8, SimBaseline).

It shares encoder, proposals and text encoder with the one-pass model, so that both can be compared fairly.
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
from deop.regions.classification import ClassTensors, class_logits, no_object_logits, probabilities
from deop.settings import TEMPERATURE
from deop.text.embedded_classes import Classes

CROP_SIDE = 224
"""Side of a crop in pixels; published CLIP models were trained with it."""


class ProposalCrops(NamedTuple):
    """Crops of proposals.

    Attributes:
        pixels: (M, 3, side, side) float32, normalised; 0 outside the mask.
        valid: (N,) bool, which proposals have a crop: those with any pixel.
        boxes: (M, 4) int64, tight boxes x0, y0, x1, y1, right and bottom exclusive.
    """

    pixels: Tensor
    valid: Tensor
    boxes: Tensor


def crop_proposals(
    image: Tensor,
    masks: Tensor,
    normalization: Normalization = CLIP,
    *,
    side: int = CROP_SIDE,
    expand: float = 1.0,
    threshold: float = 0.5,
) -> ProposalCrops:
    """Crop each proposal from an image and replace its surroundings by the mean colour (docs/method.md §8).

    Args:
        image: (3, H, W), RGB in [0, 255].
        masks: (N, H, W) float in [0, 1], mask probabilities.
        normalization: that of the encoder; its mean is the fill colour, so the surroundings become 0.
        side: side of the crops in pixels; the aspect ratio is not kept.
        expand: factor by which the tight box is enlarged around its centre.
        threshold: pixels with a higher probability belong to the mask.

    Returns:
        The crops of all proposals with any pixel, in order.
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
    """Index of the first True of each row (M, L), and one past the last."""
    length = occupied.shape[1]
    positions = torch.arange(length, device=occupied.device)
    first = torch.where(occupied, positions, length).amin(1) if len(occupied) else positions[:0]
    last = torch.where(occupied, positions + 1, 0).amax(1) if len(occupied) else positions[:0]
    return first, last


@torch.inference_mode()
def encode_crops(encoder: VisionEncoder, pixels: Tensor, batch: int = 32) -> Tensor:
    """Image embeddings (M, C) float32, L2-normalised, of crops (M, 3, side, side), ``batch`` at a time."""
    embeddings = [F.normalize(encoder(part).image.float(), dim=-1) for part in pixels.split(batch) if len(part)]
    return torch.cat(embeddings) if embeddings else pixels.new_zeros(0, encoder.width, dtype=torch.float32)


def crop_probabilities(logits: Tensor, valid: Tensor, bias: float | None = None) -> Tensor:
    """Class probabilities of all proposals from the logits of their crops (docs/method.md §8).

    Args:
        logits: (M, K + 1), of the proposals with a crop: the names and, last, the background (-inf without one),
            without the "no object" vector.
        valid: (N,) bool, which proposals have a crop.
        bias: as in ``classification.probabilities``.

    Returns:
        (N, K + 1) float32. An empty proposal scores 1 in all columns, so an ensemble uses only the other classifier.
    """
    scores = logits.new_ones(len(valid), logits.shape[1], dtype=torch.float32)
    scores[valid] = probabilities(logits, bias)
    return scores


def two_stream_probabilities(
    crops: Tensor,
    valid: Tensor,
    proposals: Proposals,
    classes: Classes | ClassTensors,
    stream: "TwoStream",
    no_object: Tensor | None = None,
    temperature: float = TEMPERATURE,
    bias: float | None = None,
) -> Tensor:
    """Class probabilities of all proposals from their crops and, in an ensemble, from the proposer's class embeddings.

    Args:
        crops: (N, C) float, L2-normalised embeddings of the crops; rows of proposals without a crop are ignored.
        valid: (N,) bool, which proposals have a crop.
        proposals: N proposals. If they have no class embeddings, only the crops are used.
        classes: embeddings of K names and the background.
        stream: weight and seen names of the ensemble.
        no_object: (C,) the learned "no object" vector, or None.
        temperature: factor of the cosine similarities.
        bias: as in ``classification.probabilities``, for the crops.

    Returns:
        (N, K + 1) float32: the names and, last, the background.
    """
    scores = crop_probabilities(class_logits(crops[valid], classes, temperature), valid, bias)
    if proposals.embeddings is None or stream.ensemble <= 0:
        return scores * valid[:, None]
    embeddings = F.normalize(proposals.embeddings.float(), dim=-1)
    logits = class_logits(embeddings, classes, temperature)
    if no_object is not None:
        logits = torch.cat([logits, no_object_logits(embeddings, no_object, temperature)[:, None]], 1)
    proposal_scores = probabilities(logits)[:, : logits.shape[1] - (no_object is not None)]
    return ensemble(proposal_scores, scores, stream.seen_columns(classes.names).to(scores.device), stream.ensemble)


def ensemble(
    proposal_probabilities: Tensor, crop_scores: Tensor, seen: Tensor | None = None, weight: float = 0.8
) -> Tensor:
    """Weighted geometric mean of the class scores of the proposal network and of the crops (docs/method.md §8).

    Args:
        proposal_probabilities: (N, K), A: softmax of the proposal network including "no object", without that column.
        crop_scores: (N, K), C: ``crop_probabilities``.
        seen: (K,) bool, True for names seen in training; None: all are unseen.
        weight: lambda in [0, 1]. Seen names score A^lambda C^(1 - lambda), unseen ones A^(1 - lambda) C^lambda.
            Published configurations: 0.8 for COCO-Stuff, 0.7 for VOC, 0.4 or 0.5 across data sets.

    Returns:
        (N, K), not renormalised.
    """
    if seen is None:
        seen = torch.zeros(crop_scores.shape[1], dtype=torch.bool, device=crop_scores.device)
    share = torch.where(seen, weight, 1 - weight)
    return proposal_probabilities**share * crop_scores ** (1 - share)


@dataclass(frozen=True)
class TwoStream:
    """Settings of the two-stream classifier.

    Attributes:
        ensemble: lambda in [0, 1], weight of the proposal network's class scores (see ``ensemble``) if the proposals
            have class embeddings; 0: crops only.
        seen: names that were seen in training, for the ensemble.
        expand: factor by which a crop's box is enlarged around its centre.
        side: side of a crop in pixels; None: that of the encoder's training images.
        batch: crops that are encoded together.

    Raises:
        SettingError: a number out of range.
    """

    ensemble: float = 0.8
    seen: frozenset[str] = frozenset()
    expand: float = 1.0
    side: int | None = None
    batch: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.ensemble <= 1:
            raise SettingError(f"the ensemble weight {self.ensemble} is not in [0, 1]")
        if not 0 < self.expand < float("inf"):
            raise SettingError(f"expand must be a positive number, not {self.expand}")
        if self.batch < 1 or (self.side is not None and self.side < 1):
            raise SettingError(f"batch ({self.batch}) and side ({self.side}) of crops must be at least 1")

    @classmethod
    def parse(cls, value: "str | TwoStream") -> "TwoStream | None":
        """Convert what a user gives: None for "one-pass", the defaults for "two-stream", or a ``TwoStream``.

        Raises:
            SettingError: another value.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or value not in ("one-pass", "two-stream"):
            raise SettingError(f"unknown classifier {value!r}: choose one-pass or two-stream")
        return None if value == "one-pass" else cls()

    def seen_columns(self, names: Sequence[str]) -> Tensor:
        """(K + 1,) bool, True for seen names; the last column, the background, counts as unseen."""
        return torch.tensor([*(name in self.seen for name in names), False])

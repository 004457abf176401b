"""What a model sees in photos before it hears any name: proposals, features, one embedding a mask.

The stages of the picture in docs/design.md between "pixels" and "regions", as functions over a model's parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop import assembly
from deop.anchors import AnchorDecoder, Regions, pool_regions
from deop.assembly import Canvas
from deop.encoders import VisionEncoder
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images import Resize, resized_shape
from deop.masks import grid_of, to_patches
from deop.proposals import Proposals
from deop.settings import ANCHORS, Settings
from deop.two_stream import TwoStream, crop_proposals, encode_crops


@dataclass(frozen=True)
class Look:
    """All that a model sees in one photo before it hears any name; ``DeOP.name`` can be asked of it again and again.

    Attributes:
        photo: (H, W, 3) uint8.
        canvas: where the photo lies in the masks.
        proposals: N masks.
        regions: (N, C) float, L2-normalised embeddings, one a proposal.
        heatmaps: (heads, N, gh, gw) float, where each was taken from; None for crops.
        valid: (N,) bool, which proposals have a crop; None in one pass.
        settings: what it was made with, for the result.
        source: path of the photo, where it came from a file.
    """

    photo: np.ndarray
    canvas: Canvas
    proposals: Proposals
    regions: Tensor
    heatmaps: Tensor | None = None
    valid: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    source: str | None = None


def canvas_of(photo: np.ndarray, resize: Resize) -> Canvas:
    """Where a photo (H, W, 3) lies in the input made of it, once ``resize_photo`` has resized it."""
    shape = (photo.shape[0], photo.shape[1])
    height, width = resized_shape(*shape, resize)
    padded = (height + -height % resize.divisor, width + -width % resize.divisor)
    return Canvas(shape, (height, width), padded)


def groups_of(canvases: Sequence[Canvas], masks: Sequence[Any]) -> list[list[int]]:
    """Positions of the photos that can share a batch: of one padded size, with masks given or not (None)."""
    groups: dict[tuple[tuple[int, int], bool], list[int]] = {}
    for index, (canvas, own) in enumerate(zip(canvases, masks, strict=True)):
        groups.setdefault((canvas.padded, own is None), []).append(index)
    return list(groups.values())


def one_pass(
    encoder: VisionEncoder,
    decoder: AnchorDecoder | None,
    settings: Settings,
    pixels: Tensor,
    canvases: Sequence[Canvas],
    proposals: Sequence[Proposals],
    severance: Severance,
    anchors: str | None = None,
) -> list[Look]:
    """Encode photos of one padded size once, and embed each of their masks.

    Args:
        encoder: the vision encoder.
        decoder: the anchor decoder, or None.
        settings: the model's.
        pixels: (B, 3, H, W), normalised for the encoder and padded.
        canvases: B of them.
        proposals: B of them, N may differ.
        severance: where and how attention is severed.
        anchors: "decoder", "pool" or None, as in ``DeOP.segment``.

    Returns:
        B looks, without their photos.
    """
    masks, valid = stack_proposals(proposals)
    sizes = [canvas.padded if settings.padding == "inside" else canvas.resized for canvas in canvases]
    features = encoder(pixels, masks.to(pixels.dtype), severance=severance, valid=valid, sizes=sizes).patches
    looks = []
    for index, (canvas, own) in enumerate(zip(canvases, proposals, strict=True)):
        rows, columns = grid_of(sizes[index], encoder.patch)
        chosen = choose_anchors(anchors, decoder, settings, own)
        own_features = features[index : index + 1, :, :rows, :columns]
        regions = embed_masks(own_features, own, canvas, encoder.patch, decoder, settings, chosen)
        made = {
            "classifier": "one-pass",
            "severance": severance.kind,
            "severed_layers": list(severance.layers) if severance.kind != "none" else [],
            "residual": severance.residual if severance.kind != "none" else None,
            "anchors": chosen,
            "proposals": len(own),
        }
        looks.append(Look(_NO_PHOTO, canvas, own, regions.embeddings[0], regions.heatmaps[0], settings=made))
    return looks


def choose_anchors(asked: str | None, decoder: AnchorDecoder | None, settings: Settings, proposals: Proposals) -> str:
    """ "decoder" or "pool": what was asked for, else the model's own, else pooling.

    Queries tied to slots mean nothing for masks that come from elsewhere than their own proposer: unless asked for,
    those are pooled.
    """
    if asked is not None and asked not in ANCHORS:
        raise SettingError(f"unknown anchors {asked!r}: choose one of {', '.join(ANCHORS)}")
    if asked == "decoder" and decoder is None:
        raise SettingError('this model has no anchor decoder: use anchors="pool"')
    if decoder is None:
        return "pool"
    slots = proposals.slots
    unknown = decoder.config.query == "slot" and slots is not None and bool((slots >= decoder.config.slots).any())
    if asked == "decoder" and unknown:
        raise SettingError(
            f"these anchors are tied to the {decoder.config.slots} query slots of their own proposer, and this one has "
            'more: use anchors="pool"'
        )
    if asked is not None:
        return asked
    return "pool" if unknown or (decoder.config.query == "slot" and slots is None) else settings.anchors


def embed_masks(
    features: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    patch: int,
    decoder: AnchorDecoder | None,
    settings: Settings,
    anchors: str,
) -> Regions:
    """Region embeddings of one image from its patch features (1, C, gh, gw)."""
    pooled = decoder is None or anchors == "pool"
    covers = proposals.logits[None].sigmoid()
    # The decoder sees masks as the original's did, at the patch centres; pooling must not lose small ones.
    coverage = to_patches(covers, canvas.padded, patch, antialias=pooled)
    coverage = coverage[..., : features.shape[-2], : features.shape[-1]]
    if decoder is None or pooled:
        coverage, features = coverage.float(), features.float()  # a mean over a thousand patches, and cheap
        features = F.normalize(features, dim=1) if settings.normalize_patches else features
        return pool_regions(features, coverage)
    slots = None if proposals.slots is None else proposals.slots[None].to(features.device, non_blocking=True)
    return decoder(F.normalize(features, dim=1), coverage.to(features.dtype), slots)


def crop_each(
    encoder: VisionEncoder,
    resized: Sequence[np.ndarray],
    canvases: Sequence[Canvas],
    proposals: Sequence[Proposals],
    stream: TwoStream,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Look]:
    """The two-stream baseline's way to region embeddings: every mask a crop, every crop through the encoder.

    Args:
        encoder: the same as the one pass's.
        resized: B photos (H', W', 3) uint8.
        canvases: B of them.
        proposals: B of them.
        stream: how.
        device: the model's.
        dtype: the model's.

    Returns:
        B looks, without their photos.
    """
    looks = []
    for photo, canvas, own in zip(resized, canvases, proposals, strict=True):
        image = torch.from_numpy(photo).to(device).permute(2, 0, 1)
        whole = Canvas(canvas.resized, canvas.resized, canvas.padded)
        masks = torch.cat([block for *_, block in assembly.mask_blocks(replace(own, exact=None), whole)], 1)
        side = stream.side or encoder.crop_side
        crops = crop_proposals(image, masks, encoder.normalization, side=side, expand=stream.expand)
        regions = crops.pixels.new_zeros(len(own), encoder.width)
        regions[crops.valid] = encode_crops(encoder, crops.pixels.to(dtype), stream.batch).float()
        made = {
            "classifier": "two-stream",
            "proposals": len(own),
            "ensemble": stream.ensemble,
            "seen": sorted(stream.seen),
        }
        looks.append(Look(_NO_PHOTO, canvas, own, regions, valid=crops.valid, settings=made))
    return looks


def stack_proposals(proposals: Sequence[Proposals]) -> tuple[Tensor, Tensor]:
    """Mask logits of images with different N as one tensor.

    Args:
        proposals: B of them, with masks of one size.

    Returns:
        (B, N, h, w) float, N the largest number; and (B, N) bool, which are real.
    """
    most = max(len(own) for own in proposals)
    first = proposals[0].logits
    masks = first.new_zeros(len(proposals), most, *first.shape[-2:])
    valid = torch.zeros(len(proposals), most, dtype=torch.bool, device=first.device)
    for index, own in enumerate(proposals):
        masks[index, : len(own)] = own.logits
        valid[index, : len(own)] = True
    return masks, valid


_NO_PHOTO = np.zeros((0, 0, 3), np.uint8)

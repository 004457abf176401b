"""From pixels to region embeddings: everything that a model computes before it needs class names."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks
from deop.networks.resampling import grid_of, resize_bilinear, to_patches
from deop.proposals.types import Proposals
from deop.protocols import VisionEncoder
from deop.regions.anchors import AnchorDecoder, Regions, pool_regions
from deop.regions.on_device import photo_masks
from deop.regions.two_stream import TwoStream, crop_proposals, encode_crops
from deop.regions.windows import mask_blocks
from deop.settings import ANCHORS, Settings


@dataclass(frozen=True)
class EncodedPhoto:
    """Everything that a model computes for one photo before it needs names; ``DeOP.label`` turns it into a result.

    Attributes:
        photo: (H, W, 3) uint8.
        canvas: position of the photo in the masks.
        proposals: N masks.
        regions: (N, C) float, L2-normalised embeddings, one per proposal.
        heatmaps: (heads, N, gh, gw) float, weights of the patches in each embedding; None for crops.
        two_stream: settings of the two-stream classifier; None for one pass.
        valid: (N,) bool, which proposals have a crop; None for one pass.
        settings: options that were used, as reported in the result.
        source: path of the photo, or None if it was not a file.
        cells: (gh * gw, C) float, L2-normalised embeddings of the patches, if they are classified one by one
            (``anchors="patch"``); else None.
        masks_are_instances: whether each mask of a thing is one whole thing (``protocols.Proposer``); True for given
            masks.
        cell: side of a patch in pixels of the network input; with features of a second network, of their finer grid.
    """

    photo: np.ndarray
    canvas: Canvas
    proposals: Proposals
    regions: Tensor
    heatmaps: Tensor | None = None
    two_stream: TwoStream | None = None
    valid: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    masks_are_instances: bool = True
    cells: Tensor | None = None
    cell: int = 0

    @cached_property
    def masks(self) -> PhotoMasks:
        """The N masks as arrays; on the CPU they share the memory of ``proposals``."""
        return photo_masks(self.proposals)


def encode_one_pass(
    encoder: VisionEncoder,
    decoder: AnchorDecoder | None,
    settings: Settings,
    pixels: Tensor,
    canvases: Sequence[Canvas],
    proposals: Sequence[Proposals],
    severance: Severance,
    anchors: str | None = None,
    proxy: Tensor | None = None,
) -> list[EncodedPhoto]:
    """Encode photos of one padded size in a single pass, and embed each of their masks.

    Args:
        encoder: the vision encoder.
        decoder: the anchor decoder, or None.
        settings: the model's settings.
        pixels: (B, 3, H, W), normalised for the encoder and padded.
        canvases: one for each photo.
        proposals: one for each photo; N may differ.
        severance: where and how attention is severed.
        anchors: as in ``DeOP.segment``.
        proxy: (B, c, h, w) float, features of another network over the pixels, or None.

    Returns:
        B encoded photos with an empty ``photo``, which the caller fills in.
    """
    masks, valid = stack_proposals(proposals)
    sizes = [canvas.padded if settings.padding == "inside" else canvas.resized for canvas in canvases]
    kinds = [choose_anchors(anchors, decoder, settings, candidates) for candidates in proposals]
    options: dict[str, Any] = {}
    if settings.windows is not None:
        options["windows"] = settings.windows
    if "tokens" in kinds:
        options["region_tokens"] = True
    if "attention-pool" in kinds:
        options["attention_pool"] = True
    if "image" in getattr(encoder, "options", ()):
        options["image"] = False
    patch = encoder.patch
    if severance.needs_proxy and proxy is not None:
        options["proxy"], patch = fit_proxy(proxy, (pixels.shape[-2], pixels.shape[-1]), patch)
    encoded_features = encoder(pixels, masks.to(pixels.dtype), severance=severance, valid=valid, sizes=sizes, **options)
    features = encoded_features.patches
    grids = [grid_of(size, patch) for size in sizes]
    encoded = []
    for group in _group_alike(grids, proposals, kinds, features.device):
        first, kind = group.start, kinds[group.start]
        rows, columns = grids[first]
        patches = features[first : group.stop, :, :rows, :columns]
        candidates = proposals[first : group.stop]
        tokens = None
        if kind in ("tokens", "attention-pool"):
            assert encoded_features.regions is not None
            tokens = encoded_features.regions[first : group.stop, : len(proposals[first])]
        regions = embed_masks(patches, candidates, canvases[first].padded, patch, decoder, settings, kind, tokens)
        for index, embeddings, heatmaps in zip(group, regions.embeddings, regions.heatmaps, strict=True):
            record = {
                "classifier": "one-pass",
                **severance.record(),
                "anchors": kind,
                "proposals": len(proposals[index]),
                **({} if settings.windows is None else {"windows": list(settings.windows)}),
                **({} if settings.partition == "none" else {"partition": settings.partition}),
            }
            cells = None
            if kind == "patch":
                cells = F.normalize(patches[index - first].flatten(1).T.float(), dim=-1, eps=1e-10)
            encoded.append(
                EncodedPhoto(
                    _NO_PHOTO,
                    canvases[index],
                    proposals[index],
                    embeddings,
                    heatmaps,
                    settings=record,
                    cells=cells,
                    cell=patch,
                )
            )
    return encoded


def fit_proxy(proxy: Tensor, size: tuple[int, int], patch: int) -> tuple[Tensor, int]:
    """Resize features of another network to a multiple of the encoder's patch grid, the nearest that fits in a patch.

    Args:
        proxy: (B, c, h, w) float.
        size: (H, W) of the pixels that they cover.
        patch: side of the encoder's patches in pixels.

    Returns:
        (B, c, k * gh, k * gw), and the side of a cell in pixels.
    """
    rows, columns = grid_of(size, patch)
    fitting = [factor for factor in range(1, patch + 1) if patch % factor == 0]
    factor = min(fitting, key=lambda factor: abs(factor - proxy.shape[-1] / columns))
    return resize_bilinear(proxy, (factor * rows, factor * columns)), patch // factor


def _group_alike(
    grids: Sequence[tuple[int, int]], proposals: Sequence[Proposals], kinds: Sequence[str], device: torch.device
) -> list[range]:
    """Group neighbouring photos whose masks can be embedded together: the same grid, number of masks and anchors.

    On a GPU this saves about a hundred kernel launches per photo. On a CPU it would save nothing, and results
    could be rounded differently in another batch size, so there every photo is a group.
    """
    if device.type != "cuda":
        return [range(index, index + 1) for index in range(len(grids))]
    keys = [
        (grid, len(candidates), candidates.slots is None, kind)
        for grid, candidates, kind in zip(grids, proposals, kinds, strict=True)
    ]
    groups = [list(indices) for _, indices in groupby(range(len(keys)), key=keys.__getitem__)]
    return [range(indices[0], indices[-1] + 1) for indices in groups]


def check_anchors(requested: str | None, decoder: AnchorDecoder | None) -> None:
    """Refuse an unknown value, and a decoder that the model does not have.

    Raises:
        SettingError: naming the value.
    """
    if requested is not None and requested not in ANCHORS:
        raise SettingError(f"unknown anchors {requested!r}: choose one of {', '.join(ANCHORS)}")
    if requested == "decoder" and decoder is None:
        raise SettingError('this model has no anchor decoder: use anchors="pool"')


def choose_anchors(
    requested: str | None, decoder: AnchorDecoder | None, settings: Settings, proposals: Proposals
) -> str:
    """Choose how regions are embedded: the requested value, or the model's setting, without a decoder never "decoder".

    If the decoder is tied to slots, masks without slots or with unknown ones are pooled, unless "decoder" is requested.

    Raises:
        SettingError: an unknown value, or a decoder that is missing or does not fit the proposals.
    """
    check_anchors(requested, decoder)
    if requested is None and settings.anchors != "decoder":
        return settings.anchors
    if decoder is None:
        return requested or "pool"
    slots, unknown = proposals.slots, False
    if decoder.config.query == "slot" and slots is not None:
        # While a graph is traced, tensors have no values; the proposers that can be traced use all slots in order.
        tracing = torch.compiler.is_exporting()
        unknown = len(slots) > decoder.config.slots if tracing else bool((slots >= decoder.config.slots).any())
    if requested == "decoder" and unknown:
        raise SettingError(
            f"the anchor decoder is tied to the {decoder.config.slots} query slots of its own proposer, but this "
            'proposer has more: use anchors="pool"'
        )
    if requested is not None:
        return requested
    return "pool" if unknown or (decoder.config.query == "slot" and slots is None) else settings.anchors


def embed_masks(
    features: Tensor,
    proposals: Sequence[Proposals],
    padded: tuple[int, int],
    patch: int,
    decoder: AnchorDecoder | None,
    settings: Settings,
    anchors: str,
    tokens: Tensor | None = None,
) -> Regions:
    """Region embeddings of B images of one size from their patch features (docs/method.md §5).

    Args:
        features: (B, C, gh, gw) patch features.
        proposals: N masks for each image; all or none have slots.
        padded: (H'', W'') of the networks' input in pixels.
        patch: side of a patch in pixels.
        decoder: the anchor decoder, or None.
        settings: the model's settings.
        anchors: one of ``ANCHORS``, from ``choose_anchors``.
        tokens: (B, N, C) float, the encoder's own embeddings of the masks for ``anchors="tokens"`` and
            "attention-pool".
    """
    pooled = decoder is None or anchors != "decoder"
    masks = torch.stack([candidates.logits for candidates in proposals]).sigmoid()
    # For the decoder, masks are sampled at the patch centres as in the original; pooling must not lose small masks.
    coverage = to_patches(masks, padded, patch, antialias=pooled)
    coverage = coverage[..., : features.shape[-2], : features.shape[-1]]
    if decoder is None or pooled:
        coverage, features = coverage.float(), features.float()  # for precision: this is a mean over a thousand patches
        added = None if tokens is None else tokens.float()
        if settings.normalize_patches:
            features = F.normalize(features, dim=1)
            added = None if added is None else F.normalize(added, dim=-1)
        if added is not None and anchors == "attention-pool":
            return Regions(F.normalize(added, dim=-1, eps=1e-10), pool_regions(features, coverage).heatmaps)
        return pool_regions(features, coverage, None if added is None else settings.token_weight * added)
    parts = [candidates.slots for candidates in proposals if candidates.slots is not None]
    slots = torch.stack(parts).to(features.device, non_blocking=True) if parts else None
    return decoder(F.normalize(features, dim=1), coverage.to(features.dtype), slots)


def encode_two_stream(
    encoder: VisionEncoder,
    resized: Sequence[np.ndarray],
    canvases: Sequence[Canvas],
    proposals: Sequence[Proposals],
    stream: TwoStream,
    device: torch.device,
    dtype: torch.dtype,
) -> list[EncodedPhoto]:
    """The two-stream baseline: crop each mask and encode each crop by itself (docs/method.md §8).

    Args:
        encoder: the vision encoder.
        resized: B photos (H', W', 3) uint8.
        canvases: one for each photo.
        proposals: one for each photo.
        stream: settings of the classifier.
        device: the model's device.
        dtype: the model's dtype.

    Returns:
        B encoded photos with an empty ``photo``, which the caller fills in.
    """
    encoded = []
    for photo, canvas, candidates in zip(resized, canvases, proposals, strict=True):
        image = torch.from_numpy(photo).to(device).permute(2, 0, 1)
        whole = Canvas(canvas.resized, canvas.resized, canvas.padded)
        masks = torch.cat([block for *_, block in mask_blocks(replace(candidates, exact=None), whole)], 1)
        side = stream.side or encoder.crop_side
        crops = crop_proposals(image, masks, encoder.normalization, side=side, expand=stream.expand)
        regions = crops.pixels.new_zeros(len(candidates), encoder.width)
        regions[crops.valid] = encode_crops(encoder, crops.pixels.to(dtype), stream.batch).float()
        record = {
            "classifier": "two-stream",
            "proposals": len(candidates),
            "ensemble": stream.ensemble,
            "seen": sorted(stream.seen),
        }
        encoded.append(
            EncodedPhoto(_NO_PHOTO, canvas, candidates, regions, two_stream=stream, valid=crops.valid, settings=record)
        )
    return encoded


def stack_proposals(proposals: Sequence[Proposals]) -> tuple[Tensor, Tensor]:
    """Stack mask logits of images with different N.

    Args:
        proposals: B proposals, with masks of one size.

    Returns:
        (B, N, h, w) float, with N the largest number of masks; and (B, N) bool, False for padding.
    """
    count = max(len(candidates) for candidates in proposals)
    first = proposals[0].logits
    if all(len(candidates) == count for candidates in proposals):
        masks = torch.stack([candidates.logits for candidates in proposals])
        return masks, torch.ones(len(proposals), count, dtype=torch.bool, device=first.device)
    masks = first.new_zeros(len(proposals), count, *first.shape[-2:])
    valid = torch.zeros(len(proposals), count, dtype=torch.bool, device=first.device)
    for index, candidates in enumerate(proposals):
        masks[index, : len(candidates)] = candidates.logits
        valid[index, : len(candidates)] = True
    return masks, valid


_NO_PHOTO = np.zeros((0, 0, 3), np.uint8)

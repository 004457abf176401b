"""From photos to encoded photos: reading, resizing, grouping by size, masks from one source or another."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images.canvas import canvas_of, group_by_size
from deop.images.masks import LOGIT_LIMIT
from deop.images.preprocessing import resize_photo, to_batch
from deop.images.reading import Photo, read_photo
from deop.networks.shared_trunk import reuse_features
from deop.proposals.filtering import drop_redundant
from deop.proposals.given import Masks, given_proposals
from deop.proposals.partition import partition_by_score
from deop.proposals.types import Proposals
from deop.protocols import FeatureNetwork, Proposer, VisionEncoder, masks_are_instances
from deop.regions.anchors import AnchorDecoder
from deop.regions.encoding import EncodedPhoto, encode_one_pass, encode_two_stream
from deop.regions.two_stream import TwoStream
from deop.settings import Settings


def encode_photos(
    encoder: VisionEncoder,
    proposer: Proposer | None,
    decoder: AnchorDecoder | None,
    settings: Settings,
    photos: Sequence[Photo],
    masks: Sequence[Masks | None],
    severance: Severance,
    two_stream: TwoStream | None,
    anchors: str | None,
    device: torch.device,
    dtype: torch.dtype,
    proxy: FeatureNetwork | None = None,
) -> list[EncodedPhoto]:
    """Encode photos; those of one padded size go through the networks together.

    Args:
        encoder: the vision encoder.
        proposer: the source of masks, or None.
        decoder: the anchor decoder, or None.
        settings: the model's settings.
        photos: the photos, in any form that ``read_photo`` takes.
        masks: for each photo its masks, or None for those of the proposer.
        severance: where and how attention is severed.
        two_stream: settings of the two-stream classifier, or None for one pass.
        anchors: as in ``DeOP.segment``.
        device: device of the weights.
        dtype: dtype of the weights.
        proxy: another network whose features the severance uses, or None.

    Returns:
        One ``EncodedPhoto`` per photo.

    Raises:
        ImageError, ProposalError, SettingError: naming the input and the remedy.
    """
    arrays = [read_photo(photo) for photo in photos]
    resized = [resize_photo(array, settings.resize) for array in arrays]
    canvases = [canvas_of(array, settings.resize) for array in arrays]
    encoded: dict[int, EncodedPhoto] = {}
    for group in group_by_size(canvases, masks):
        part, part_resized = [canvases[index] for index in group], [resized[index] for index in group]
        with reuse_features():
            pixels = None
            if two_stream is None:
                pixels = to_batch(part_resized, encoder.normalization, settings.resize.divisor, device, dtype)
            given = [array for array in (masks[index] for index in group) if array is not None]
            if given:
                disjoint = settings.partition == "score"
                proposals = [
                    given_proposals(array, canvas.photo, canvas.resized, canvas.padded, disjoint=disjoint).to(device)
                    for array, canvas in zip(given, part, strict=True)
                ]
            elif proposer is None:
                raise SettingError(
                    "this model has no proposer: give masks (masks=..., --masks), or load it with one (proposer=...)"
                )
            else:
                # If possible, proposer and encoder get the same tensor, so that a shared trunk runs only once.
                own = pixels
                if own is None or proposer.normalization != encoder.normalization:
                    own = to_batch(part_resized, proposer.normalization, settings.resize.divisor, device, dtype)
                proposals = propose(proposer, own, decoder, settings)
            if two_stream is None:
                assert pixels is not None
                features = None
                if proxy is not None and severance.needs_proxy:
                    shown = to_batch(part_resized, proxy.normalization, settings.resize.divisor, device, dtype)
                    features = proxy(shown)
                parts = encode_one_pass(
                    encoder, decoder, settings, pixels, part, proposals, severance, anchors, features
                )
                if given:
                    parts = [without_empty_masks(one) for one in parts]
            else:
                parts = encode_two_stream(encoder, part_resized, part, proposals, two_stream, device, dtype)
        for index, result in zip(group, parts, strict=True):
            photo = photos[index]
            source = str(photo) if isinstance(photo, (str, Path)) else None
            whole = masks[index] is not None or proposer is None or masks_are_instances(proposer)
            encoded[index] = replace(result, photo=arrays[index], source=source, masks_are_instances=whole)
    return [encoded[index] for index in range(len(photos))]


def without_empty_masks(encoded: EncodedPhoto) -> EncodedPhoto:
    """Set the embeddings and heatmaps of given masks without a pixel to 0; engines would differ in what remains.

    A cell that a mask does not touch has the logit -20, not -inf, so that the mean over an empty mask is one over the
    whole photo with weights of 2e-9.
    """
    covers = (encoded.proposals.logits > -LOGIT_LIMIT).flatten(1).any(1)
    heatmaps = None if encoded.heatmaps is None else encoded.heatmaps * covers[:, None, None]
    return replace(encoded, regions=encoded.regions * covers[:, None], heatmaps=heatmaps)


def propose(proposer: Proposer, pixels: Tensor, decoder: AnchorDecoder | None, settings: Settings) -> list[Proposals]:
    """The proposer's masks, without redundant ones unless an anchor decoder is tied to their slots; partitioned."""
    proposals = proposer(pixels)
    tied = decoder is not None and decoder.config.query == "slot" and settings.anchors == "decoder"
    dropping = settings.drop_redundant and not tied
    if dropping:
        proposals = [drop_redundant(candidates) for candidates in proposals]
    if settings.partition == "score":
        proposals = [partition_by_score(candidates, drop_empty=dropping) for candidates in proposals]
    return proposals

"""The networks of a model as modules that can be traced: pixels of one photo -> masks and region embeddings.

Nothing in them has a shape that depends on values. Where ``deop.regions.encoding`` removes something, as patches in the
padding or redundant proposals, these modules mark it instead.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.encoders.nano import NanoEncoder
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.export.traceable import knows_forms
from deop.images.preprocessing import Normalization
from deop.model import DeOP
from deop.networks.resampling import inside_images, to_patches
from deop.networks.shared_trunk import reuse_features
from deop.proposals.filtering import order_weights
from deop.proposals.nano import NanoProposer
from deop.proposals.partition import partition_logits
from deop.proposals.sam import SamProposer
from deop.proposals.transformers_networks import TransformersProposer
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorDecoder
from deop.regions.encoding import choose_anchors, embed_masks

DUPLICATE_IOU = 0.95
"""As in ``deop.proposals.filtering.drop_redundant``."""
ROUNDS = 64
"""Most masks in a row that are each a duplicate of the one before and nevertheless decide about the next one."""


class RegionGraph(nn.Module):
    """Given masks of one photo -> region embeddings.

    Args:
        model: in evaluation mode.
        severance: where and how attention is severed; None: as in the settings of the model.

    Raises:
        SettingError: a severed layer that the encoder does not have.
    """

    def __init__(self, model: DeOP, severance: Severance | None = None) -> None:
        super().__init__()
        self.encoder, self.anchors, self.settings = model.encoder, model.anchors, model.settings
        self.severance = severance or model.settings.severance
        self.inside = model.settings.padding == "outside"
        blocks = getattr(self.encoder, "blocks", None)
        if blocks is not None:
            self.severance.residuals(len(blocks))

    def forward(self, pixels: Tensor, size: Tensor, masks: Tensor) -> Tensor:
        """Embed masks.

        Args:
            pixels: (1, 3, H, W) float32, normalised for the encoder and padded with 0.
            size: (2,) int64, height and width of the photo in ``pixels``.
            masks: (N, h, w) float32, mask logits over ``pixels`` at any stride; N may be 0.

        Returns:
            (N, C) float32, L2-normalised.
        """
        # One more mask, which does not count, so that no operation gets an empty array.
        valid = F.pad(torch.ones_like(masks[:, 0, 0], dtype=torch.bool), (0, 1))
        masks = F.pad(masks, (0, 0, 0, 0, 0, 1))
        return self.embed(pixels, size, Proposals(masks), valid)[:-1]

    def embed(self, pixels: Tensor, size: Tensor, proposals: Proposals, valid: Tensor) -> Tensor:
        """Region embeddings (N, C) of N proposals, of which only those that are ``valid``, (N,) bool, count."""
        sizes = size[None] if self.inside else None
        masks, padded = proposals.logits, (pixels.shape[-2], pixels.shape[-1])
        kind = choose_anchors(None, self.anchors, self.settings, proposals)
        options = {"attention_pool": True} if kind == "attention-pool" else {}
        features = self.encoder(
            pixels, masks[None], severance=self.severance, valid=valid[None], sizes=sizes, **options
        )
        if features.regions is not None:
            return F.normalize(features.regions[0].float(), dim=-1, eps=1e-10)
        patches = features.patches.float()
        patch = self.encoder.patch
        if kind == "pool":
            return embed_masks(patches, [proposals], padded, patch, None, self.settings, kind).embeddings[0]
        decoder: AnchorDecoder = self.anchors
        grid = (patches.shape[-2], patches.shape[-1])
        inside = extent = None
        if sizes is not None:
            inside = inside_images(sizes, grid, patch, pixels.device)
            extent = ((size[0] + patch - 1) // patch, (size[1] + patch - 1) // patch)
        coverage = to_patches(masks[None].sigmoid(), padded, patch)
        slots = None if proposals.slots is None else proposals.slots[None]
        features = F.normalize(patches, dim=1)
        return decoder(features, coverage, slots, inside=inside, extent=extent, valid=valid[None]).embeddings[0]


class EncodeGraph(RegionGraph):
    """One photo -> the proposer's masks, which of them count, and their region embeddings.

    Args:
        model: in evaluation mode, with a proposer.
        severance: as in ``RegionGraph``.

    Raises:
        SettingError: no proposer, or one whose number of masks depends on the photo.
    """

    def __init__(self, model: DeOP, severance: Severance | None = None) -> None:
        super().__init__(model, severance)
        if isinstance(model.proposer, SamProposer):
            raise SettingError(
                "segment-anything cannot be exported: it chooses its masks one after the other, which has no form as a "
                'graph. Export the model without a proposer (proposer="given", --proposer given): programs then pass '
                "the masks"
            )
        if isinstance(model.proposer, TransformersProposer) and not knows_forms():
            raise SettingError(
                f"masks of {model.proposer.network.config.model_type} can be exported with transformers 5.23 or later "
                "only: pip install --upgrade transformers, or export the model without a proposer "
                '(proposer="given", --proposer given)'
            )
        if not isinstance(model.proposer, nn.Module):
            raise SettingError(
                f"cannot export a {type(model.proposer).__name__}: only proposers that are modules of torch can be "
                'exported. Export the model without one (proposer="given", --proposer given)'
            )
        self.proposer = model.proposer
        tied = self.anchors is not None and self.anchors.config.query == "slot" and self.settings.anchors == "decoder"
        self.drop_redundant = self.settings.drop_redundant and not tied

    def forward(self, pixels: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Encode a photo.

        Args:
            pixels: (1, 3, H, W) float32, normalised for the encoder and padded with 0.
            size: (2,) int64, height and width of the photo in ``pixels``.

        Returns:
            Mask logits (N, h, w) float32 over ``pixels``; (N,) bool, which of the masks are proposals; and region
            embeddings (N, C) float32, L2-normalised.
        """
        with reuse_features():
            proposals, valid = self.propose(renormalized(pixels, size, self.encoder, self.proposer))
            if self.drop_redundant:
                valid = distinct(proposals.logits, valid)
            if self.settings.partition == "score":
                masks = partition_logits(proposals.logits, proposals.scores, valid)
                proposals = replace(proposals, logits=masks)
                if self.drop_redundant:
                    valid = valid & (masks > 0).flatten(1).any(1)
            return proposals.logits, valid, self.embed(pixels, size, proposals, valid)

    def propose(self, pixels: Tensor) -> tuple[Proposals, Tensor]:
        """The masks, and which of them count, (N,) bool."""
        if isinstance(self.proposer, NanoProposer):
            partition, colours, divisions = self.proposer.parts(pixels)
            # squeeze, not [0], which would copy them
            masks, valid = self.proposer.masks(
                partition.squeeze(0), colours.squeeze(0), [division.squeeze(0) for division in divisions]
            )
            return Proposals(masks), valid
        proposals = self.proposer(pixels)[0]
        return proposals, torch.ones_like(proposals.logits[:, 0, 0], dtype=torch.bool)


class CellGraph(nn.Module):
    """``EncodeGraph`` on pixels in cells, so that no size is a multiple of another one that has to be divided.

    The exporter can then follow the sizes of networks with several strides, as those of transformers.

    Args:
        network: what is traced.
    """

    def __init__(self, network: EncodeGraph) -> None:
        super().__init__()
        self.network = network

    def forward(self, cells: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``EncodeGraph.forward`` on pixels (1, 3, rows, M, columns, M): H = rows * M and W = columns * M."""
        return self.network(cells.flatten(4, 5).flatten(2, 3), size)


def renormalized(pixels: Tensor, size: Tensor, encoder: nn.Module, proposer: nn.Module) -> Tensor:
    """Pixels (1, 3, H, W) that are normalised for the encoder, normalised for the proposer; padding remains 0."""
    old: Normalization = encoder.normalization  # type: ignore[assignment]
    new: Normalization = proposer.normalization  # type: ignore[assignment]
    if old == new:
        return pixels
    old_mean, old_std, new_mean, new_std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (old.mean, old.std, new.mean, new.std)
    )
    factor, offset = (old_std / new_std).float(), ((old_mean - new_mean) / new_std).float()
    rows, columns = (torch.arange(count) < side for count, side in zip(pixels.shape[-2:], size, strict=True))
    return (pixels * factor + offset) * (rows[:, None] & columns)


def distinct(logits: Tensor, valid: Tensor) -> Tensor:
    """``deop.proposals.filtering.drop_redundant`` as a marking: which masks are neither empty nor duplicates.

    Args:
        logits: (N, h, w) float.
        valid: (N,) bool, the masks to choose from.

    Returns:
        (N,) bool.
    """
    cells = (logits > 0).flatten(1).float()
    shared = cells @ cells.mT
    area = cells.sum(1)
    valid = valid & (area > 0)
    overlapping = shared > DUPLICATE_IOU * (area[:, None] + area - shared).clamp_min(1)
    place = torch.arange(logits.shape[0])
    weights = order_weights(logits.shape[-2], logits.shape[-1]).flatten(1).float()
    first = place < place[:, None]  # [i, j]: j comes before i
    for keys in (cells @ weights[1], cells @ weights[0], -area):  # the last one decides first
        first = (keys < keys[:, None]) | ((keys == keys[:, None]) & first)
    rivals = (overlapping & first & valid).float()  # [i, j]: j comes before i and excludes it, if j is kept itself
    kept = valid
    # A mask is decided as soon as the masks before it are.
    for _ in range(min(ROUNDS, logits.shape[0])):
        kept = valid & (rivals @ kept.float() == 0)
    return kept


def multiple_of(model: DeOP) -> int:
    """What H and W of the pixels must be multiples of: the padding of the model, and 32 for networks with strides."""
    return math.lcm(model.settings.resize.divisor, 32 if has_strides(model) else 1)


def has_strides(model: DeOP) -> bool:
    """Whether a network halves its input five times: sides must be multiples of 32, and at least 64 pixels."""
    return isinstance(model.encoder, NanoEncoder) or isinstance(model.proposer, TransformersProposer)
